// Ranks that are threads of this process, each with a backend of its own, whose threads are its part of the engine's.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/rank_group.hpp"

namespace pagedcore {

/// What a rank is made of. Refers to all of it.
struct RankParts {
  Backend& backend;
  Model& model;
  KvStorage& kv;
  SwapStore* swap;
};

class ThreadRanks final : public RankGroup {
 public:
  /// `parts[0]` are rank 0's, of which the model is told whom to speak to. Starts a thread for each of the others, with
  /// all signals blocked. Throws OutOfMemory when one cannot be started.
  explicit ThreadRanks(const std::vector<RankParts>& parts);
  ~ThreadRanks() override;
  ThreadRanks(const ThreadRanks&) = delete;
  ThreadRanks& operator=(const ThreadRanks&) = delete;

  void start(const RankStep& step) override;
  void finish(std::span<std::uint8_t> lost) override;
  std::exception_ptr give_up(const char* why) noexcept override;
  void add_to(SwapCounters& counters) const override;
  void host_parallel(Backend& backend, std::int64_t count, const std::function<void(std::int64_t)>& body) override;

 private:
  struct Rank;
  struct HostWork;

  void connect();
  void serve(Rank& rank) noexcept;
  void run_step(Rank& rank) noexcept;
  void wait_idle(std::unique_lock<std::mutex>& lock);
  void stop() noexcept;

  std::vector<std::unique_ptr<comm::Communicator>> group_;  // by rank
  std::vector<std::unique_ptr<Rank>> ranks_;                // those above 0
  Model& first_model_;

  mutable std::mutex mutex_;
  std::condition_variable work_, idle_;
  std::uint64_t step_number_ = 0;  // counts start()
  const RankStep* step_ = nullptr;
  HostWork* host_work_ = nullptr;
  std::size_t running_ = 0;  // ranks that have not run the step
  std::size_t helping_ = 0;  // ranks inside host_work_
  bool stopping_ = false;
  bool broken_ = false;         // the group's communicator is of no use any more
  bool failed_ = false;         // some rank has given up the step
  std::exception_ptr failure_;  // what it threw; none: it was rank 0
};

}  // namespace pagedcore
