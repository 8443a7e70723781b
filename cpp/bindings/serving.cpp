// What a service needs besides requests and outputs: queues and their descriptors, pauses and drains.
#include <algorithm>
#include <vector>

#include "bindings/engine_handle.hpp"
#include "bindings/records.hpp"

namespace pagedcore::bindings {
namespace {

std::vector<RequestId> drain(EngineHandle& self, double timeout) {
  while (true) {
    std::vector<RequestId> left;
    {
      const ReleasedGil released;
      left = self.engine->drain(std::min(timeout, kSlice));
    }
    timeout -= kSlice;
    if (left.empty() || !(timeout > 0)) return left;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

std::vector<CacheEvent> cache_events(EngineHandle& self, double timeout) {
  while (true) {
    std::vector<CacheEvent> events;
    {
      const ReleasedGil released;
      events = self.engine->cache_events(std::min(timeout, kSlice));
    }
    timeout -= kSlice;
    if (!events.empty() || !(timeout > 0)) return events;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

EngineSnapshot snapshot(EngineHandle& self, const SnapshotLimits& limits) {
  const SnapshotLimits asked = limits;  // other threads may change theirs meanwhile
  const ReleasedGil released;
  return self.engine->snapshot(asked);
}

}  // namespace

void bind_snapshot(nb::module_& m) {
  Record<SnapshotLimits>(m, "SnapshotLimits", "Bounds on a snapshot.");
  Record<RequestPicture>(m, "RequestPicture", "A request, seen from outside.", Fields::fixed);
  Record<TablePicture>(m, "TablePicture", "The block table of a sample, of a beam, or of a registered prefix.",
                       Fields::fixed);
  Record<StepPicture>(m, "StepPicture", "What a step did.", Fields::fixed);
  Record<EngineSnapshot>(m, "EngineSnapshot", "What is where between two steps of an engine.", Fields::fixed);
}

void bind_serving(nb::class_<EngineHandle>& engine) {
  using E = EngineHandle;
  engine
      .def(
          "export_prefix",
          [](E& self, const std::vector<TokenId>& tokens, std::uint64_t salt) {
            std::vector<std::byte> bytes;
            {
              const ReleasedGil released;
              bytes = self.engine->export_prefix(tokens, salt);
            }
            return nb::bytes(bytes.data(), bytes.size());
          },
          "tokens"_a, "salt"_a = 0,
          "The KV of the leading full blocks of these tokens that are in the prefix cache, for another engine.")
      .def(
          "import_prefix",
          [](E& self, const nb::bytes& data) {
            const std::span bytes(static_cast<const std::byte*>(data.data()), data.size());
            const ReleasedGil released;
            return self.engine->import_prefix(bytes);
          },
          "data"_a, "Puts an exported prefix into the prefix cache; how many leading tokens are there then.")
      .def(
          "open_queue", [](E& self) { return self.engine->open_queue(); },
          "A place for outputs beside the engine's own, which is queue 0: for submit() and wait().")
      .def(
          "close_queue",
          [](E& self, QueueId queue) {
            self.engine->close_queue(queue);
            self.undelivered.remove_if([&](const E::Taken& taken) { return taken.queue == queue; });
          },
          "queue"_a, "Drops what is in it and ends the requests whose outputs would come there.")
      .def(
          "output_fd", [](E& self, QueueId queue) { return self.engine->output_fd(queue); }, "queue"_a = 0,
          "A descriptor for an event loop: readable while wait() would not sleep, which makes it unreadable. Nobody "
          "else is to read, write or close it; it lives as long as its queue and the engine.")
      .def("cache_events", &cache_events, "timeout"_a = 0.0,
           nb::sig("def cache_events(self, timeout: float = 0.0) -> list[CacheEvent]"),
           "News of the prefix cache since the last call, waiting at most `timeout` seconds for the first.")
      .def("snapshot", &snapshot, "limits"_a = SnapshotLimits{},
           nb::sig("def snapshot(self, limits: SnapshotLimits = ...) -> EngineSnapshot"),
           "What is where, between two steps. Waits for the end of the one under way.")
      .def("drain", &drain, "timeout"_a, nb::sig("def drain(self, timeout: float) -> list[int]"),
           "Refuses requests from now on and waits until those that are there have ended. Returns those that have not.")
      .def(
          "pause", [](E& self) { self.engine->pause(); }, release_gil(),
          "Returns when no step is under way; none begins until resume().")
      .def(
          "resume", [](E& self) { self.engine->resume(); }, release_gil(), "Undoes pause() and drain().")
      .def(
          "now", [](E& self) { return self.engine->now(); },
          "The engine's clock, in seconds, on which outputs say "
          "their times.");
}

}  // namespace pagedcore::bindings
