#include "cpu/kv/storage.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "base/text.hpp"
#include "cpu/kv/kv.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {

PagedStorage::PagedStorage(const KvShape& shape, std::uint32_t num_blocks, Isa isa, DType compute)
    : shape_(shape), layout_(shape, compute), num_blocks_(num_blocks), isa_(isa) {
  if (num_blocks == 0) throw InvalidArgument("KV storage of 0 blocks: give at least 1");
  const auto arithmetic = [&] {
    return str(num_blocks, " KV blocks x ", layout_.block_bytes, " bytes (", shape.num_layers, " layers x ",
               shape.num_kv_heads, " KV heads x ", layout_.head_bytes, " bytes for ", shape.block_size,
               " tokens of K and V)");
  };
  if (layout_.block_bytes > std::numeric_limits<std::size_t>::max() / 2 / num_blocks)
    throw OutOfMemory(str(arithmetic(), " is more than the address space; ask for fewer blocks"));
  bytes_ = layout_.block_bytes * num_blocks;
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    throw OutOfMemory(
        str(arithmetic(), " = ", bytes_, " bytes: ", std::strerror(errno), "; lower kv_cache_memory or num_blocks"));
  memory_ = static_cast<char*>(p);
#if defined(MADV_HUGEPAGE)
  // A block's tiles of one layer fill few small pages, so that without large ones every block costs page walks.
  (void)madvise(p, bytes_, MADV_HUGEPAGE);
#endif
}

PagedStorage::~PagedStorage() { munmap(memory_, bytes_); }

std::size_t kv_block_bytes(const KvShape& shape, Isa) { return TileLayout(shape, DType::bf16).block_bytes; }

std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, std::uint32_t num_blocks, Isa isa, DType compute) {
  return std::make_unique<PagedStorage>(shape, num_blocks, isa, compute);
}

}  // namespace pagedcore::cpu
