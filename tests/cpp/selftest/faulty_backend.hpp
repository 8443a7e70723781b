// A backend that does one thing wrong, so that a self-test can show that it notices.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/forwarding_backend.hpp"
#include "pagedcore/error.hpp"
#include "selftest/host_sampler.hpp"

namespace faulty {

using namespace pagedcore;

enum class Fault {
  none,
  upload,         // one bit of the last byte
  download,       // likewise
  allocate,       // not zeroed
  host_parallel,  // the last index is left out
  gather_rows,    // from here on: the sign of one result
  scale_softcap,
  norm,
  head_norm,
  embed,
  embed_positions,
  add,
  convert,
  matmul,
  route,
  mixture,
  rope_and_cache,
  attention,
  swap_in,      // one bit of the last block
  swap_out,     // likewise
  copy_blocks,  // the last copy is left out
  pack,         // one bit of a weight
  prepare,      // the last token is another one
  batch_bits,   // the last bit of one result of a matmul, and only in batches: within every tolerance
  chunk_bits,   // the same of attention
  host_view,    // the host sees other numbers
  sizes,        // packed_bytes() foretells too little
  step_lost,    // from here on the third step: not run
  step_twice,
  step_stale,      // with the list of rows of the step before
  sampled_token,   // from here on the last task that was done: another token
  sampled_number,  // a log-probability that is off by little
  sampled_order,   // the two most likely tokens change places
  sampled_bits,    // the last bit of a log-probability, and only among other tasks
  sampled_none,    // all tasks are left, and the host does not see the logits
  sampled_some,    // every eighth sample of a request is left: no fault
  throws,          // attention throws
};

/// Otherwise the inner backend; where that leaves all sampling to the host, this samples as a device would.
class FaultyBackend final : public ForwardingBackend {
 public:
  FaultyBackend(Backend& inner, Fault fault) : ForwardingBackend(inner), fault_(fault) {}

  std::unique_ptr<Buffer> allocate(std::size_t bytes) override {
    auto buffer = inner_.allocate(bytes);
    if (fault_ == Fault::allocate && bytes >= 4) {
      const auto count = static_cast<std::int64_t>(bytes / 4);
      const Tensor last{static_cast<std::byte*>(buffer->data()) + (count - 1) * 4, DType::f32, 1, 1, 1};
      const std::array<std::byte, 4> ones{std::byte{1}};
      inner_.upload(last, ones);
    }
    return buffer;
  }
  void upload(const Tensor& dst, std::span<const std::byte> src) override {
    std::vector<std::byte> bytes(src.begin(), src.end());
    if (fault_ == Fault::upload) flip(bytes);
    inner_.upload(dst, bytes);
  }
  void download(std::span<std::byte> dst, const Tensor& src) override {
    inner_.download(dst, src);
    if (fault_ == Fault::download) dst.back() ^= std::byte{1};
  }
  void synchronize() override {
    inner_.synchronize();
    for (std::byte* byte : swapped_) *byte ^= std::byte{1};
    swapped_.clear();
  }
  std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, const WeightForm& form) override {
    if (fault_ != Fault::pack) return inner_.pack(parts, form);
    std::vector<HostTensor> changed(parts.begin(), parts.end());
    std::vector<std::byte> bytes(parts.back().data.begin(), parts.back().data.end());
    bytes.back() ^= std::byte{0x80};
    changed.back().data = bytes;
    return inner_.pack(changed, form);
  }
  std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const override {
    return inner_.packed_bytes(n, k, form) - (fault_ == Fault::sizes ? 1 : 0);
  }
  void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) override {
    inner_.copy_blocks(kv, fault_ == Fault::copy_blocks ? copies.first(copies.size() - 1) : copies);
  }
  void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) override {
    inner_.swap_out(kv, blocks, dst);
    if (fault_ == Fault::swap_out) swapped_.push_back(dst.back() + kv.block_bytes() - 1);
  }
  void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) override {
    if (fault_ != Fault::swap_in) return inner_.swap_in(kv, blocks, src);
    std::vector<const std::byte*> sources(src.begin(), src.end());
    std::vector<std::byte> last(src.back(), src.back() + kv.block_bytes());
    flip(last);
    sources.back() = last.data();
    inner_.swap_in(kv, blocks, sources);
    inner_.synchronize();
  }
  std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) override {
    if (fault_ != Fault::prepare) return inner_.prepare(view, block_size);
    std::vector<TokenId> tokens(view.tokens.begin(), view.tokens.end());
    tokens.back() = tokens.back() == 0 ? 1 : 0;
    BatchView changed = view;
    changed.tokens = tokens;
    return inner_.prepare(changed, block_size);
  }
  void run_step(const Batch& batch, const std::function<void()>& operations) override {
    const bool third = ++steps_ == 3;
    if (fault_ == Fault::step_lost && third) return;
    in_step_ = true;
    inner_.run_step(batch, operations);
    if (fault_ == Fault::step_twice && third) inner_.run_step(batch, operations);
    in_step_ = false;
  }
  void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) override {
    inner_.embed(out, table, batch, scale);
    spoil(Fault::embed, out);
  }
  void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
            const NormParams& p) override {
    inner_.norm(out, in, weight, bias, p);
    spoil(Fault::norm, out);
  }
  void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                 const NormParams& p) override {
    inner_.head_norm(x, head_dim, weight, bias, p);
    spoil(Fault::head_norm, x);
  }
  void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) override {
    inner_.embed_positions(out, table, batch, offset);
    spoil(Fault::embed_positions, out);
  }
  void add(const Tensor& x, const Tensor& y, float scale) override {
    inner_.add(x, y, scale);
    spoil(Fault::add, x);
  }
  void convert(const Tensor& out, const Tensor& in) override {
    inner_.convert(out, in);
    spoil(Fault::convert, out);
  }
  void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) override {
    inner_.matmul(out, in, weight, epilogue);
    spoil(Fault::matmul, out);
    if (fault_ == Fault::batch_bits && out.rows > 1) change_last(out, false);
  }
  void route(const Routing& out, const Tensor& logits, const RouterParams& p) override {
    inner_.route(out, logits, p);
    spoil(Fault::route, out.shares);
  }
  void mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts) override {
    inner_.mixture(out, in, routing, experts);
    spoil(Fault::mixture, out);
  }
  void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                      const AttentionShape& shape, const RopeParams& rope) override {
    inner_.rope_and_cache(q, qkv, kv, layer, batch, shape, rope);
    spoil(Fault::rope_and_cache, q);
  }
  void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer, const Batch& batch,
                 const AttentionParams& p) override {
    if (fault_ == Fault::throws) throw Aborted("the device is lost");
    inner_.attention(out, q, kv, layer, batch, p);
    spoil(Fault::attention, out);
    if (fault_ == Fault::chunk_bits && out.rows > 1) change_last(out, false);
  }
  void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) override {
    const std::vector<std::int32_t> list(indices.begin(), indices.end());
    const bool stale = fault_ == Fault::step_stale && in_step_ && gathered_.size() == list.size();
    inner_.gather_rows(out, in, stale ? gathered_ : list);
    if (in_step_) gathered_ = list;
    spoil(Fault::gather_rows, out);
  }
  void scale_softcap(const Tensor& x, float scale, float softcap) override {
    inner_.scale_softcap(x, scale, softcap);
    spoil(Fault::scale_softcap, x);
  }
  void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                     std::span<SamplingResult> results) override {
    inner_.sample_tokens(logits, tasks, results);
    if (std::ranges::none_of(results, &SamplingResult::done)) sample_here(logits, tasks, results);
    for (std::size_t i = 0; fault_ == Fault::sampled_some && i < tasks.size(); ++i)
      if (tasks[i].context.sample % 8 == 7) results[i] = {};
    for (auto result = results.rbegin(); result != results.rend(); ++result) {
      if (spoil(*result, tasks.size())) break;
    }
  }
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) override {
    inner_.host_parallel(fault_ == Fault::host_parallel ? count - 1 : count, body);
  }
  const void* host_view(const Tensor& t) noexcept override {
    if (fault_ == Fault::sampled_none) return nullptr;
    const auto* view = static_cast<const std::byte*>(inner_.host_view(t));
    return view != nullptr && fault_ == Fault::host_view ? view + 4 : view;
  }

 private:
  static void flip(std::vector<std::byte>& bytes) { bytes.back() ^= std::byte{1}; }
  void spoil(Fault fault, const Tensor& t) {
    if (fault_ == fault) change_last(t, true);
  }
  /// Of the last number of the last row: its sign, or its last bit.
  void change_last(const Tensor& t, bool sign) {
    const Tensor last = t.slice_rows(t.rows - 1, 1).slice_cols(t.cols - 1, 1);
    std::vector<std::byte> bytes(bytes_of(t.dtype, 1));
    inner_.download(bytes, last);
    if (sign) {
      bytes.back() ^= std::byte{0x80};
    } else {
      bytes.front() ^= std::byte{1};
    }
    inner_.upload(last, bytes);
  }

  void sample_here(const Tensor& logits, std::span<const SamplingTask> tasks, std::span<SamplingResult> results) {
    std::vector<float> row(static_cast<std::size_t>(logits.cols));
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      inner_.download(std::as_writable_bytes(std::span(row)), logits.slice_rows(tasks[i].row, 1));
      results[i] = selftest::sampled_on_host(row, tasks[i]);
    }
  }
  /// False where this result has nothing to spoil.
  bool spoil(SamplingResult& result, std::size_t tasks) {
    if (!result.done) return false;
    switch (fault_) {
      case Fault::sampled_token:
        if (result.token < 0) return false;
        result.token ^= 1;
        return true;
      case Fault::sampled_number:
      case Fault::sampled_bits: {
        if (result.chosen.token < 0) return false;
        float& number = result.chosen.logprob;
        if (fault_ == Fault::sampled_number) number *= 1.00001f;
        if (fault_ == Fault::sampled_bits && tasks > 1) number = std::nextafter(number, 0.0f);
        return true;
      }
      case Fault::sampled_order:
        if (result.top.size() < 2) return false;
        std::swap(result.top[0], result.top[1]);
        return true;
      case Fault::sampled_none:
        result = {};
        return false;
      default:
        return true;
    }
  }

  Fault fault_;
  int steps_ = 0;
  bool in_step_ = false;
  std::vector<std::int32_t> gathered_;  // by the step before
  std::vector<std::byte*> swapped_;     // to be changed once they are there
};

struct Expectation {
  Fault fault;
  const char* operation;  // of the first check that must fail
};

/// The faults, and what a self-test must say first.
inline constexpr Expectation kExpectations[] = {
    {Fault::upload, "upload, download"},
    {Fault::host_view, "host_view"},
    {Fault::sizes, "packed_bytes, kv_block_bytes"},
    {Fault::download, "upload, download"},
    {Fault::allocate, "allocate"},
    {Fault::host_parallel, "host_parallel"},
    {Fault::gather_rows, "gather_rows"},
    {Fault::swap_in, "swap_in, swap_out"},
    {Fault::swap_out, "swap_in, swap_out"},
    {Fault::copy_blocks, "copy_blocks"},
    {Fault::scale_softcap, "scale_softcap"},
    {Fault::norm, "norm"},
    {Fault::head_norm, "head_norm"},
    {Fault::pack, "pack, prepare, embed"},
    {Fault::prepare, "pack, prepare, embed"},
    {Fault::embed, "pack, prepare, embed"},
    {Fault::embed_positions, "embed_positions"},
    {Fault::add, "add"},
    {Fault::convert, "convert"},
    {Fault::matmul, "matmul"},
    {Fault::batch_bits, "matmul"},
    {Fault::route, "route"},
    {Fault::mixture, "mixture"},
    {Fault::rope_and_cache, "rope_and_cache"},
    {Fault::attention, "attention"},
    {Fault::chunk_bits, "attention"},
    {Fault::throws, "attention"},
    {Fault::step_lost, "run_step"},
    {Fault::step_twice, "run_step"},
    {Fault::step_stale, "run_step"},
    {Fault::sampled_token, "sample_tokens"},
    {Fault::sampled_number, "sample_tokens"},
    {Fault::sampled_order, "sample_tokens"},
    {Fault::sampled_bits, "sample_tokens"},
    {Fault::sampled_none, "sample_tokens"},
};

}  // namespace faulty
