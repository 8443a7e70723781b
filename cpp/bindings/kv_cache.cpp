#include "pagedcore/kv_cache.hpp"

#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/records.hpp"

namespace pagedcore::bindings {
namespace {

template <class T>
std::vector<T> copy_of(std::span<const T> values) {
  return {values.begin(), values.end()};
}

void bind_records(nb::module_& m) {
  using Config = KvCacheConfig;
  Record<Config>(m, "KvCacheConfig", "Sizes of a block pool.")
      .field("num_blocks", &Config::num_blocks)
      .field("block_size", &Config::block_size, "Tokens per block.")
      .field("enable_prefix_caching", &Config::enable_prefix_caching);
  using Counts = KvCacheCounts;
  Record<Counts>(m, "KvCacheCounts", "Where every block is: free + cached + in_flight + used == total.")
      .field("total", &Counts::total)
      .field("free", &Counts::free, "Holds nothing of use.")
      .field("cached", &Counts::cached, "Referenced by no sequence, kept for prefix hits.")
      .field("in_flight", &Counts::in_flight, "Freed, but a step that may read it has not completed.")
      .field("used", &Counts::used, "Referenced by one or more sequences.")
      .field("shared", &Counts::shared, "Of the used: referenced by more than one.");
  Record<BlockCopy>(m, "BlockCopy", "Copy the first num_tokens slots of every layer from block src to block dst.")
      .field("src", &BlockCopy::src)
      .field("dst", &BlockCopy::dst)
      .field("num_tokens", &BlockCopy::num_tokens);
  nb::class_<PrefixMatch>(m, "PrefixMatch", "A cached prefix. Valid until the manager next changes.")
      .def_prop_ro("blocks", [](const PrefixMatch& self) -> std::vector<BlockId> { return self.blocks; })
      .def_ro("num_tokens", &PrefixMatch::num_tokens)
      .def("__repr__", [](const PrefixMatch& self) {
        return nb::str("PrefixMatch(blocks={}, num_tokens={})").format(self.blocks, self.num_tokens);
      });
}

void bind_scratch(nb::module_& m) {
  nb::class_<KvScratch>(m, "KvScratch", "What would be available after some appends, forks and frees.")
      .def_prop_ro("available", &KvScratch::available)
      .def("append", &KvScratch::append, "seq"_a, "length"_a, "Takes the blocks, or returns False.")
      .def("create", &KvScratch::create, "match"_a, "length"_a)
      .def("fork", &KvScratch::fork, "parent"_a, "num_tokens"_a, "length"_a)
      .def("free", &KvScratch::free, "seq"_a, "last_reader"_a = 0);
}

void bind_manager(nb::module_& m) {
  using Manager = KvCacheManager;
  nb::class_<Manager>(m, "KvCacheManager", "Block tables over a pool of blocks. One thread at a time.")
      .def(nb::init<const KvCacheConfig&>(), "config"_a)
      .def_prop_ro("config", [](const Manager& self) -> KvCacheConfig { return self.config(); })
      .def_prop_ro("counts", &Manager::counts)
      .def_prop_ro("available", &Manager::available, "Blocks that append() could take now: free + cached.")
      .def("blocks_for", &Manager::blocks_for, "tokens"_a)
      .def(
          "match_prefix",
          [](const Manager& self, const std::vector<TokenId>& tokens, std::uint64_t salt, std::uint32_t max_tokens) {
            return self.match_prefix(tokens, salt, max_tokens);
          },
          "tokens"_a, "salt"_a = 0, "max_tokens"_a = 0xffffffffu, "The longest cached prefix in whole blocks.")
      .def(
          "create",
          [](Manager& self, SequenceId seq, std::uint64_t salt, const PrefixMatch* match) {
            self.create(seq, salt, match ? *match : PrefixMatch{});
          },
          "seq"_a, "salt"_a = 0, "match"_a = nb::none(), "A new sequence that starts with the matched blocks.")
      .def(
          "append",
          [](Manager& self, SequenceId seq, std::uint32_t length) {
            std::vector<BlockCopy> copies;
            self.append(seq, length, copies);
            return copies;
          },
          "seq"_a, "length"_a, "Makes the slots up to `length` writable; returns the copies to be done first.")
      .def("fork", &Manager::fork, "parent"_a, "child"_a, "num_tokens"_a)
      .def(
          "publish",
          [](Manager& self, SequenceId seq, const std::vector<TokenId>& tokens, std::uint32_t num_computed) {
            self.publish(seq, tokens, num_computed);
          },
          "seq"_a, "tokens"_a, "num_computed"_a, "Enters full blocks into the prefix cache.")
      .def("free", &Manager::free, "seq"_a, "last_reader"_a = 0)
      .def("complete", &Manager::complete, "step"_a)
      .def("clear_prefix_cache", &Manager::clear_prefix_cache)
      .def("__contains__", &Manager::contains, "seq"_a)
      .def("length", &Manager::length, "seq"_a)
      .def(
          "block_table", [](const Manager& self, SequenceId seq) { return copy_of(self.block_table(seq)); }, "seq"_a)
      .def("references", &Manager::references, "block"_a, "Number of tables that reference a block.")
      .def("scratch", &Manager::scratch, nb::keep_alive<0, 1>())
      .def("check", &Manager::check, "Verifies every invariant; raises Corrupt naming the first that is broken.");
}

}  // namespace

void bind_kv_cache(nb::module_& m) {
  bind_records(m);
  bind_scratch(m);
  bind_manager(m);
}

}  // namespace pagedcore::bindings
