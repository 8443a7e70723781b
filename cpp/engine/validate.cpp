// What engine options mean together. Ranges are in the lists of fields.
#include <algorithm>
#include <initializer_list>
#include <string>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "pagedcore/devices.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

void check_type(const EngineConfig& c, DType dtype, std::initializer_list<DType> served) {
  if (std::find(served.begin(), served.end(), dtype) != served.end()) return;
  std::string types;
  for (const DType each : served) types.append(types.empty() ? "" : " or ").append(to_text(each));
  throw Unsupported(str("dtype = '", to_text(dtype), "' on device = '", c.device, "', which computes in ", types));
}

/// An option that the others give no effect is no use to whoever sets it. `otherwise`: its default.
template <class T>
void check_effect(const char* name, const T& value, const T& otherwise, const char* wants) {
  if (value != otherwise) throw InvalidArgument(str(name, " = ", to_text(value), " has no effect: it is for ", wants));
}

void check_device(const EngineConfig& c) {
  const CpuOptions cpu;
  const CudaOptions cuda;
  if (parse_device(c.device).kind == DeviceKind::cuda) {
    check_effect("isa", c.cpu.isa, cpu.isa, "device = 'cpu'");
    if (c.tensor_parallel > 1)
      throw Unsupported(str("tensor_parallel = ", c.tensor_parallel, " on device = '", c.device,
                            "', which serves a model whole; use tensor_parallel = 1, or device = 'cpu'"));
    return check_type(c, c.cuda.dtype, {DType::bf16, DType::f16, DType::i8});
  }
  const int threads = c.cpu.threads > 0 ? c.cpu.threads : usable_cpus();
  if (c.tensor_parallel > threads)
    throw InvalidArgument(str("tensor_parallel = ", c.tensor_parallel, " exceeds threads = ", threads,
                              c.cpu.threads > 0 ? "" : ", one for each CPU that this process may run on",
                              ": a rank has one thread at least; use fewer ranks, or set threads"));
  check_type(c, c.cpu.dtype, {DType::f32, DType::bf16, DType::i8});
  if (c.cpu.dtype == DType::i8 && c.cpu.weights == WeightStorage::dense)
    throw InvalidArgument(
        "dtype = 'int8' multiplies the codes of weights, of which weights = 'dense' keeps none; use weights = 'auto', "
        "or "
        "dtype = 'bfloat16'");
  if (c.cpu.kv_cache_dtype == KvCacheType::fp8)
    throw Unsupported(str("kv_cache_dtype = '", to_text(c.cpu.kv_cache_dtype), "' on device = '", c.device,
                          "', which keeps KV in the compute type or in int8; use 'int8' or 'auto'"));
  if (c.cuda.cublas_lt)
    throw Unsupported(str("cublas_lt = true on device = '", c.device, "': it is for the products of device = 'cuda'"));
  check_effect("gpu_memory_utilization", c.cuda.gpu_memory_utilization, cuda.gpu_memory_utilization,
               "device = 'cuda'; the size of the KV cache is kv_cache_memory, such as 2GiB");
  check_effect("workspace", c.cuda.workspace, cuda.workspace, "device = 'cuda'");
  check_effect("graph_rows", c.cuda.graph_rows, cuda.graph_rows, "device = 'cuda'");
  check_effect("sample_on_device", c.cuda.sample_on_device, cuda.sample_on_device, "device = 'cuda'");
  check_effect("plugin", c.cuda.plugin, cuda.plugin, "device = 'cuda'");
}

/// Prefixes that leave the engine, or come from elsewhere, go through the prefix cache.
void check_store(const EngineConfig& c) {
  const KvStoreOptions store;
  if (c.store.kv_store.empty()) {
    check_effect("kv_store_size", c.store.kv_store_size, store.kv_store_size, "a kv_store, the path of a directory");
    if (!c.store.kv_transfer) return;
  }
  const char* const name = c.store.kv_store.empty() ? "kv_transfer" : "kv_store";
  if (!c.kv.enable_prefix_caching || c.kv.allocation != AllocationPolicy::paged)
    throw InvalidArgument(str(name,
                              " keeps what the prefix cache has: it needs enable_prefix_caching = true and "
                              "allocation = 'paged'"));
  if (c.tensor_parallel > 1)
    throw Unsupported(str(name, " with tensor_parallel = ", c.tensor_parallel,
                          ": each rank has a slice of every block; use tensor_parallel = 1, or leave it out"));
  if (c.cuda.cublas_lt)
    throw Unsupported(str(name,
                          " with cublas_lt = true: what it computes for the same tokens may differ, and none of it "
                          "may stand for the other; leave one of them out"));
}

}  // namespace

void validate(const EngineConfig& c) {
  check_ranges(c, "engine option");
  check_device(c);
  if (c.kv.kv_cache_memory > 0 && c.kv.num_blocks > 0)
    throw InvalidArgument("kv_cache_memory and num_blocks both give the size of the KV cache: give one of them");
  if (c.kv.allocation == AllocationPolicy::paged && c.kv.max_reservation > 0)
    throw InvalidArgument(
        str("max_reservation = ", c.kv.max_reservation,
            " is for the baselines allocation = 'max', 'pow2' and 'oracle'; paged allocation reserves "
            "nothing"));
  if (c.scheduler.preemption == PreemptionMode::swap && c.swap.swap_space == 0 && c.swap.swap_file.empty())
    throw InvalidArgument(
        "preemption = 'swap' needs a swap space: set swap_space, such as 1GiB, or swap_file, or both");
  if (c.scheduler.preemption == PreemptionMode::recompute) {
    check_effect("swap_space", c.swap.swap_space, std::size_t{0}, "preemption = 'auto' and 'swap'");
    check_effect("swap_file", c.swap.swap_file, std::string(), "preemption = 'auto' and 'swap'");
  }
  if (c.scheduler.order != ServiceOrder::fair) {
    const SchedulerConfig scheduler;
    check_effect("prompt_weight", c.scheduler.prompt_weight, scheduler.prompt_weight, "order = 'fair'");
    check_effect("output_weight", c.scheduler.output_weight, scheduler.output_weight, "order = 'fair'");
  }
  check_store(c);
  if (c.swap.swap_file.empty() && c.swap.swap_file_size > 0)
    throw InvalidArgument(str("swap_file_size = ", c.swap.swap_file_size, " needs swap_file, the path of the file"));
}

}  // namespace pagedcore
