#include "cpu/matmul/low_rank.hpp"

#include <algorithm>
#include <cstring>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/matmul/product.hpp"
#include "pagedcore/error.hpp"
#include "tensor/float16.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kRowsAtOnce = 32;  // of an adapter, that one worker takes: few enough to share out one adapter's

std::size_t to_64(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Blocks of `lanes` columns, of a gated pair those of each half by themselves, and the ranks that any column needs.
std::vector<LowRankBlock> blocks_of(const LowRankForm& form, int lanes, DType dtype, std::size_t& bytes) {
  const int halves = form.kind == PackKind::gated ? 2 : 1;
  std::vector<LowRankBlock> blocks;
  bytes = 0;
  for (int half = 0; half < halves; ++half)
    for (std::int64_t column = 0; column < form.n; column += lanes) {
      const std::int64_t begin = half * form.n + column, end = half * form.n + std::min(column + lanes, form.n);
      LowRankBlock block;
      block.offset = static_cast<std::int64_t>(bytes);
      std::int64_t rank = 0, last = 0;
      for (const LowRankPart& part : form.parts) {
        if (part.first_column < end && begin < part.first_column + part.columns) {
          if (last == 0) block.first_rank = static_cast<std::int32_t>(rank);
          last = rank + part.rank;
        }
        rank += part.rank;
      }
      block.ranks = last == 0 ? 0 : static_cast<std::int32_t>(last) - block.first_rank;
      const std::int64_t stored = dtype == DType::bf16 ? (block.ranks + 1) / 2 : block.ranks;
      bytes += static_cast<std::size_t>(stored * lanes * 4);
      blocks.push_back(block);
    }
  return blocks;
}

class PackedLowRank final : public LowRankWeight {
 public:
  PackedLowRank(ThreadPool& pool, const LowRankForm& form, Isa isa, DType dtype)
      : columns_(form.columns()), bf16_(dtype == DType::bf16) {
    std::vector<HostTensor> downs;
    for (const LowRankPart& part : form.parts) downs.push_back(part.down);
    down_ = pack_weight(pool, downs, {}, isa, dtype);
    const int lanes = kernel_of(isa, dtype).lanes;
    blocks_ = blocks_of(form, lanes, dtype, up_bytes_);
    up_ = large_memory(to_64(up_bytes_));
    if (up_ == nullptr) throw OutOfMemory(str("no memory for ", up_bytes_, " bytes of an adapter; free memory"));
    std::memset(up_.get(), 0, to_64(up_bytes_));
    std::int64_t first_rank = 0;
    for (const LowRankPart& part : form.parts) {
      put(form, part, first_rank, lanes);
      first_rank += part.rank;
    }
  }

  std::int64_t k() const noexcept override { return down_->k(); }
  std::int64_t columns() const noexcept override { return columns_; }
  std::int64_t ranks() const noexcept override { return down_->n(); }
  std::size_t bytes() const noexcept override {
    return down_->bytes() + to_64(up_bytes_) + blocks_.size() * sizeof(LowRankBlock);
  }
  const PackedWeight& down() const noexcept { return static_cast<const PackedWeight&>(*down_); }
  LowRankRow row(const float* down) const noexcept {
    return {down, blocks_.data(), reinterpret_cast<const unsigned char*>(up_.get()), bf16_};
  }

 private:
  void put(const LowRankForm& form, const LowRankPart& part, std::int64_t first_rank, int lanes) {
    const std::int64_t per_half = (form.n + lanes - 1) / lanes;
    std::vector<float> row(static_cast<std::size_t>(part.rank));
    for (std::int64_t i = 0; i < part.columns; ++i) {
      to_f32(part.up, i * part.rank, row);
      const std::int64_t half = (part.first_column + i) / form.n, column = (part.first_column + i) % form.n;
      const LowRankBlock& block = blocks_[static_cast<std::size_t>(half * per_half + column / lanes)];
      std::byte* const at = up_.get() + block.offset;
      for (std::int64_t r = 0; r < part.rank; ++r) {
        const float value = part.scale * row[static_cast<std::size_t>(r)];
        const std::int64_t rank = first_rank + r - block.first_rank, lane = column % lanes;
        if (bf16_) {
          const std::uint16_t bits = f32_to_bf16(value);
          std::memcpy(at + ((rank / 2 * lanes + lane) * 2 + rank % 2) * 2, &bits, sizeof bits);
        } else {
          std::memcpy(at + (rank * lanes + lane) * 4, &value, sizeof value);
        }
      }
    }
  }

  std::int64_t columns_;
  bool bf16_;
  std::unique_ptr<Weight> down_;
  std::vector<LowRankBlock> blocks_;
  std::size_t up_bytes_ = 0;
  LargeMemory up_;
};

const PackedLowRank& packed(const LowRankWeight& weight) { return static_cast<const PackedLowRank&>(weight); }

/// Rows of one adapter that a worker takes.
struct Piece {
  const PackedWeight* weight;
  std::int64_t first, count;  // of LowRankRows::rows
};

}  // namespace

std::unique_ptr<LowRankWeight> pack_low_rank(ThreadPool& pool, const LowRankForm& form, Isa isa, DType dtype) {
  check_low_rank(form);
  return std::make_unique<PackedLowRank>(pool, form, isa, dtype);
}

std::size_t low_rank_bytes(const LowRankForm& form, Isa isa, DType dtype) {
  if (form.ranks() == 0) return 0;
  std::size_t up = 0;
  const std::size_t blocks = blocks_of(form, kernel_of(isa, dtype).lanes, dtype, up).size();
  return packed_weight_bytes(form.ranks(), form.k, {}, isa, dtype) + to_64(up) + blocks * sizeof(LowRankBlock);
}

void low_rank(ThreadPool& pool, Scratch& scratch, const Tensor& sums, const Tensor& in, const LowRankRows& of) {
  check_low_rank_rows(sums, in, of);
  std::vector<Piece> pieces;
  std::int64_t scratch_bytes = 0, first = 0;
  const std::size_t row_bytes = bytes_of(in.dtype, in.cols), gathered = to_64(row_bytes * kRowsAtOnce);
  const auto args_of = [&](const Piece& piece, const Tensor& rows) {
    MatmulArgs args = product_args(rows, *piece.weight);
    const Tensor out = sums.slice_rows(piece.first, piece.count);
    args.out = out.data;
    args.out_stride = out.stride;
    return args;
  };
  for (std::size_t g = 0; g < of.ends.size(); first = of.ends[g++]) {
    if (of.weights[g] == nullptr) continue;
    for (std::int64_t at = first; at < of.ends[g]; at += kRowsAtOnce) {
      pieces.push_back({&packed(*of.weights[g]).down(), at, std::min(kRowsAtOnce, of.ends[g] - at)});
      const Piece& piece = pieces.back();
      if (piece.weight->dtype() != in.dtype)
        throw InvalidArgument(
            str("low_rank: the input is ", shape_text(in), ", the adapter in ", info(piece.weight->dtype()).name));
      const BlockRunner runner(*piece.weight, args_of(piece, in.head(piece.count)));
      scratch_bytes = std::max(scratch_bytes, runner.scratch_bytes());
    }
  }
  if (pieces.empty()) return;
  const std::size_t bytes = gathered + static_cast<std::size_t>(scratch_bytes);
  if (!scratch.reserve(pool.threads(), bytes))
    throw OutOfMemory(str("no memory for ", bytes, " bytes of scratch of adapters for each of ", pool.threads(),
                          " threads; free memory"));
  pool.for_each(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t i, int worker) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    std::byte* const own = scratch.of(worker);
    const std::int32_t* const rows = of.rows.data() + piece.first;
    Tensor taken = in.slice_rows(rows[0], piece.count);
    if (rows[piece.count - 1] - rows[0] + 1 != piece.count) {  // rows ascend
      taken = {own, in.dtype, piece.count, in.cols, in.cols};
      for (std::int64_t r = 0; r < piece.count; ++r)
        std::memcpy(own + static_cast<std::size_t>(r) * row_bytes, in.slice_rows(rows[r], 1).data, row_bytes);
    }
    const BlockRunner runner(*piece.weight, args_of(piece, taken));
    const std::int64_t panels = piece.weight->layout().panels;
    runner({0, piece.count, 0, panels}, panels, scratch_bytes == 0 ? nullptr : own + gathered);
  });
}

std::vector<LowRankRow> low_rank_rows(const LowRankSums& sums, std::int64_t rows, std::int64_t columns) {
  std::vector<LowRankRow> list(static_cast<std::size_t>(rows));
  std::size_t first = 0;
  for (std::size_t g = 0; g < sums.of.ends.size(); ++g) {
    const auto end = static_cast<std::size_t>(sums.of.ends[g]);
    const LowRankWeight* const weight = sums.of.weights[g];
    if (weight != nullptr && weight->columns() != columns)
      throw InvalidArgument(
          str("matmul: an adapter adds to ", weight->columns(), " columns, of which the weight has ", columns));
    for (std::size_t i = first; i < end && weight != nullptr; ++i) {
      const std::int32_t row = sums.of.rows[i];
      if (row < 0 || row >= rows) throw InvalidArgument(str("matmul: an adapter's row ", row, " of a batch of ", rows));
      list[static_cast<std::size_t>(row)] =
          packed(*weight).row(static_cast<const float*>(sums.down.slice_rows(static_cast<std::int64_t>(i), 1).data));
    }
    first = end;
  }
  return list;
}

}  // namespace pagedcore::cpu
