// Who is served next of those who wait.
#pragma once

#include <algorithm>
#include <vector>

#include "scheduler/waiting.hpp"

namespace pagedcore::sched {

/// Goes through those who wait, in the order of service, while a plan is made. It reads the queues in place: tenants
/// that it has come to are kept in a heap, by the counters that they will have if the plan is carried out.
class ServiceWalk {
 public:
  void begin(const WaitingRoom& room) noexcept {
    unseen_ = room.active().front();
    seen_.clear();
    has_looked_ = false;
  }

  /// Null when there is nobody left.
  const Request* peek() {
    has_looked_ = true;
    // A tenant is not before its place in the list, so the first one seen is next once it is before the rest of those.
    while (unseen_ != nullptr &&
           (seen_.empty() || !is_before(seen_.front(), unseen_->listed, *unseen_->waiting.front()))) {
      seen_.push_back({unseen_->served, unseen_->waiting.front()});
      std::ranges::push_heap(seen_, is_behind);
      unseen_ = unseen_->place.next;
    }
    return seen_.empty() ? nullptr : seen_.front().request;
  }
  /// Goes on from the one that peek() returned, for which its tenant is charged.
  void pass(double charge) noexcept {
    std::ranges::pop_heap(seen_, is_behind);
    Candidate& candidate = seen_.back();
    candidate.served += charge;
    candidate.request = candidate.request->place.next;
    if (candidate.request == nullptr) {
      seen_.pop_back();
    } else {
      std::ranges::push_heap(seen_, is_behind);
    }
  }
  /// Whether anybody was asked for.
  bool has_looked() const noexcept { return has_looked_; }

 private:
  struct Candidate {
    double served = 0.0;               // by its tenant, once the plan is carried out
    const Request* request = nullptr;  // its first that was not passed
  };
  static bool is_before(const Candidate& candidate, double served, const Request& request) noexcept {
    return candidate.served != served ? candidate.served < served : candidate.request->is_before(request);
  }
  static bool is_behind(const Candidate& a, const Candidate& b) noexcept { return is_before(b, a.served, *a.request); }

  const Tenant* unseen_ = nullptr;  // the first that the walk has not come to
  std::vector<Candidate> seen_;     // a heap
  bool has_looked_ = false;
};

}  // namespace pagedcore::sched
