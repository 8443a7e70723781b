// Ranks that are processes, as rank 0 sees them: it tells them each step in one message, and when one of them is lost
// meets them again.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/rank_group.hpp"
#include "engine/rank_talk.hpp"
#include "engine/step_message.hpp"

namespace pagedcore {

class ProcessRanks final : public RankGroup {
 public:
  /// Waits for the others to come, and tells them to load. `config` is as the engine resolved it, but for the
  /// number of blocks that its plan has; `arithmetic` is what rank 0 computes with. Throws as comm::meet().
  ProcessRanks(const EngineConfig& config, std::uint32_t num_blocks, const std::string& model, std::string arithmetic);
  ~ProcessRanks() override;
  ProcessRanks(const ProcessRanks&) = delete;
  ProcessRanks& operator=(const ProcessRanks&) = delete;

  /// Rank 0 has loaded `model`, which must outlive this: waits until the others have. Throws what one of them threw.
  void loaded(Model& model);

  /// Throws CacheLost when what the ranks' KV caches held is lost, and Aborted when a lost rank does not come back.
  void start(const RankStep& step) override;
  void finish(std::span<std::uint8_t> lost) override;
  std::exception_ptr give_up(const char* why) noexcept override;
  void add_to(SwapCounters& counters) const override;
  void host_parallel(Backend& backend, std::int64_t count, const std::function<void(std::int64_t)>& body) override;
  void tend() override;
  double tend_period() const noexcept override { return 0.1; }

  /// Any thread: whoever waits for ranks to come waits no longer, and throws Aborted.
  void stop_waiting() noexcept { stop_.store(true); }
  /// Any thread: how often each rank was lost.
  std::vector<RankLosses> losses() const;

 private:
  void meet();
  void meet_again();
  void set_up();
  void check() const;
  void drop_group(const char* why) noexcept;
  void note_loss(int rank) noexcept;
  [[noreturn]] void lose_cache(const std::string& why);

  comm::Member member_;
  ranks::Setup setup_;
  const std::string arithmetic_;
  std::unique_ptr<comm::Communicator> group_;  // none when it has failed
  Model* model_ = nullptr;
  bool cache_counts_ = false;  // steps were run since it was last empty
  std::atomic<bool> stop_{false};
  mutable std::mutex losses_mutex_;
  std::vector<RankLosses> losses_;  // by rank

  // While rank 0 loads, a thread hears how far the others are.
  std::thread listener_;
  std::atomic<bool> has_loaded_{false};
  std::exception_ptr failure_;

  std::vector<ranks::Readiness> said_;  // in the latest group, by rank

  ranks::Mouth mouth_;
  StepWriter writer_;
  std::vector<std::byte> reports_;  // of a step
  std::vector<std::span<std::byte>> receive_;
  std::vector<std::span<const std::byte>> nothing_;
  std::vector<SwapCounters> counters_;  // by rank
};

}  // namespace pagedcore
