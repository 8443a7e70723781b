// What `on_device.sh` asks of a GPU besides tests, through the public API:
//   device_report PLUGIN selftest         every operation against the CPU; ends with 1 if one fails
//   device_report PLUGIN rates [quick]    what operations take
//   device_report PLUGIN steps ROWS       decode steps of 1 to 64 sequences, submitted as CUDA graphs up to ROWS rows
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "pagedcore/engine.hpp"
#include "pagedcore/selftest.hpp"
#include "tiny_model.hpp"

using namespace pagedcore;

namespace {

CudaOptions options_of(const char* plugin) {
  CudaOptions options;
  options.plugin = plugin;
  return options;
}

int selftest(const char* plugin) {
  const auto device = make_cuda_backend(options_of(plugin));
  const auto reference = make_cpu_backend({0, DType::f32, "auto"});
  std::printf("%s\n", device->describe().c_str());
  int failed = 0;
  for (const SelftestCheck& check : selftest_checks(*device, *reference, true)) {
    failed += check.outcome == SelftestOutcome::failed;
    std::printf("%-16s %-50s %9.2e of %7.1e %s %s%s\n", check.operation.c_str(), check.what.c_str(), check.error,
                check.tolerance, Words<SelftestOutcome>::list[static_cast<int>(check.outcome)].text,
                check.problem.c_str(), check.note.c_str());
  }
  return failed > 0;
}

int rates(const char* plugin, bool quick) {
  const auto device = make_cuda_backend(options_of(plugin));
  SelftestSizes sizes;
  if (quick) sizes = {std::size_t{1} << 20, 16, 0.001};
  for (const SelftestRate& rate : selftest_rates(*device, sizes)) {
    std::printf("%-16s %-50s %10.1f us %8.1f GB/s %8.1f TFLOP/s\n", rate.operation.c_str(), rate.what.c_str(),
                rate.seconds * 1e6, rate.bytes / rate.seconds / 1e9, rate.flops / rate.seconds / 1e12);
  }
  return 0;
}

/// Microseconds of a step in which so many sequences decode, of a model whose own work is small: what a step costs that
/// is not arithmetic.
double step_of(const char* plugin, int graph_rows, int sequences) {
  const tiny::TinyModel model(151, 16, 64);
  EngineConfig config;
  config.device = "cuda";
  config.cuda = options_of(plugin);
  config.cuda.graph_rows = graph_rows;
  config.kv.num_blocks = 64 * 16;
  Engine engine(model.description, model.weights, config);
  for (int i = 0; i < sequences; ++i) {
    EngineRequest request;
    request.prompt.assign(8, static_cast<TokenId>(i + 1));
    request.sampling.temperature = 0.0f;
    request.sampling.max_tokens = 100;
    request.sampling.min_tokens = 100;
    engine.submit(request);
  }
  while (engine.busy()) engine.wait(1.0);
  const auto stats = engine.stats();
  return stats.at("step_seconds_total") / stats.at("steps") * 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[2] : "";
  try {
    if (what == "selftest") return selftest(argv[1]);
    if (what == "rates") return rates(argv[1], argc > 3);
    if (what == "steps" && argc > 3) {
      for (const int sequences : {1, 8, 32, 64})
        std::printf("graph_rows %s, %2d sequences: %8.1f us a step\n", argv[3], sequences,
                    step_of(argv[1], std::atoi(argv[3]), sequences));
      return 0;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::fprintf(stderr, "device_report PLUGIN selftest | rates [quick] | steps ROWS\n");
  return 2;
}
