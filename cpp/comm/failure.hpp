// Why a group ended: the same words at every rank.
#pragma once

#include <string>
#include <string_view>

namespace pagedcore::comm {

struct Failure {
  enum class Kind : unsigned char { none, lost, aborted, corrupt };
  Kind kind = Kind::none;
  int rank = 0;      // the one that is lost, that aborted, or that noticed
  std::string what;  // the message of the exception
};

/// Throws what the failure is: LostPeer, Aborted or Corrupt.
[[noreturn]] void throw_failure(const Failure& failure);

// The messages, one place for every transport.
Failure aborted_by(int rank, std::string_view why);
Failure lost_in_call(int rank, int waited, const char* call, long long milliseconds);  // waited: for it, in vain
Failure left_the_group(int rank);
Failure other_call(int rank, const char* its, int noticed, const char* call);
Failure other_size(int from, int to, unsigned long long sent, unsigned long long expected, const char* call);

}  // namespace pagedcore::comm
