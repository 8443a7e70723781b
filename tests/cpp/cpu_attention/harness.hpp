// Sequences with known q, k and v over a KV storage whose unwritten slots are NaN, and dense attention in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/attention/attention.hpp"
#include "cpu/kv/kv.hpp"
#include "cpu/kv/storage.hpp"

namespace pagedcore::cpu::test {

inline std::uint16_t to_bf16(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  return static_cast<std::uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
inline float from_bf16(std::uint16_t b) {
  const std::uint32_t u = std::uint32_t{b} << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

inline std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx, Isa::neon})
    if (supported(isa)) all.push_back(isa);
  return all;
}

struct Types {
  DType compute, kv;
};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// Ten times slower, so that all four take minutes: tiles that are read where they lie, and tiles that are widened.
inline constexpr Types kTypes[] = {{DType::f32, DType::f32}, {DType::bf16, DType::i8}};
#else
inline constexpr Types kTypes[] = {
    {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::f32, DType::i8}, {DType::bf16, DType::i8}};
#endif

struct Setup {
  Isa isa = Isa::portable;
  DType compute = DType::f32;
  DType kv = DType::f32;
  int head_dim = 64, kv_heads = 2, heads_per_kv_head = 3, block_size = 16, layers = 1;
  float softcap = 0.0f;
  int window = 0;
  unsigned seed = 1;
  std::vector<float> sinks = {};  // of heads, or none
  int heads() const { return kv_heads * heads_per_kv_head; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

/// Token range [first, first + rows) of a sequence.
struct Part {
  int sequence, first, rows;
};

class World {
 public:
  World(const Setup& s, std::vector<int> lengths) : setup(s), lengths_(std::move(lengths)), rng_(s.seed) {
    std::vector<std::uint32_t> ids;
    std::uint32_t total = 3;  // some blocks stay unused
    for (int n : lengths_) total += static_cast<std::uint32_t>((n + s.block_size - 1) / s.block_size);
    ids.resize(total);
    std::iota(ids.begin(), ids.end(), 0u);
    std::shuffle(ids.begin(), ids.end(), rng_);
    std::normal_distribution<float> normal;
    std::size_t used = 0;
    for (int n : lengths_) {
      const auto blocks = static_cast<std::size_t>((n + s.block_size - 1) / s.block_size);
      tables.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(used),
                          ids.begin() + static_cast<std::ptrdiff_t>(used + blocks));
      used += blocks;
      std::vector<float> x(static_cast<std::size_t>(n) * cols());
      for (float& f : x)
        f = s.compute == DType::bf16 || s.kv == DType::bf16 ? from_bf16(to_bf16(normal(rng_))) : normal(rng_);
      // A sum of few dimensions may cancel out, and then its relative error says nothing: values of one sign do not.
      for (std::size_t i = 0; i < x.size() && s.head_dim < 8; ++i)
        if (i % cols() >= cols() - static_cast<std::size_t>(s.kv_heads * s.head_dim)) x[i] = std::abs(x[i]);
      qkv.push_back(std::move(x));
    }
    KvShape shape{s.layers, s.kv_heads, s.head_dim, s.block_size, s.kv};
    storage = make_kv_storage(shape, total, s.isa, s.compute);
    poison();
  }

  std::size_t cols() const { return static_cast<std::size_t>((setup.heads() + 2 * setup.kv_heads) * setup.head_dim); }
  std::size_t out_cols() const { return static_cast<std::size_t>(setup.heads() * setup.head_dim); }
  PagedStorage& paged() { return static_cast<PagedStorage&>(*storage); }

  /// All ones is a NaN in f32 and in bf16.
  void poison() { std::memset(paged().part(0, 0, 0), 0xff, storage->block_bytes() * storage->num_blocks()); }

  struct Prepared {
    std::unique_ptr<Batch> batch;
    std::int64_t rows;
  };
  Prepared prepare(const std::vector<Part>& parts) const {
    std::vector<TokenId> tokens;
    std::vector<TokenRange> ranges;
    std::vector<BlockId> all;
    for (const Part& p : parts) {
      ranges.push_back(
          {static_cast<std::int32_t>(tokens.size()), p.rows, p.first, static_cast<std::int32_t>(all.size())});
      tokens.resize(tokens.size() + static_cast<std::size_t>(p.rows), 7);
      const auto& t = tables[static_cast<std::size_t>(p.sequence)];
      for (const std::uint32_t block : t) all.push_back(BlockId{block});
    }
    return {make_batch({tokens, ranges, all}, setup.block_size), static_cast<std::int64_t>(tokens.size())};
  }

  /// One step: writes the parts' K and V, then attends. Returns the rows as f32.
  std::vector<float> step(ThreadPool& pool, const std::vector<Part>& parts, int layer = 0) {
    const Prepared p = prepare(parts);
    std::vector<float> in;
    for (const Part& part : parts) {
      const auto& x = qkv[static_cast<std::size_t>(part.sequence)];
      const auto first = x.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(part.first) * cols());
      in.insert(in.end(), first, first + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(part.rows) * cols()));
    }
    const auto n = static_cast<std::size_t>(p.rows) * out_cols();
    std::vector<float> q(n, std::nanf("")), out(n);  // large enough for either type; what q leaves is not to be read
    const auto width = static_cast<std::int64_t>(out_cols()), in_width = static_cast<std::int64_t>(cols());
    const Tensor q_t{q.data(), setup.compute, p.rows, width, width};
    const Tensor out_t{out.data(), setup.compute, p.rows, width, width};
    const Tensor in_t{in.data(), DType::f32, p.rows, in_width, in_width};
    const AttentionShape shape{setup.heads(), setup.kv_heads, setup.head_dim};
    rope_and_cache(pool, q_t, in_t, *storage, layer, *p.batch, shape, {});
    const Tensor sinks{const_cast<float*>(setup.sinks.data()), DType::f32, 1, setup.heads(), setup.heads()};
    AttentionParams params{shape, setup.scale(), setup.softcap, setup.window};
    if (!setup.sinks.empty()) params.sinks = &sinks;
    attention(pool, out_t, q_t, *storage, layer, *p.batch, params);
    if (setup.compute == DType::f32) return out;
    std::vector<std::uint16_t> half(n);
    std::memcpy(half.data(), out.data(), n * 2);
    for (std::size_t i = 0; i < n; ++i) out[i] = from_bf16(half[i]);
    return out;
  }

  /// The sequence's numbers as they are read back: K and V in int8 are rounded, a head of a token at a time.
  std::vector<float> held(int sequence) const {
    std::vector<float> x = qkv[static_cast<std::size_t>(sequence)];
    if (setup.kv != DType::i8) return x;
    const auto d = static_cast<std::size_t>(setup.head_dim);
    for (std::size_t at = 0; at < x.size(); at += d) {
      if (at % cols() < out_cols()) continue;
      float most = 0.0f;
      for (std::size_t i = at; i < at + d; ++i) most = std::max(most, std::abs(x[i]));
      for (std::size_t i = at; i < at + d; ++i) {
        const float value = std::nearbyint(x[i] * (127.0f / most)) * (most / 127.0f);
        x[i] = setup.compute == DType::bf16 ? from_bf16(to_bf16(value)) : value;
      }
    }
    return x;
  }

  /// Dense attention of one row, all heads, in double.
  std::vector<double> reference(int sequence, int position) const {
    const std::vector<float> x = held(sequence);
    const auto d = static_cast<std::size_t>(setup.head_dim);
    const int first = setup.window > 0 ? std::max(0, position - setup.window + 1) : 0;
    std::vector<double> out(out_cols(), 0.0);
    for (std::size_t h = 0; h < static_cast<std::size_t>(setup.heads()); ++h) {
      const std::size_t kv_head = h / static_cast<std::size_t>(setup.heads_per_kv_head);
      const float* q = &x[static_cast<std::size_t>(position) * cols() + h * d];
      std::vector<double> s;
      double top = -1e300, sum = 0;
      for (int t = first; t <= position; ++t) {
        const float* k = &x[static_cast<std::size_t>(t) * cols() + out_cols() + kv_head * d];
        double dot = 0;
        for (std::size_t i = 0; i < d; ++i) dot += double{q[i]} * double{k[i]};
        dot *= double{setup.scale()};
        if (setup.softcap > 0) dot = double{setup.softcap} * std::tanh(dot / double{setup.softcap});
        s.push_back(dot);
        top = std::max(top, dot);
      }
      if (!setup.sinks.empty()) {  // one more token, without a value
        top = std::max(top, double{setup.sinks[h]});
        sum = std::exp(double{setup.sinks[h]} - top);
      }
      for (double& e : s) sum += (e = std::exp(e - top));
      for (int t = first; t <= position; ++t) {
        const float* v = &x[static_cast<std::size_t>(t) * cols() + out_cols() +
                            (static_cast<std::size_t>(setup.kv_heads) + kv_head) * d];
        for (std::size_t i = 0; i < d; ++i)
          out[h * d + i] += s[static_cast<std::size_t>(t - first)] / sum * double{v[i]};
      }
    }
    return out;
  }

  /// Largest relative error, in the norm of a head, of `row` against the reference.
  double error(const float* row, int sequence, int position) const {
    const std::vector<double> ref = reference(sequence, position);
    double worst = 0;
    const auto d = static_cast<std::size_t>(setup.head_dim);
    for (std::size_t h = 0; h < static_cast<std::size_t>(setup.heads()); ++h) {
      double num = 0, den = 0;
      for (std::size_t i = h * d; i < (h + 1) * d; ++i) {
        num += (double{row[i]} - ref[i]) * (double{row[i]} - ref[i]);
        den += ref[i] * ref[i];
      }
      const double e = std::sqrt(num / den);
      worst = e > worst || std::isnan(e) ? e : worst;
      if (std::isnan(e)) return e;
    }
    return worst;
  }

  // f32: rounding of sums of up to 256 products and 1,100 probabilities. bf16: outputs and, through the dot-product
  // instruction, probabilities are rounded to 8 bits (2^-9 each).
  double tolerance() const { return setup.compute == DType::bf16 ? 6e-3 : 1e-5; }

  Setup setup;
  std::vector<std::vector<std::uint32_t>> tables;
  std::vector<std::vector<float>> qkv;  // [sequence][position][q | k | v]
  std::unique_ptr<KvStorage> storage;

 private:
  std::vector<int> lengths_;
  std::mt19937 rng_;
};

}  // namespace pagedcore::cpu::test
