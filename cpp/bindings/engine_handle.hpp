// An engine as Python holds it.
#pragma once

#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "pagedcore/engine.hpp"

namespace pagedcore::bindings {

constexpr double kSlice = 0.1;  // seconds after which a long wait looks whether Ctrl-C was pressed

/// The engine thread never needs the GIL, so that joining it cannot deadlock. Closing takes up to a step: the other
/// Python threads run meanwhile.
struct EngineHandle {
  /// Outputs of one queue, taken from the engine.
  struct Taken {
    QueueId queue{};
    std::vector<EngineOutput> outputs;
  };
  std::shared_ptr<Engine> engine;
  /// Not yet given out, since there was no memory for the objects. The GIL guards it.
  std::list<Taken> undelivered;

  explicit EngineHandle(std::shared_ptr<Engine> running) : engine(std::move(running)) {}
  EngineHandle(const EngineHandle&) = delete;
  EngineHandle& operator=(const EngineHandle&) = delete;
  ~EngineHandle() {
    const ReleasedGil released;
    engine.reset();
  }
};

/// A constraint as Python holds it. Requests share it, and nobody who drops it needs the GIL.
struct ConstraintHandle {
  std::shared_ptr<const Constraint> constraint;
};

/// Constraints, and the tables that they are made of.
void bind_constraint(nb::module_& m);
/// A picture of an engine.
void bind_snapshot(nb::module_& m);
/// What a service needs besides requests and outputs.
void bind_serving(nb::class_<EngineHandle>& engine);

}  // namespace pagedcore::bindings
