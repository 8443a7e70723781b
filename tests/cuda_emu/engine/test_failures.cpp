// A device that fails under an engine: that engine says why and stops, others and the process go on.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "harness.hpp"
#include "runtime/runtime.hpp"

using namespace cuda_test;

namespace {

/// The machine of the plugin, which has a fake runtime of its own. Changed only while engines are idle.
class Plugin {
 public:
  Plugin() : library_(dlopen(CUDA_EMU_PLUGIN, RTLD_NOW | RTLD_LOCAL)) { REQUIRE(library_ != nullptr); }
  ~Plugin() { machine() = cuda_emu::Machine{}; }
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;

  cuda_emu::Machine& machine() { return *find<cuda_emu::Machine*>("cuda_emu_machine"); }
  bool in_use() { return find<bool>("cuda_emu_in_use"); }

 private:
  template <class Result>
  Result find(const char* name) {
    auto* function = reinterpret_cast<Result (*)()>(dlsym(library_, name));
    REQUIRE((function != nullptr));
    return function();
  }
  void* library_;
};

EngineRequest request() {
  EngineRequest r;
  r.prompt = {5, 6, 7, 8, 9};
  r.sampling.temperature = 0.0f;
  r.sampling.max_tokens = 4;
  return r;
}

std::vector<TokenId> tokens_of(Engine& engine) {
  const RequestId id = engine.submit(request());
  const Collection all = drain(engine);
  CHECK(all.at(id).error == "");
  return all.at(id).tokens;
}

/// Submits to a broken engine: the request ends with an error, and later calls are refused. Returns both texts.
std::string stopped(Engine& engine) {
  Collection all;
  std::string why;
  const RequestId id = engine.submit(request());
  while (why.empty()) {
    try {
      all.add(engine.wait(0.1));
    } catch (const Aborted& aborted) {
      why = aborted.what();
    }
  }
  CHECK(all.at(id).finish == FinishReason::error);
  CHECK_THROWS_WITH_AS(engine.submit(request()), why.c_str(), Aborted);
  return why + " | " + all.at(id).error;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

constexpr const char* kText = "cudaErrorIllegalAddress: an illegal memory access was encountered";

}  // namespace

TEST_CASE("an asynchronous error stops its engine, with its text; other engines and the process go on") {
  Plugin plugin;
  const TinyModel model(151, 2, 64);
  {
    Engine broken(model.description, model.weights, config_for("cuda")),
        other(model.description, model.weights, config_for("cuda")),
        cpu(model.description, model.weights, config_for("cpu"));
    const std::vector<TokenId> expected = tokens_of(other), on_cpu = tokens_of(cpu);
    CHECK(tokens_of(broken) == expected);
    plugin.machine().kernels = cudaErrorIllegalAddress;  // of the kernels of one engine: the others are idle
    const std::string why = stopped(broken);
    plugin.machine().kernels = cudaSuccess;
    CHECK(contains(why, kText));
    CHECK(contains(why, "on device cuda:0"));
    CHECK(tokens_of(other) == expected);
    CHECK(tokens_of(cpu) == on_cpu);
    CHECK_THROWS_AS(broken.submit(request()), Aborted);
    broken.close();
    CHECK(tokens_of(other) == expected);
    Engine fresh(model.description, model.weights, config_for("cuda"));
    CHECK(tokens_of(fresh) == expected);
  }
  CHECK_FALSE(plugin.in_use());
}

TEST_CASE("an error that stays, as a broken context does, stops every engine of the device and none of another") {
  Plugin plugin;
  const TinyModel model(151, 2, 64);
  {
    Engine first(model.description, model.weights, config_for("cuda")),
        second(model.description, model.weights, config_for("cuda")),
        cpu(model.description, model.weights, config_for("cpu"));
    const std::vector<TokenId> on_cpu = tokens_of(cpu);
    plugin.machine().kernels = cudaErrorIllegalAddress;
    CHECK(contains(stopped(first), kText));
    CHECK(contains(stopped(second), kText));
    CHECK(tokens_of(cpu) == on_cpu);
  }
  CHECK_FALSE(plugin.in_use());
}

TEST_CASE("an engine whose allocations fail, each in turn, is not made and leaves nothing behind") {
  Plugin plugin;
  const TinyModel model(151, 2, 64);
  int failures = 0;
  for (bool done = false; !done; ++failures) {
    CAPTURE(failures);
    plugin.machine().allocations_left = failures;
    try {
      Engine engine(model.description, model.weights, config_for("cuda"));
      done = true;
    } catch (const OutOfMemory&) {
    }
    plugin.machine().allocations_left = -1;
    CHECK_FALSE(plugin.in_use());
  }
  CHECK(failures > 10);
}

TEST_CASE("an allocation that fails in a step ends the engine with its text, never the process") {
  Plugin plugin;
  const TinyModel model(151, 2, 64);
  for (int left = 0; left < 3; ++left) {
    Engine engine(model.description, model.weights, config_for("cuda"));
    plugin.machine().allocations_left = left;
    const std::string why = stopped(engine);
    plugin.machine().allocations_left = -1;
    CHECK(contains(why, "cudaErrorMemoryAllocation: out of memory"));
    engine.close();
    CHECK_FALSE(plugin.in_use());
  }
}
