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
  Record<KvCacheConfig>(m, "KvCacheConfig", "Sizes of a block pool.");
  m.def("validate", nb::overload_cast<const KvCacheConfig&>(&validate), "config"_a,
        "Raises InvalidArgument for a value outside its range.");
  Record<KvCacheCounts>(m, "KvCacheCounts", "Where every block is: free + cached + in_flight + used == total.");
  Record<BlockSwap>(m, "BlockSwap", "Move a block out to a slot of the swap space, or in from there.");
  Record<CacheEvent>(m, "CacheEvent", "News of the prefix cache.");
  Record<BlockCopy>(m, "BlockCopy", "Copy the first num_tokens slots of every layer from block src to block dst.");
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
      .def(
          "create",
          [](KvScratch& self, const PrefixMatch& match, std::uint32_t length, std::uint64_t spare) {
            return self.create(match, length, spare);
          },
          "match"_a, "length"_a, "spare"_a = 0, "False when fewer than `spare` blocks would be left.")
      .def("fork", &KvScratch::fork, "parent"_a, "num_tokens"_a, "length"_a, "spare"_a = 0)
      .def("free", &KvScratch::free, "seq"_a, "last_reader"_a = 0)
      .def(
          "swap_out",
          [](KvScratch& self, const std::vector<SequenceId>& group, StepId reader) {
            return self.swap_out(group, reader);
          },
          "group"_a, "last_reader"_a = 0)
      .def(
          "swap_in",
          [](KvScratch& self, const std::vector<SequenceId>& group, std::uint64_t spare) {
            return self.swap_in(group, spare);
          },
          "group"_a, "spare"_a = 0);
}

/// What a cache can be asked; `get(self)` is the cache.
template <class T, class Get>
void def_questions(nb::class_<T>& bound, Get get) {
  bound.def_prop_ro("config", [get](const T& self) -> KvCacheConfig { return get(self).config(); })
      .def_prop_ro("counts", [get](const T& self) { return get(self).counts(); })
      .def_prop_ro(
          "available", [get](const T& self) { return get(self).available(); },
          "Blocks that append() could take now: free + cached.")
      .def(
          "blocks_for", [get](const T& self, std::uint64_t tokens) { return get(self).blocks_for(tokens); }, "tokens"_a)
      .def(
          "match_prefix",
          [get](const T& self, const std::vector<TokenId>& tokens, std::uint64_t salt, std::uint32_t max_tokens,
                bool whole_blocks) { return get(self).match_prefix(tokens, salt, max_tokens, whole_blocks); },
          "tokens"_a, "salt"_a = 0, "max_tokens"_a = 0xffffffffu, "whole_blocks"_a = false,
          "The longest cached prefix; it may end inside a block.")
      .def(
          "is_swapped", [get](const T& self, SequenceId seq) { return get(self).is_swapped(seq); }, "seq"_a)
      .def_prop_ro(
          "num_layer_groups", [get](const T& self) { return get(self).num_layer_groups(); }, "Layer groups.")
      .def(
          "footprint", [get](const T& self, std::uint64_t tokens) { return get(self).footprint(tokens); }, "tokens"_a,
          "Blocks that a sequence of so many tokens holds between steps, in all groups of layers together.")
      .def(
          "__contains__", [get](const T& self, SequenceId seq) { return get(self).contains(seq); }, "seq"_a)
      .def(
          "length", [get](const T& self, SequenceId seq) { return get(self).length(seq); }, "seq"_a)
      .def(
          "block_table", [get](const T& self, SequenceId seq) { return copy_of(get(self).block_table(seq)); }, "seq"_a)
      .def(
          "references", [get](const T& self, BlockId block) { return get(self).references(block); }, "block"_a,
          "Number of tables that reference a block.")
      .def(
          "scratch", [get](const T& self) { return get(self).scratch(); }, nb::keep_alive<0, 1>())
      .def(
          "check", [get](const T& self) { get(self).check(); },
          "Verifies every invariant; raises Corrupt naming the first that is broken.");
}

void bind_manager(nb::module_& m) {
  using Manager = KvCacheManager;
  nb::class_<Manager> bound(m, "KvCacheManager", "Block tables over a pool of blocks. One thread at a time.");
  bound.def(nb::init<const KvCacheConfig&>(), "config"_a)
      .def(
          "create",
          [](Manager& self, SequenceId seq, std::uint64_t salt, const PrefixMatch* match) {
            self.create(seq, salt, match ? *match : PrefixMatch{});
          },
          "seq"_a, "salt"_a = 0, "match"_a = nb::none(), "A new sequence that starts with the matched blocks.")
      .def(
          "append",
          [](Manager& self, SequenceId seq, std::uint32_t length, StepId reader) {
            std::vector<BlockCopy> copies;
            self.append(seq, length, copies, reader);
            return copies;
          },
          "seq"_a, "length"_a, "reader"_a = 0,
          "Makes the slots up to `length` writable; returns the copies to be done first.")
      .def("fork", nb::overload_cast<SequenceId, SequenceId, std::uint32_t>(&Manager::fork), "parent"_a, "child"_a,
           "num_tokens"_a)
      .def("fork", nb::overload_cast<SequenceId, SequenceId, std::uint32_t, std::uint64_t>(&Manager::fork), "parent"_a,
           "child"_a, "num_tokens"_a, "salt"_a)
      .def(
          "publish",
          [](Manager& self, SequenceId seq, const std::vector<TokenId>& tokens, std::uint32_t num_computed, bool tail) {
            self.publish(seq, tokens, num_computed, tail);
          },
          "seq"_a, "tokens"_a, "num_computed"_a, "tail"_a = false,
          "Enters full blocks, and with tail the last one, into the prefix cache.")
      .def("slide", &Manager::slide, "seq"_a, "next"_a, "last_reader"_a = 0,
           "Frees the blocks that no window reaches any more from position `next` on.")
      .def(
          "swap_out",
          [](Manager& self, const std::vector<SequenceId>& group, StepId reader) {
            std::vector<BlockSwap> moves;
            self.swap_out(group, moves, reader);
            return moves;
          },
          "group"_a, "last_reader"_a = 0, "Moves a group of sequences out of memory; returns the moves.")
      .def(
          "swap_in",
          [](Manager& self, const std::vector<SequenceId>& group) {
            std::vector<BlockSwap> moves;
            self.swap_in(group, moves);
            return moves;
          },
          "group"_a)
      .def("take_events", &Manager::take_events, "Events since the last call, oldest first.")
      .def("free", &Manager::free, "seq"_a, "last_reader"_a = 0)
      .def("complete", &Manager::complete, "step"_a)
      .def("clear_prefix_cache", &Manager::clear_prefix_cache);
  def_questions(bound, [](const Manager& self) -> const Manager& { return self; });

  nb::class_<KvCacheView> view(m, "KvCacheView",
                               "The cache of a scheduler, to look at: only the scheduler changes it.");
  def_questions(view, [](const KvCacheView& self) -> const Manager& { return *self.cache; });
}

}  // namespace

void bind_kv_cache(nb::module_& m) {
  bind_records(m);
  bind_scratch(m);
  bind_manager(m);
}

}  // namespace pagedcore::bindings
