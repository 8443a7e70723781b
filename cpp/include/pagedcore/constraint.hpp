// What holds outputs to a form: a matcher of the caller's, asked before each token which ones may come next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "pagedcore/export.hpp"

namespace pagedcore {

/// The functions of one kind of matcher. They are called by the engine's threads: for one matcher by one thread at a
/// time, for different ones at the same time. None may throw, wait, or call an engine. The signatures are those of
/// llguidance's C interface (llg_matcher_compute_mask_into and so on), whose functions can stand here as they are.
struct ConstraintTable {
  /// Bit t % 32 of mask[t / 32] becomes 1 where token t may come next; a stop token may where the output may end.
  /// `bytes`: of the mask, 4 * ceil(vocabulary / 32). Returns 0, or another number when the matcher has failed.
  std::int32_t (*compute_mask)(void* matcher, std::uint32_t* mask, std::size_t bytes) = nullptr;
  /// `token` has come, one that the mask before allowed. Returns as compute_mask.
  std::int32_t (*consume_token)(void* matcher, std::uint32_t token) = nullptr;
  /// Why it has failed: a text that ends with a zero and lives until the next call, or null. May be left out.
  const char* (*error)(void* matcher) = nullptr;
  /// Another matcher at the same place, which depends on this one in nothing; null: there is no memory for it.
  void* (*clone)(const void* matcher) = nullptr;
  void (*free)(void* matcher) = nullptr;
};

/// A matcher at its beginning, from which every sample and beam of a request gets a clone. Requests may share one: it
/// is immutable, and goes with the last of them, on whichever thread that is.
class PAGEDCORE_API Constraint {
 public:
  /// Takes over `matcher`, unless it throws: InvalidArgument where it, or a function other than `error`, is null.
  /// `bytes`: of host memory, that a clone may come to hold; a request counts with them (EngineConfig::request_memory).
  /// `keeps` is held until all clones are gone.
  Constraint(const ConstraintTable& table, void* matcher, std::size_t bytes = 0,
             std::shared_ptr<const void> keeps = nullptr);
  ~Constraint();
  Constraint(const Constraint&) = delete;
  Constraint& operator=(const Constraint&) = delete;

  const ConstraintTable& table() const noexcept { return table_; }
  /// Of its matcher; the caller's to free. Throws std::bad_alloc. Thread-safe.
  void* clone() const;
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  ConstraintTable table_;
  void* matcher_;
  mutable std::mutex cloning_;
  std::size_t bytes_;
  std::shared_ptr<const void> keeps_;
};

}  // namespace pagedcore
