// What rank 0 and ranks that are processes say to one another beside the steps themselves: how they meet, what the
// model and the options are, and who is ready.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/meet.hpp"
#include "engine/rank_runner.hpp"
#include "pagedcore/engine.hpp"

namespace pagedcore::ranks {

using Texts = std::vector<std::pair<std::string, std::string>>;

/// What tells models apart: the description, and of every matrix its name, type, shape and some of its bytes. Throws
/// what reading throws.
std::string fingerprint(const ModelDescription& model, const WeightSource& weights);

/// What ranks bring to a meeting; the token is read. `rank`, `decides` and `wants` are the caller's to fill.
comm::Member member_of(const EngineConfig& config, const std::string& model);
/// Through shared memory, or TCP, as the address says.
std::unique_ptr<comm::Communicator> join(const comm::Member& member);

/// The options that rank 0 decides for all, as texts; and a configuration that has them.
Texts shared_options(const EngineConfig& config);
EngineConfig with_options(EngineConfig own, const Texts& options);

/// Rank 0's first word in a group.
struct Setup {
  std::uint64_t cache = 0;  // names what the KV cache holds: another number, and none of it counts
  Texts options;
};

/// How far a rank is.
struct Readiness {
  enum class State : std::uint8_t { loading, ready, failed };
  State state = State::loading;
  std::uint8_t error = 0;     // which class, for throw_error()
  std::uint64_t cache = 0;    // Setup::cache that it had before this setup; 0: it is new
  std::uint64_t process = 0;  // its id on its host
  std::string text;           // what it computes with, or what went wrong
};
/// Of the exception that is being handled, and back: the same class with "rank N: " before its words.
Readiness failed_with_current_exception() noexcept;
[[noreturn]] void throw_error(const Readiness& failed, int rank);

/// All ranks call it; each asks `own` how far it is, ever again. Returns, at all ranks in the same round, when all are
/// ready or one has failed. `said`: what each said last, [ranks]. `own` may throw where this rank is to wait no longer.
void agree(comm::Communicator& group, const std::function<Readiness()>& own, std::vector<Readiness>& said);

enum class Word : std::uint8_t { setup = 1, step, end, long_one };

/// Rank 0's words to all others, of any length, in one broadcast up to a mebibyte. Keeps its memory.
class Mouth {
 public:
  void say(comm::Communicator& group, Word word, std::span<const std::byte> bytes);

 private:
  std::vector<std::byte> bytes_;
};
class Ear {
 public:
  /// Waits as long as rank 0 lives. What was said is valid until the next call. Throws Corrupt for what is no word.
  std::pair<Word, std::span<const std::byte>> hear(comm::Communicator& group);

 private:
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> to_bytes(const Setup& setup);
Setup setup_of(std::span<const std::byte> bytes);

/// What a rank above 0 reports of a step: one byte, and where blocks were moved what that has cost so far, then the
/// flags of those that were lost.
std::size_t report_size(const RankStep& step) noexcept;
void write_report(const RankRunner& runner, std::span<std::byte> report);
/// Joins the flags to `lost`; the counters, where there are any.
void read_report(std::span<const std::byte> report, std::span<std::uint8_t> lost, SwapCounters& counters);

/// With these words a rank gives up a step that it lacks memory for, which may be run again.
inline constexpr std::string_view kLacksMemory = "it lacks memory for the step";

}  // namespace pagedcore::ranks
