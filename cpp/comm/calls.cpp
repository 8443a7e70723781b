#include "comm/calls.hpp"

#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {
namespace {

void check_count(const Communicator& group, const char* what, std::size_t count) {
  if (count != static_cast<std::size_t>(group.size()))
    throw InvalidArgument(
        str(what, " has ", count, " spans in a group of ", group.size(), " ranks; pass one for each rank"));
}

void check_own(std::size_t sent, std::size_t received) {
  if (sent != received)
    throw InvalidArgument(
        str("a rank sends ", sent, " bytes to itself and has room for ", received, "; both must be the same"));
}

}  // namespace

const char* name_of(Call call) noexcept {
  switch (call) {
    case Call::all_to_all:
      return "all_to_all";
    case Call::all_gather:
      return "all_gather";
    case Call::broadcast:
      return "broadcast";
    case Call::barrier:
      return "barrier";
    case Call::none:
      break;
  }
  return "no call";
}

void check_group(int ranks, const Limits& limits) {
  if (ranks < 1 || ranks > kMostRanks)
    throw InvalidArgument(str("a group of ", ranks, " ranks; ask for 1 to ", kMostRanks));
  if (limits.deadline.count() <= 0)
    throw InvalidArgument(str("a deadline of ", limits.deadline.count(), " ms; it must be positive"));
  if (limits.spin.count() < 0)
    throw InvalidArgument(str("a spin of ", limits.spin.count(), " microseconds; it must not be negative"));
}

void check_all_to_all(const Communicator& group, SendSpans send, ReceiveSpans receive) {
  check_count(group, "send", send.size());
  check_count(group, "receive", receive.size());
  const auto self = static_cast<std::size_t>(group.rank());
  check_own(send[self].size(), receive[self].size());
}

void check_all_gather(const Communicator& group, std::span<const std::byte> send, ReceiveSpans receive) {
  check_count(group, "receive", receive.size());
  check_own(send.size(), receive[static_cast<std::size_t>(group.rank())].size());
}

void check_root(const Communicator& group, int root) {
  if (root < 0 || root >= group.size())
    throw InvalidArgument(
        str("a broadcast from rank ", root, " in a group of ", group.size(), " ranks; name 0 to ", group.size() - 1));
}

void copy_own(std::span<const std::byte> from, std::span<std::byte> to) noexcept {
  if (from.data() != to.data() && !from.empty()) std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace pagedcore::comm
