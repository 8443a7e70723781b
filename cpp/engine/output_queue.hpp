// Outputs on their way to one taker, who may be a thread that waits, an event loop, or nobody for a while.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/request_table.hpp"
#include "engine/wake_up.hpp"

namespace pagedcore {

/// What of a streamed request has not been taken: its last news of each sample, in the queue's list. Empty where no
/// news can be joined.
using Unread = std::vector<EngineOutput*>;

/// Members without a comment are guarded by the mailbox's mutex.
class OutputQueue {
 public:
  /// Moves one output here from `from`. What it adds to unread news of its sample is joined to that, where there is
  /// memory; so what waits is bounded by the samples, not by the steps. A request's last output stays its last.
  void put(News& from, News::iterator output, Unread& unread) noexcept;
  /// As Mailbox::wait(), of what is there.
  std::vector<EngineOutput> take(News& emptied);
  /// Makes its descriptor readable.
  void raise() noexcept;
  /// Calls back, without the mailbox's mutex.
  void call_back() noexcept;

  News outputs;
  std::condition_variable ready;
  std::unique_ptr<WakeUp> wake_up;         // once somebody has asked for it
  std::atomic<bool> closed{false};         // nobody will take anything; read by the engine thread without the mutex
  std::shared_ptr<OutputQueue> next_news;  // touched by the engine thread alone: those with news from one step
  bool has_news = false;                   // likewise: it is in that chain

  std::mutex calling;  // held while called back, so that replacing the callback waits for its end
  std::function<void()> callback;
};

}  // namespace pagedcore
