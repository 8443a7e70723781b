// Whole blocks to and from host memory.
#include <cstring>

#include "backend/checks.hpp"
#include "cpu/kv/kv.hpp"
#include "cpu/kv/storage.hpp"

namespace pagedcore::cpu {
namespace {

/// Pieces that two threads can share even when only one block moves, and that a core copies without a page in between.
constexpr std::size_t kPiece = std::size_t{1} << 18;

template <class Copy>
void for_each_piece(ThreadPool& pool, std::size_t count, std::size_t bytes, const Copy& copy) {
  const std::size_t pieces = (bytes + kPiece - 1) / kPiece;
  pool.for_each(static_cast<std::int64_t>(count * pieces), [&](std::int64_t i, int) {
    const std::size_t at = static_cast<std::size_t>(i) % pieces * kPiece;
    copy(static_cast<std::size_t>(i) / pieces, at, std::min(kPiece, bytes - at));
  });
}

}  // namespace

void swap_out(ThreadPool& pool, const KvStorage& storage, std::span<const BlockId> blocks,
              std::span<std::byte* const> dst) {
  const auto& kv = static_cast<const PagedStorage&>(storage);
  check_swap(blocks, dst.size(), kv.num_blocks());
  for_each_piece(pool, blocks.size(), kv.block_bytes(), [&](std::size_t i, std::size_t at, std::size_t bytes) {
    std::memcpy(dst[i] + at, kv.part(raw(blocks[i]), 0, 0) + at, bytes);
  });
}

void swap_in(ThreadPool& pool, KvStorage& storage, std::span<const BlockId> blocks,
             std::span<const std::byte* const> src) {
  const auto& kv = static_cast<const PagedStorage&>(storage);
  check_swap(blocks, src.size(), kv.num_blocks());
  for_each_piece(pool, blocks.size(), kv.block_bytes(), [&](std::size_t i, std::size_t at, std::size_t bytes) {
    std::memcpy(kv.part(raw(blocks[i]), 0, 0) + at, src[i] + at, bytes);
  });
}

}  // namespace pagedcore::cpu
