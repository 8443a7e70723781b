// Those who wait: one queue for each tenant, and which of them comes in next.
//
// Between tenants that is the one whose virtual counter of service is lowest (Sheng et al., "Fairness in Serving Large
// Language Models", OSDI 2024, algorithm 2). Orders that know no tenants have one for all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kv/flat_map.hpp"
#include "scheduler/request.hpp"

namespace pagedcore::sched {

struct Tenant {
  std::uint64_t id = 0;
  RequestQueue waiting;
  double served = 0.0;         // weighted tokens: the virtual counter
  std::uint32_t requests = 0;  // that wait or run
  std::size_t place = 0;       // among the tenants that have somebody waiting
  // Of the plan in the making:
  Request* next = nullptr;  // the first that it has not looked at
  double drafted = 0.0;     // `served` once it is applied
};

/// Nothing here can fail but tenant().
class WaitingRoom {
 public:
  std::uint32_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  /// The tenant of this id; a new one when it is unknown. Throws std::bad_alloc.
  Tenant& tenant(std::uint64_t id) {
    if (Tenant* const* known = by_id_.find(id)) return **known;
    if (tenants_.size() >= most_tenants_) {
      forget();
      most_tenants_ = 2 * tenants_.size() + 64;
    }
    if (tenants_.size() == active_.capacity()) active_.reserve(2 * tenants_.size() + 4);
    if (tenants_.size() == tenants_.capacity()) tenants_.reserve(2 * tenants_.size() + 4);
    auto added = std::make_unique<Tenant>();
    added->id = id;
    by_id_[id] = added.get();
    return *tenants_.emplace_back(std::move(added));
  }

  void insert(Request& request) noexcept {
    arrive(*request.tenant);
    request.tenant->waiting.insert(request);
  }
  /// As insert(), for one that is likely earlier than most.
  void put_back(Request& request) noexcept {
    arrive(*request.tenant);
    request.tenant->waiting.insert_from_front(request);
  }
  void erase(Request& request) noexcept {
    Tenant& tenant = *request.tenant;
    tenant.waiting.erase(request);
    --size_;
    if (!tenant.waiting.empty()) return;
    active_.back()->place = tenant.place;
    std::swap(active_[tenant.place], active_.back());
    active_.pop_back();
    last_gone_ = &tenant;
  }

  /// A plan looks at those who wait, in order of service: begin() once, then peek() and pass() by turns.
  void begin() noexcept {
    for (Tenant* tenant : active_) {
      tenant->next = tenant->waiting.front();
      tenant->drafted = tenant->served;
    }
  }
  /// Null when there is nobody left. O(tenants that have somebody waiting).
  Request* peek() const noexcept {
    const Tenant* least = nullptr;
    for (const Tenant* tenant : active_) {
      if (tenant->next == nullptr) continue;
      if (least == nullptr || tenant->drafted < least->drafted ||
          (tenant->drafted == least->drafted && tenant->next->is_before(*least->next))) {
        least = tenant;
      }
    }
    return least != nullptr ? least->next : nullptr;
  }
  void pass(Request& request) noexcept { request.tenant->next = request.next; }

  /// Calls back with everyone who waits, tenant by tenant.
  template <class Call>
  void each(const Call& call) const {
    for (const Tenant* tenant : active_) {
      for (Request* request = tenant->waiting.front(); request != nullptr; request = request->next) call(*request);
    }
  }
  const std::vector<std::unique_ptr<Tenant>>& tenants() const noexcept { return tenants_; }

 private:
  /// The counter of a tenant that comes back is lifted to the least of those who wait, or to that of the last one who
  /// did: being idle saves nothing up.
  void arrive(Tenant& tenant) noexcept {
    ++size_;
    if (!tenant.waiting.empty()) return;
    tenant.served = std::max(tenant.served, least_served());
    tenant.place = active_.size();
    active_.push_back(&tenant);  // there is room for all
  }

  /// Never falls.
  double least_served() const noexcept {
    if (active_.empty()) return last_gone_ != nullptr ? last_gone_->served : 0.0;
    double least = active_.front()->served;
    for (const Tenant* tenant : active_) least = std::min(least, tenant->served);
    return least;
  }

  /// Drops idle tenants whose counters would be lifted anyway.
  void forget() noexcept {
    const double least = least_served();
    std::erase_if(tenants_, [&](const std::unique_ptr<Tenant>& tenant) {
      if (tenant->requests > 0 || tenant.get() == last_gone_ || tenant->served > least) return false;
      by_id_.erase(tenant->id);
      return true;
    });
  }

  std::vector<std::unique_ptr<Tenant>> tenants_;
  kv::FlatMap<Tenant*> by_id_;
  std::vector<Tenant*> active_;  // those with somebody waiting
  Tenant* last_gone_ = nullptr;  // the last one that had
  std::size_t most_tenants_ = 64;
  std::uint32_t size_ = 0;
};

}  // namespace pagedcore::sched
