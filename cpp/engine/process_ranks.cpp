#include "engine/process_ranks.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <system_error>
#include <utility>

#include "base/exception_memory.hpp"
#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

std::uint64_t new_name() {
  std::random_device random;
  return (std::uint64_t{random()} << 32 | random()) | 1;
}

}  // namespace

ProcessRanks::ProcessRanks(const EngineConfig& config, std::uint32_t num_blocks, const std::string& model,
                           std::string arithmetic)
    : member_(ranks::member_of(config, model)),
      arithmetic_(std::move(arithmetic)),
      losses_(static_cast<std::size_t>(config.tensor_parallel)),
      receive_(losses_.size()),
      nothing_(losses_.size()),
      counters_(losses_.size()) {
  member_.rank = 0;
  member_.ranks = config.tensor_parallel;
  member_.stop = &stop_;
  member_.decides = ranks::shared_options(config);
  EngineConfig settled = config;
  settled.kv.num_blocks = num_blocks;
  settled.kv.kv_cache_memory = 0;
  setup_.options = ranks::shared_options(settled);
  setup_.cache = new_name();
  meet();
  const SignalsBlocked guard;
  try {
    listener_ = std::thread([this] {
      take_exception_memory();
      try {
        const auto how_far = [this] {
          ranks::Readiness own;
          if (has_loaded_.load()) own.state = ranks::Readiness::State::ready;
          return own;
        };
        ranks::agree(*group_, how_far, said_);
      } catch (...) {
        failure_ = std::current_exception();
      }
    });
  } catch (const std::system_error& e) {
    throw OutOfMemory(str("the thread that hears other ranks could not be started: ", e.what()));
  }
}

ProcessRanks::~ProcessRanks() {
  if (listener_.joinable()) {
    group_->abort("rank 0 could not load the model");
    listener_.join();
  }
  if (group_ == nullptr || group_->failed()) return;
  try {
    mouth_.say(*group_, ranks::Word::end, {});
  } catch (...) {  // who is gone needs no word
  }
}

void ProcessRanks::loaded(Model& model) {
  has_loaded_.store(true);
  model_ = &model;
  listener_.join();
  try {
    if (failure_) std::rethrow_exception(failure_);
  } catch (const comm::LostPeer& e) {
    note_loss(e.rank());
    group_.reset();
    return meet_again();
  }
  check();
  model_->speak_through(*group_);
}

/// A new group, whose ranks know what to load.
void ProcessRanks::meet() {
  group_ = ranks::join(member_);
  mouth_.say(*group_, ranks::Word::setup, ranks::to_bytes(setup_));
  writer_.start_anew();
}

void ProcessRanks::check() const {
  for (std::size_t rank = 1; rank < said_.size(); ++rank) {
    if (said_[rank].state == ranks::Readiness::State::failed) ranks::throw_error(said_[rank], static_cast<int>(rank));
    if (said_[rank].text == arithmetic_) continue;
    throw Unsupported(str("rank ", rank, " computes with '", said_[rank].text, "' and rank 0 with '", arithmetic_,
                          "', whose bits may differ; give both an `isa` that every host has"));
  }
}

/// Whoever was lost is started anew by others; this waits for it, for as long as ranks have patience.
void ProcessRanks::meet_again() {
  const auto end = std::chrono::steady_clock::now() + member_.patience;
  const auto ready = [this] {
    if (stop_.load()) throw Aborted("the engine is closed");
    ranks::Readiness own;
    own.state = ranks::Readiness::State::ready;
    return own;
  };
  while (true) {
    said_.clear();
    try {
      meet();
      ranks::agree(*group_, ready, said_);
      break;
    } catch (const comm::LostPeer& e) {
      group_.reset();
      if (std::chrono::steady_clock::now() >= end)
        throw Aborted(str("a rank was lost and did not come back: ", e.what()));
      note_loss(e.rank());
    } catch (...) {
      drop_group("rank 0 waits no longer");
      throw;
    }
  }
  try {
    check();
  } catch (const std::exception& e) {  // nobody can go on with what it has become
    drop_group("a rank cannot take its place");
    throw Aborted(str("a rank was lost, and the one that came for it cannot take its place: ", e.what()));
  }
  model_->speak_through(*group_);
  if (!cache_counts_) return;
  for (std::size_t rank = 1; rank < said_.size(); ++rank)
    if (said_[rank].cache != setup_.cache) lose_cache(str("rank ", rank, " was started anew"));
}

void ProcessRanks::drop_group(const char* why) noexcept {
  if (group_ != nullptr) group_->abort(why);
  group_.reset();
}

void ProcessRanks::note_loss(int rank) noexcept {
  const auto at = static_cast<std::size_t>(rank);
  if (rank < 1 || at >= losses_.size()) return;
  const std::lock_guard lock(losses_mutex_);
  ++losses_[at].count;
  if (at < said_.size()) losses_[at].process = said_[at].process;
}

std::vector<RankLosses> ProcessRanks::losses() const {
  const std::lock_guard lock(losses_mutex_);
  return losses_;
}

void ProcessRanks::lose_cache(const std::string& why) {
  cache_counts_ = false;
  throw CacheLost(why);
}

void ProcessRanks::start(const RankStep& step) {
  if (group_ == nullptr) meet_again();
  const std::span<const std::byte> message = writer_.write(step);
  const std::size_t size = ranks::report_size(step);
  reports_.resize(size * losses_.size());
  for (std::size_t rank = 1; rank < losses_.size(); ++rank)
    receive_[rank] = std::span(reports_).subspan(rank * size, size);
  try {
    mouth_.say(*group_, ranks::Word::step, message);
  } catch (...) {
    const std::exception_ptr own = std::current_exception(), theirs = give_up("rank 0 could not tell of its step");
    std::rethrow_exception(theirs != nullptr ? theirs : own);
  }
  cache_counts_ = true;
}

void ProcessRanks::finish(std::span<std::uint8_t> lost) {
  group_->all_to_all(nothing_, receive_);
  for (std::size_t rank = 1; rank < losses_.size(); ++rank) ranks::read_report(receive_[rank], lost, counters_[rank]);
}

std::exception_ptr ProcessRanks::give_up(const char* why) noexcept {
  if (group_ == nullptr) return nullptr;
  group_->abort(why);
  std::exception_ptr cause;
  try {
    group_->barrier();  // throws why the group ended
  } catch (const comm::LostPeer& e) {
    note_loss(e.rank());
    cache_counts_ = false;
    try {
      throw CacheLost(e.what());
    } catch (...) {
      cause = std::current_exception();
    }
  } catch (const Aborted& e) {
    const std::string_view what = e.what();
    if (what.find(ranks::kLacksMemory) != std::string_view::npos) {
      cause = std::make_exception_ptr(OutOfMemory(e.what()));
    } else if (what.find(why) == std::string_view::npos) {
      cause = std::current_exception();
    }
  } catch (...) {
    cause = std::current_exception();
  }
  group_.reset();
  return cause;
}

void ProcessRanks::add_to(SwapCounters& counters) const {
  for (const SwapCounters& theirs : counters_) {
    counters.bytes_out += theirs.bytes_out;
    counters.bytes_in += theirs.bytes_in;
    counters.file_bytes_out += theirs.file_bytes_out;
    counters.file_bytes_in += theirs.file_bytes_in;
    counters.errors += theirs.errors;
  }
}

void ProcessRanks::host_parallel(Backend& backend, std::int64_t count, const std::function<void(std::int64_t)>& body) {
  backend.host_parallel(count, body);
}

/// So that a rank that is lost while there is nothing to do comes back at once, and not with the next request.
void ProcessRanks::tend() {
  if (group_ == nullptr) meet_again();
  if (!group_->failed()) return;
  if (const std::exception_ptr cause = give_up("rank 0 has nothing to do")) std::rethrow_exception(cause);
}

}  // namespace pagedcore
