// What mixtures of experts take on the CPU, in bf16, against what their weights and products allow:
//
//   bench_mixture [THREADS]
//
// One row: seconds of all layers, over the bytes of the experts that it uses at the rate at which this machine reads.
// 64 rows: seconds over the sum, of the experts that are used, of the larger of its bytes at that rate and its products
// at its number of rows, weights in the cache, where they fit. All in one run, the least of several.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "pagedcore/backend.hpp"

using namespace pagedcore;

namespace {

constexpr std::int64_t kHidden = 2048, kInner = 1024, kLayers = 4;
constexpr int kRepeats = 9;

template <class Body>
double seconds(const Body& body, int repeats = kRepeats) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body(i);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

struct Layer {
  std::vector<std::unique_ptr<Weight>> up, down;
};

class Bench {
 public:
  Bench(int threads, std::int64_t experts, std::int64_t chosen)
      : experts_(experts), chosen_(chosen), backend_(make_cpu_backend({threads, DType::bf16})) {
    std::vector<std::uint16_t> numbers(static_cast<std::size_t>(kHidden * kInner));
    for (auto& x : numbers) x = static_cast<std::uint16_t>(0x3c80u | (random_() & 0x807fu));  // 1/64 to 1/32
    const auto bytes = std::as_bytes(std::span(numbers));
    const HostTensor pair[]{{DType::bf16, {kInner, kHidden}, 2, bytes}, {DType::bf16, {kInner, kHidden}, 2, bytes}};
    const HostTensor back{DType::bf16, {kHidden, kInner}, 2, bytes};
    std::vector<std::int64_t> leaves;
    for (std::int64_t i = 1; i <= 16; ++i) leaves.push_back(i * kInner / 16);
    for (std::int64_t i = 0; i < kLayers; ++i) {
      Layer& layer = layers_.emplace_back();
      for (std::int64_t e = 0; e < experts; ++e) {
        layer.up.push_back(backend_->pack(pair, PackKind::gated));
        layer.down.push_back(backend_->pack({&back, 1}, {PackKind::stacked, leaves}));
      }
    }
  }

  double expert_bytes() const { return static_cast<double>(layers_[0].up[0]->bytes() + layers_[0].down[0]->bytes()); }

  /// Bytes a second, over more memory than caches hold.
  double read_rate() {
    const std::int64_t pieces = 4096, words = (256 << 20) / pieces / 8;
    std::vector<std::uint64_t> memory(static_cast<std::size_t>(pieces * words), 1);
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(pieces) * 8);
    const double time = seconds([&](int) {
      backend_->host_parallel(pieces, [&](std::int64_t piece) {
        std::uint64_t sum[4]{};
        const std::uint64_t* at = memory.data() + piece * words;
        for (std::int64_t i = 0; i < words; i += 4)
          for (int j = 0; j < 4; ++j) sum[j] += at[i + j];
        sums[static_cast<std::size_t>(piece) * 8] = sum[0] + sum[1] + sum[2] + sum[3];
      });
    });
    return static_cast<double>(memory.size() * 8) / time;
  }

  /// Of an expert's two products over `rows` rows, its weights where the last call left them.
  double product(std::int64_t rows) {
    Rows x(*backend_, rows, 1);
    return seconds(
        [&](int) {
          backend_->matmul(x.inner, x.in, *layers_[0].up[0], {Epilogue::Kind::gated, Activation::silu});
          backend_->matmul(x.out, x.inner, *layers_[0].down[0], {Epilogue::Kind::accumulate});
        },
        5);
  }

  void run(std::int64_t rows, double rate) {
    Rows x(*backend_, rows, chosen_);
    // Another choice in every layer; the same in every repeat.
    std::vector<std::vector<std::int32_t>> choices;
    std::vector<std::int64_t> of_expert(static_cast<std::size_t>(experts_ * kLayers));
    for (std::int64_t i = 0; i < kLayers; ++i) choices.push_back(choose(rows, of_expert.data() + i * experts_));
    const std::vector<float> shares(static_cast<std::size_t>(rows * chosen_), 1.0f / static_cast<float>(chosen_));
    backend_->upload(x.routing.shares, std::as_bytes(std::span(shares)));
    const double time = seconds([&](int) {
      for (std::size_t i = 0; i < layers_.size(); ++i) {
        backend_->upload(x.routing.experts, std::as_bytes(std::span(choices[i])));
        backend_->mixture(x.out, x.in, x.routing,
                          {layers_[i].up, layers_[i].down, Activation::silu, true, x.gathered, x.inner});
      }
    });
    double reads = 0, least = 0;
    std::vector<double> products(static_cast<std::size_t>(rows) + 1, -1.0);
    for (const std::int64_t count : of_expert) {
      if (count == 0) continue;
      double& at = products[static_cast<std::size_t>(count)];
      if (at < 0) at = product(count);
      reads += expert_bytes() / rate;
      least += std::max(expert_bytes() / rate, at);
    }
    std::printf(
        "%2lld experts, %lld a row, %3lld rows: %7.2f ms; reads alone %7.2f (%.2f), with products %7.2f (%.2f)\n",
        static_cast<long long>(experts_), static_cast<long long>(chosen_), static_cast<long long>(rows), time * 1e3,
        reads * 1e3, time / reads, least * 1e3, time / least);
  }

 private:
  struct Rows {
    std::unique_ptr<Buffer> memory;
    Tensor in, out, gathered, inner;
    Routing routing;

    Rows(Backend& backend, std::int64_t rows, std::int64_t chosen) {
      const std::int64_t slots = rows * chosen;
      std::int64_t end = 0;
      const auto place = [&](DType dtype, std::int64_t r, std::int64_t c) {
        const std::int64_t at = end;
        end += (static_cast<std::int64_t>(bytes_of(dtype, r * c)) + 63) / 64 * 64;
        return Tensor{reinterpret_cast<void*>(at), dtype, r, c, c};
      };
      in = place(DType::bf16, rows, kHidden);
      out = place(DType::f32, rows, kHidden);
      gathered = place(DType::bf16, slots, kHidden);
      inner = place(DType::bf16, slots, kInner);
      routing = {place(DType::i32, rows, chosen), place(DType::f32, rows, chosen)};
      memory = backend.allocate(static_cast<std::size_t>(end));
      for (Tensor* t : {&in, &out, &gathered, &inner, &routing.experts, &routing.shares})
        t->data = static_cast<std::byte*>(memory->data()) + reinterpret_cast<std::intptr_t>(t->data);
    }
  };

  std::vector<std::int32_t> choose(std::int64_t rows, std::int64_t* of_expert) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(experts_)), found;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random_);
      std::sort(all.begin(), all.begin() + chosen_);
      for (std::int64_t i = 0; i < chosen_; ++i) {
        found.push_back(all[static_cast<std::size_t>(i)]);
        ++of_expert[all[static_cast<std::size_t>(i)]];
      }
    }
    return found;
  }

  std::int64_t experts_, chosen_;
  std::mt19937 random_{1};
  std::unique_ptr<Backend> backend_;
  std::vector<Layer> layers_;
};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  for (const auto& [experts, chosen] : {std::pair{8, 2}, {64, 8}}) {
    Bench bench(threads, experts, chosen);
    const double rate = bench.read_rate();
    std::printf("reads %.1f GB/s\n", rate / 1e9);
    for (const std::int64_t rows : {1, 4, 16, 64, 256}) bench.run(rows, rate);
  }
  return 0;
}
