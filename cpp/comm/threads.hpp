// A group whose ranks are threads of this process: bytes go from the sender's memory to the receiver's in one copy.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.hpp"

namespace pagedcore::comm {

/// The ends of a group of `ranks` threads, by rank. Each may be destroyed at any time, by its own thread or when that
/// is in no call: a rank that is gone is lost to those who need it. Throws InvalidArgument unless 1 <= ranks <=
/// kMostRanks and the deadline is positive.
std::vector<std::unique_ptr<Communicator>> make_thread_group(int ranks, Limits limits = {});

}  // namespace pagedcore::comm
