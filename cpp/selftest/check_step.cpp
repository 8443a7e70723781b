// A step taken as one (run_step) gives what its operations give one by one.
#include <algorithm>

#include "backend/checks.hpp"
#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

constexpr std::int64_t kVocab = 50, kWidth = 64, kInner = 96;
constexpr std::int32_t kBlockSize = 16, kBlocks = 6;  // of a sequence
constexpr std::int32_t kMostSequences = 4;
constexpr AttentionShape kShape{2, 1, 64};
constexpr std::int64_t kQueryCols = 2 * 64, kCols = kQueryCols + 2 * 64;

std::unique_ptr<Weight> packed(Backend& b, std::int64_t n, std::int64_t k, unsigned seed, bool gated = false) {
  const HostMatrix one(DType::f32, n, k, normal_values(n * k, seed, 0.125f)),
      other(DType::f32, n, k, normal_values(n * k, seed + 50, 0.125f));
  const std::vector<HostTensor> parts{one.tensor(), other.tensor()};
  return gated ? b.pack(parts, PackKind::gated) : b.pack({parts.data(), 1}, PackKind::stacked);
}

/// A decoder of one layer. Activations are others in every step, so that addresses change; sums go through all steps,
/// so that one left out or run twice shows.
class Decoder {
 public:
  explicit Decoder(Backend& b) : b_(b) {}

  /// Rows [i] follow in sequence i. `as_step`: through run_step().
  void step(std::span<const std::int32_t> rows, bool as_step) {
    std::vector<TokenId> tokens;
    std::vector<TokenRange> ranges;
    std::vector<std::int32_t> last;  // rows of the sequences
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto first = static_cast<std::int32_t>(tokens.size());
      ranges.push_back({first, rows[i], positions_[i], static_cast<std::int32_t>(i) * kBlocks});
      for (std::int32_t r = 0; r < rows[i]; ++r)
        tokens.push_back((positions_[i] + r) * 7 % static_cast<std::int32_t>(kVocab));
      positions_[i] += rows[i];
      last.push_back(first + rows[i] - 1);
    }
    if (++steps_ % 2 == 0) std::ranges::reverse(last);
    const auto batch = b_.prepare({tokens, ranges, tables_, 1}, kBlockSize);
    const auto matrix = [&](DType dtype, std::size_t count, std::int64_t cols) -> const Tensor& {
      return kept_.emplace_back(std::make_unique<Matrix>(b_, dtype, static_cast<std::int64_t>(count), cols))->tensor();
    };
    const DType narrow = b_.compute_dtype();
    const Tensor &residual = matrix(DType::f32, tokens.size(), kWidth), &normed = matrix(narrow, tokens.size(), kWidth),
                 &qkv = matrix(DType::f32, tokens.size(), kCols), &q = matrix(narrow, tokens.size(), kQueryCols),
                 &attended = matrix(narrow, tokens.size(), kQueryCols), &inner = matrix(narrow, tokens.size(), kInner),
                 &chosen = matrix(DType::f32, last.size(), kWidth), &finished = matrix(narrow, last.size(), kWidth),
                 &logits = matrix(DType::f32, last.size(), kVocab);
    logits_.push_back(kept_.back().get());
    const auto operations = [&] {
      b_.embed(residual, *embed_, *batch, 0.5f);
      b_.norm(normed, residual, ones_.tensor(), nullptr, {});
      b_.matmul(qkv, normed, *qkv_, {});
      b_.head_norm(qkv.slice_cols(0, kQueryCols), kShape.head_dim, ones_.tensor(), nullptr, {});
      b_.rope_and_cache(q, qkv, *kv_, 0, *batch, kShape, {&frequencies_.tensor(), 1.0f});
      b_.attention(attended, q, *kv_, 0, *batch, {kShape, 0.125f});
      b_.matmul(residual, attended, *output_, {Epilogue::Kind::accumulate});
      b_.matmul(inner, normed, *up_, {Epilogue::Kind::gated});
      b_.matmul(residual, inner, *down_, {Epilogue::Kind::accumulate});
      b_.gather_rows(chosen, residual, last);
      b_.norm(finished, chosen, ones_.tensor(), nullptr, {});
      b_.matmul(logits, finished, *head_, {});
      b_.scale_softcap(logits, 1.0f, 3.0f);
      b_.matmul(sums_.tensor().head(logits.rows), finished, *head_, {Epilogue::Kind::accumulate});
    };
    if (as_step) {
      b_.run_step(*batch, operations);
    } else {
      operations();
    }
  }

  std::vector<std::byte> results() const {
    std::vector<float> all = sums_.values();
    for (const Matrix* logits : logits_) {
      const std::vector<float> values = logits->values();
      all.insert(all.end(), values.begin(), values.end());
    }
    return encoded(all, DType::f32);
  }

 private:
  static std::vector<BlockId> all_blocks() {
    std::vector<BlockId> blocks = first_blocks(static_cast<std::uint32_t>(kMostSequences * kBlocks));
    std::ranges::reverse(blocks);
    return blocks;
  }

  Backend& b_;
  std::unique_ptr<Weight> embed_ = packed(b_, kVocab, kWidth, 1), qkv_ = packed(b_, kCols, kWidth, 2),
                          output_ = packed(b_, kWidth, kQueryCols, 3), up_ = packed(b_, kInner, kWidth, 4, true),
                          down_ = packed(b_, kWidth, kInner, 5), head_ = packed(b_, kVocab, kWidth, 6);
  Matrix ones_{b_, DType::f32, 1, kWidth, std::vector<float>(kWidth, 1.0f)},
      frequencies_{b_, DType::f32, 1, 32, normal_values(32, 7)}, sums_{b_, DType::f32, kMostSequences, kVocab};
  std::vector<BlockId> tables_ = all_blocks();
  std::unique_ptr<KvStorage> kv_ =
      b_.allocate_kv({1, kShape.num_kv_heads, kShape.head_dim, kBlockSize, b_.compute_dtype()},
                     static_cast<std::uint32_t>(kMostSequences* kBlocks));
  std::vector<std::int32_t> positions_ = std::vector<std::int32_t>(kMostSequences);
  int steps_ = 0;
  std::vector<std::unique_ptr<Matrix>> kept_;  // until all steps have run
  std::vector<const Matrix*> logits_;
};

}  // namespace

void check_step(Checks& checks) {
  std::vector<std::vector<std::int32_t>> sizes{{3, 1}, {1, 1}, {1, 1}, {1, 1, 5}, {1, 1, 1}};
  if (!checks.quick()) {  // also more rows than a device may take as one
    sizes.insert(sizes.end(), {{1}, {1, 1, 1, 70}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1}, {1, 1, 1, 1}, {2, 2}});
  }
  checks.exact("run_step", "same bits as the operations one by one, steps of all sizes", [&](Backend& b) {
    Decoder steps(b), operations(b);
    for (const auto& rows : sizes) steps.step(rows, true);
    for (const auto& rows : sizes) operations.step(rows, false);
    return Checks::Pair{steps.results(), operations.results()};
  });
}

}  // namespace pagedcore::selftest
