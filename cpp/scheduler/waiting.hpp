// Those who wait: one queue for each tenant, and the tenants in the order in which they are served next.
//
// Between tenants that is the one whose virtual counter of service is lowest (Sheng et al., "Fairness in Serving Large
// Language Models", OSDI 2024, algorithm 2). Orders that know no tenants have one for all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kv/flat_map.hpp"
#include "scheduler/request.hpp"

namespace pagedcore::sched {

struct Tenant {
  std::uint64_t id = 0;
  RequestQueue waiting;
  double served = 0.0;  // weighted tokens: the virtual counter. It never falls
  double listed = 0.0;  // the counter by which it is listed while somebody waits: `served`, or what that was once
  std::uint32_t requests = 0;  // that wait or run
  QueuePlace<Tenant> place;    // among those that have somebody waiting
};

/// By counter, then by the first who waits.
inline bool is_listed_before(const Tenant& a, const Tenant& b) noexcept {
  return a.listed != b.listed ? a.listed < b.listed : a.waiting.front()->is_before(*b.waiting.front());
}
using TenantQueue = OrderedQueue<Tenant, &Tenant::place, is_listed_before>;

/// Nothing here can fail but tenant().
class WaitingRoom {
 public:
  std::uint32_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  /// The tenant of this id; a new one when it is unknown. Throws std::bad_alloc.
  Tenant& tenant(std::uint64_t id) {
    if (Tenant* const* known = by_id_.find(id)) return **known;
    if (tenants_.size() >= most_tenants_) {
      forget_idle();
      most_tenants_ = 2 * tenants_.size() + 64;
    }
    if (tenants_.size() == tenants_.capacity()) tenants_.reserve(2 * tenants_.size() + 4);
    auto added = std::make_unique<Tenant>();
    added->id = id;
    by_id_[id] = added.get();
    return *tenants_.emplace_back(std::move(added));
  }

  void insert(Request& request) noexcept {
    Tenant& tenant = *request.tenant;
    ++size_;
    if (tenant.waiting.empty()) {
      // The counter of a tenant that comes back is lifted to the least of those who wait, or to that of the last one
      // who did: being idle saves nothing up.
      tenant.served = std::max(tenant.served, least_served());
    } else if (request.is_before(*tenant.waiting.front())) {
      active_.erase(tenant);
    } else {
      tenant.waiting.insert(request);
      return;
    }
    tenant.waiting.insert(request);
    list(tenant);
  }

  void erase(Request& request) noexcept {
    Tenant& tenant = *request.tenant;
    --size_;
    if (tenant.waiting.front() != &request) {
      tenant.waiting.erase(request);
      return;
    }
    active_.erase(tenant);
    tenant.waiting.erase(request);
    if (tenant.waiting.empty()) {
      last_gone_ = &tenant;
    } else {
      list(tenant);
    }
  }

  /// Tenants with somebody waiting. One whose counter has grown since it was listed comes later than its place says,
  /// never earlier.
  const TenantQueue& active() const noexcept { return active_; }
  /// Lists again whoever is first though its counter has grown, until the first is in its place.
  void list_grown() noexcept {
    while (!active_.empty() && active_.front()->listed != active_.front()->served) {
      Tenant& tenant = *active_.front();
      active_.erase(tenant);
      list(tenant);
    }
  }

  /// Calls back with everyone who waits, tenant by tenant.
  template <class Call>
  void each(const Call& call) const {
    for (const Tenant* tenant = active_.front(); tenant != nullptr; tenant = active_.next(*tenant)) {
      for (Request* request = tenant->waiting.front(); request != nullptr; request = request->place.next) {
        call(*request);
      }
    }
  }
  const std::vector<std::unique_ptr<Tenant>>& tenants() const noexcept { return tenants_; }

 private:
  void list(Tenant& tenant) noexcept {
    tenant.listed = tenant.served;
    active_.insert(tenant);
  }

  /// Never falls.
  double least_served() noexcept {
    if (active_.empty()) return last_gone_ != nullptr ? last_gone_->served : 0.0;
    list_grown();
    return active_.front()->served;
  }

  /// Drops idle tenants whose counters would be lifted anyway.
  void forget_idle() noexcept {
    const double least = least_served();
    std::erase_if(tenants_, [&](const std::unique_ptr<Tenant>& tenant) {
      if (tenant->requests > 0 || tenant.get() == last_gone_ || tenant->served > least) return false;
      by_id_.erase(tenant->id);
      return true;
    });
  }

  std::vector<std::unique_ptr<Tenant>> tenants_;
  kv::FlatMap<Tenant*> by_id_;
  TenantQueue active_;
  Tenant* last_gone_ = nullptr;  // the last one that had somebody waiting
  std::size_t most_tenants_ = 64;
  std::uint32_t size_ = 0;
};

}  // namespace pagedcore::sched
