// A whole engine, its backend's threads and memory included, as a guest in its process.
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include "device.hpp"
#include "fake_executor.hpp"
#include "process.hpp"

using namespace fake;
using namespace process;

TEST_CASE("a whole engine, the backend's threads included: idle, forked, closed") {
  const tiny::TinyModel model = device::model();
  EngineConfig config = device::config(device::under_test().dtypes.front(), 3);
  config.kv.kv_cache_memory = 64 << 20;
  const auto threads_before = thread_ids().size();
  auto engine = std::make_unique<Engine>(model.description, model.weights, config);
  EngineRequest request;
  request.prompt = {1, 2, 3};
  engine->submit(request);
  drain(*engine);
  CHECK(idle_seconds(0.02) < 0.02);

  const pid_t child = fork();
  if (child == 0) {
    int thrown = 0;
    try {
      engine->submit(request);
    } catch (const Aborted&) {
      thrown = 1;
    }
    engine->close();
    engine.reset();  // neither joins nor hangs
    _exit(thrown == 1 ? 0 : 1);
  }
  check_success(child);

  engine->submit(request);
  CHECK(drain(*engine).lasts.size() == 1);
  engine->close();
  CHECK(thread_ids().size() == threads_before);
}

// rule: engine.close-is-final
TEST_CASE("a closed engine has given its memory back") {
  const auto address_space = [] {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  };
  const tiny::TinyModel model = device::model();
  EngineConfig config = device::config();
  config.kv.kv_cache_memory = 256 << 20;
  config.scheduler.max_sequences = 1 << 16;
  const std::size_t before = address_space();
  Engine engine(model.description, model.weights, config);
  CHECK(engine.memory_plan().kv_cache() > 255 << 20);
  CHECK(address_space() > before + (255 << 20));
  engine.close();  // what stays is at most the allocator's reserve for the engine's thread
  CHECK(address_space() < before + (160 << 20));
}
