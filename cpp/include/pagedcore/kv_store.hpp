// Prefixes beyond the memory of one engine: kept in a directory, or handed to another engine. Options and counters;
// what they mean is in docs/kv-store.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "pagedcore/fields.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// Where prefixes are kept beyond the memory of the cache, and beyond the engine.
struct KvStoreOptions {
  std::string kv_store;
  std::size_t kv_store_size = std::size_t{10} << 30;
  bool kv_transfer = false;

  template <class V>
  static void fields(V&& v) {
    using C = KvStoreOptions;
    v(field("kv_store", &C::kv_store,
            "A directory that keeps the KV of finished requests: prompts that begin alike find it there, also after a "
            "restart. Made where there is none; engines of any models may share one.")
          .path()
          .zero_means("no store"));
    v(field("kv_store_size", &C::kv_store_size,
            "The most that all engines' files in that directory take; the least recently used go.", in(1, kMostBytes))
          .bytes());
    v(field(
        "kv_transfer", &C::kv_transfer,
        "Prefixes can be exported to other engines and imported from them; a kv_store allows it too. The weights are "
        "hashed when they are loaded."));
  }
};

/// What went between the prefix cache and a store, so far, and what is in the store.
struct KvStoreCounters {
  std::uint64_t tokens = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t errors = 0;
  std::uint64_t dropped = 0;
  std::uint64_t evicted = 0;
  std::uint64_t blocks = 0;
  std::uint64_t bytes = 0;

  template <class V>
  static void fields(V&& v) {
    using C = KvStoreCounters;
    v(field("tokens", &C::tokens, "Tokens whose KV was read from kv_store instead of computed.")
          .counter("kv_store_hit_tokens"));
    v(field("bytes_read", &C::bytes_read, "Bytes of blocks read from there.").counter("kv_store_bytes_read"));
    v(field("bytes_written", &C::bytes_written, "Bytes of blocks written there.").counter("kv_store_bytes_written"));
    v(field("errors", &C::errors,
            "Blocks that kv_store could not write, read or trust: a full or failing disk, a directory that may be read "
            "only, damage. They are computed.")
          .counter("kv_store_errors"));
    v(field("dropped", &C::dropped,
            "Prefixes not written in full: their blocks were evicted first, or too many waited to be written.")
          .counter("kv_store_dropped"));
    v(field("evicted", &C::evicted, "Blocks of this model that went to stay below kv_store_size, or were removed.")
          .counter("kv_store_evicted"));
    v(field("blocks", &C::blocks, "Blocks of this model in kv_store.").gauge("kv_store_blocks"));
    v(field("bytes", &C::bytes, "Bytes of its files, of all models.").gauge("kv_store_bytes"));
  }
};

}  // namespace pagedcore
