#include "comm/failure.hpp"

#include "base/text.hpp"
#include "comm/communicator.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {

LostPeer::~LostPeer() = default;

void throw_failure(const Failure& failure) {
  switch (failure.kind) {
    case Failure::Kind::lost:
      throw LostPeer(failure.rank, failure.what);
    case Failure::Kind::corrupt:
      throw Corrupt(failure.what);
    case Failure::Kind::aborted:
    case Failure::Kind::none:
      break;
  }
  throw Aborted(failure.what);
}

Failure aborted_by(int rank, std::string_view why) {
  return {Failure::Kind::aborted, rank, str("rank ", rank, " ended the group: ", why)};
}

Failure lost_in_call(int rank, int waited, const char* call, long long milliseconds) {
  return {Failure::Kind::lost, rank,
          str("rank ", rank, " is lost: rank ", waited, " waited for it in ", call, " for ", milliseconds,
              " ms, the deadline; if it only computes for so long, raise the deadline")};
}

Failure left_the_group(int rank) {
  return {Failure::Kind::lost, rank, str("rank ", rank, " is lost: it left the group while others needed it")};
}

Failure other_call(int rank, const char* its, int noticed, const char* call) {
  return {Failure::Kind::corrupt, noticed,
          str("rank ", rank, " is in ", its, " while rank ", noticed, " is in ", call,
              ", or they differed before; all ranks must make the same calls in the same order")};
}

Failure other_size(int from, int to, unsigned long long sent, unsigned long long expected, const char* call) {
  return {Failure::Kind::corrupt, to,
          str("rank ", from, " sent ", sent, " bytes in ", call, " where rank ", to, " has room for ", expected,
              "; both must know the same sizes")};
}

}  // namespace pagedcore::comm
