#include "engine/memory_plan.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "backend/cuda_sizes.hpp"
#include "base/field_text.hpp"
#include "base/host_memory.hpp"
#include "base/text.hpp"
#include "engine/kv_identity.hpp"
#include "engine/store_traffic.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::size_t kDefaultCacheLimit = std::size_t{1} << 30;
constexpr std::size_t kMostDenseWeights = std::size_t{1} << 30;  // that weights = auto widens
constexpr std::size_t kDefaultRequestMemory = std::size_t{1} << 30;

constexpr std::uint32_t kCpuLogitRows = 64;   // enough to stream the head's weights efficiently
constexpr std::uint32_t kGpuLogitRows = 256;  // a decode batch at once; enough to be bound by the tensor cores
constexpr std::uint32_t kGpuBatchedTokens = 2048;

bool on_gpu(const EngineConfig& config) { return parse_device(config.device).kind == DeviceKind::cuda; }

/// A GPU widens weights in integers, and computes in bf16.
CudaOptions cuda_options(const EngineConfig& config) {
  CudaOptions options = config.cuda;
  if (options.dtype == DType::i8) options.dtype = DType::bf16;
  return options;
}

/// Enough for max_sequences contexts of full length, but at most 1 GiB and half of the memory that is available; on a
/// GPU, whose memory has no other use, all that weights and activations leave.
std::size_t default_cache_bytes(const EngineConfig& c, std::uint64_t context, const MemoryPlan& plan,
                                std::size_t available) {
  const std::size_t block_bytes = plan.kv_block;
  const std::uint64_t blocks =
      plan.windows.size() * c.scheduler.max_sequences * ((context + c.kv.block_size - 1) / c.kv.block_size);
  std::size_t limit = std::min(kDefaultCacheLimit, available / 2);
  if (on_gpu(c)) {
    const std::size_t model = plan.weights + plan.activations;
    if (model + block_bytes > available)
      throw OutOfMemory(str("weights of ", plan.weights, " bytes, activations of ", plan.activations,
                            " and one KV block of ", block_bytes, " are more than the ", available,
                            " bytes that device = '", c.device,
                            "' has for them; raise gpu_memory_utilization, lower max_batched_tokens or workspace, or "
                            "use a smaller model"));
    limit = available - model;
  }
  return blocks > limit / block_bytes ? limit : static_cast<std::size_t>(blocks) * block_bytes;
}

/// Of a model whose texts are computed whole and leave nothing: the KV of one step, whose sequences fill no last block,
/// above the watermark.
std::size_t bytes_of_a_step(const EngineConfig& c, const MemoryPlan& plan) {
  const std::uint64_t rows = c.scheduler.max_batched_tokens;
  const std::uint64_t blocks =
      (rows + c.kv.block_size - 1) / c.kv.block_size + std::min<std::uint64_t>(c.scheduler.max_sequences, rows);
  return static_cast<std::size_t>(blocks + blocks / 50 + 1) * plan.kv_block;
}

/// The longest sequence that all blocks together hold, `most` at most: of a layer group with a window the blocks
/// that it reaches, and those of a step. The scheduler's arithmetic for one sequence.
std::uint32_t longest_context(const MemoryPlan& plan, std::uint32_t max_batched_tokens, std::uint64_t most) {
  const auto blocks_for = [&](std::uint64_t tokens) { return (tokens + plan.block_size - 1) / plan.block_size; };
  const auto fits = [&](std::uint64_t tokens) {
    std::uint64_t blocks = 0;
    for (const std::uint32_t window : plan.windows) {
      const std::uint64_t seen = blocks_for(window) + 2 + blocks_for(max_batched_tokens);
      blocks += window == 0 ? blocks_for(tokens) : std::min(blocks_for(tokens), seen);
    }
    return blocks <= plan.num_blocks;
  };
  std::uint64_t low = 0, high = most;
  while (low < high) {
    const std::uint64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return static_cast<std::uint32_t>(low);
}

void add_rank(MemoryPlan& plan, const ModelMemory& memory) {
  plan.weights += memory.weights;
  plan.native_weights += memory.native_weights;
  plan.integer_weights += memory.integer_weights;
  plan.dense_weights += memory.dense_weights;
  plan.activations += memory.activations;
  plan.kv_block += memory.kv_block;
  plan.rank_weights.push_back(memory.weights);
  plan.rank_activations.push_back(memory.activations);
  plan.rank_kv_block.push_back(memory.kv_block);
}

/// Blocks on their way to a store and back, and the index of those on disk.
std::size_t bytes_of_store(const EngineConfig& c, const MemoryPlan& plan) {
  if (c.store.kv_store.empty()) return 0;
  constexpr std::size_t kIndexEntry = 160;
  const auto groups = static_cast<std::size_t>(plan.num_layer_groups());
  const TrafficBuffers buffers = traffic_buffers(plan.kv_block, groups);
  return (buffers.reads + buffers.writes) * plan.kv_block + c.store.kv_store_size / plan.kv_block * kIndexEntry;
}

}  // namespace

std::uint32_t max_logit_rows(const EngineConfig& config) noexcept {
  return std::min(on_gpu(config) ? kGpuLogitRows : kCpuLogitRows, config.scheduler.max_batched_tokens);
}

EngineConfig for_its_device(EngineConfig config, const ModelDescription& model) {
  std::uint32_t& tokens = config.scheduler.max_batched_tokens;
  if (tokens > 0) return config;
  tokens = on_gpu(config) ? kGpuBatchedTokens : kDefaultBatchedTokens;
  if (!model.attention.bidirectional) return config;
  const auto longest = static_cast<std::uint32_t>(model.max_context), asked = config.scheduler.max_context;
  tokens = std::max(tokens, asked > 0 ? std::min(asked, longest) : longest);
  return config;
}

EngineConfig for_its_model(EngineConfig config, const ModelDescription& model) {
  validate(config);
  if (on_gpu(config) || config.cpu.weights != WeightStorage::automatic) return config;
  if (config.cpu.dtype == DType::i8) {
    config.cpu.weights = WeightStorage::native;
    return config;
  }
  config.cpu.weights = WeightStorage::dense;
  CpuOptions one_thread = config.cpu;
  one_thread.threads = 1;
  const auto block_size = static_cast<std::int32_t>(config.kv.block_size);
  const std::size_t dense = plan_model_memory(model, *make_cpu_backend(one_thread), block_size, 1, 1).weights;
  if (dense > kMostDenseWeights) config.cpu.weights = WeightStorage::native;
  return config;
}

MemoryPlan plan_memory(const ModelDescription& model, const EngineConfig& given, const TensorSizes& sizes,
                       std::size_t available, const WeightSource* weights) {
  model.validate();
  validate(given);
  const EngineConfig config = for_its_device(given, model);
  if (on_gpu(config) && model.attention.bidirectional)
    throw Unsupported(str("device = '", config.device, "' for a model whose tokens see those behind them; use 'cpu'"));
  if (moves_prefixes(config) && model.attention.bidirectional)
    throw Unsupported(
        str(config.store.kv_store.empty() ? "kv_transfer" : "kv_store",
            " for a model whose tokens see those behind them: no text begins like another; leave it out"));
  const auto model_context = static_cast<std::uint32_t>(std::max(model.max_context, 0));
  if (model_context > 0 && config.scheduler.max_context > model_context) {
    throw InvalidArgument(str("engine option max_context = ", config.scheduler.max_context, " exceeds the ",
                              model_context, " positions that the model was made for; use at most ", model_context));
  }
  MemoryPlan plan;
  for (std::int32_t rank = 0; rank < config.tensor_parallel; ++rank)
    add_rank(plan, plan_model_memory(model, sizes, static_cast<std::int32_t>(config.kv.block_size),
                                     config.scheduler.max_batched_tokens, max_logit_rows(config), weights,
                                     {rank, config.tensor_parallel}));
  plan.windows = layer_groups(model).windows;
  plan.block_size = config.kv.block_size;

  const std::uint64_t context = config.scheduler.max_context > 0 ? config.scheduler.max_context
                                : model_context > 0              ? model_context
                                                                 : kMostCount;
  plan.num_blocks = config.kv.num_blocks;
  if (config.kv.num_blocks == 0) {
    const std::size_t budget = config.kv.kv_cache_memory > 0   ? config.kv.kv_cache_memory
                               : model.attention.bidirectional ? bytes_of_a_step(config, plan)
                                                               : default_cache_bytes(config, context, plan, available);
    plan.num_blocks = static_cast<std::uint32_t>(std::min<std::size_t>(budget / plan.kv_block, kMostBlocks));
    if (plan.num_blocks == 0) {
      throw InvalidArgument(str("kv_cache_memory = ", budget, " bytes holds no block: one block of ",
                                config.kv.block_size, " tokens takes ", plan.kv_block,
                                " bytes; set at least that many, say 4GiB for so many gibibytes, or use a smaller "
                                "block_size"));
    }
  }
  const std::size_t host_slots = config.swap.swap_space / plan.kv_block;
  if (config.swap.swap_space > 0 && host_slots == 0) {
    throw InvalidArgument(str("swap_space = ", config.swap.swap_space, " bytes holds no block: one takes ",
                              plan.kv_block, " bytes; say 4GiB for so many gibibytes, or leave it out"));
  }
  const std::size_t file_slots = config.swap.swap_file.empty()    ? 0
                                 : config.swap.swap_file_size > 0 ? config.swap.swap_file_size / plan.kv_block
                                                                  : plan.num_blocks;
  if (!config.swap.swap_file.empty() && file_slots == 0) {
    throw InvalidArgument(str("swap_file_size = ", config.swap.swap_file_size, " holds no block: one takes ",
                              plan.kv_block, " bytes; raise it, or set it to 0 for as much as the KV cache"));
  }
  if (host_slots + file_slots > kMostCount) {
    throw InvalidArgument(str("swap_space and swap_file_size make a swap space of ", host_slots + file_slots,
                              " blocks; lower them to ", kMostCount, " blocks of ", plan.kv_block, " bytes at most"));
  }
  const std::size_t host = on_gpu(config) ? available_host_memory() : available;
  plan.requests =
      config.request_memory > 0 ? config.request_memory : std::min<std::size_t>(kDefaultRequestMemory, host / 4);
  plan.store = bytes_of_store(config, plan);
  plan.swap = host_slots * plan.kv_block;
  plan.swap_file = file_slots * plan.kv_block;
  plan.num_swap_blocks = static_cast<std::uint32_t>(host_slots + file_slots);
  plan.max_context = longest_context(plan, config.scheduler.max_batched_tokens, context);
  if (config.kv.allocation != AllocationPolicy::paged) {
    if (plan.num_swap_blocks > 0)
      throw InvalidArgument(str("allocation = '", to_text(config.kv.allocation),
                                "' has no swap space: leave swap_space and swap_file out, or use paged allocation"));
    if (plan.windows.size() > 1 || plan.windows[0] > 0)
      throw InvalidArgument(str("allocation = '", to_text(config.kv.allocation),
                                "' serves models whose layers all see the full context; this one has a window of ",
                                plan.windows.back(), " tokens: use paged allocation"));
    // A sequence lies in one chunk, a power of two of blocks.
    const std::uint64_t chunk = std::uint64_t{std::bit_floor(plan.num_blocks)} * plan.block_size;
    plan.max_context = static_cast<std::uint32_t>(std::min<std::uint64_t>(plan.max_context, chunk));
    if (config.kv.max_reservation > 0) plan.max_context = std::min(plan.max_context, config.kv.max_reservation);
  }
  if (plan.max_context < 2) {
    throw InvalidArgument(str("a context of ", plan.max_context,
                              " token(s) cannot hold one prompt token and one "
                              "generated token: max_context is ",
                              context, " and the KV cache holds ", plan.num_blocks, " x ", plan.block_size,
                              " tokens; raise whichever is below 2"));
  }
  return plan;
}

std::unique_ptr<Backend> make_backend(const EngineConfig& config) {
  const DeviceId device = parse_device(config.device);
  if (device.kind == DeviceKind::cpu) return make_cpu_backend(config.cpu);
  CudaOptions options = cuda_options(config);
  options.device = device.index;
  return make_cuda_backend(options);
}

void check_swap_space(const MemoryPlan& plan, bool on_host, std::size_t limit) {
  const std::size_t others = on_host ? plan.weights + plan.activations + plan.kv_cache() : 0;
  const std::size_t most = limit > others ? limit - others : 0;
  if (plan.swap == 0 || plan.swap <= most) return;
  const std::string beside = on_host ? str(" beside weights of ", plan.weights, ", activations of ", plan.activations,
                                           " and a KV cache of ", plan.kv_cache(), " bytes")
                                     : std::string();
  throw InvalidArgument(str("swap_space = ", plan.swap, " bytes", beside, ", of the ", limit,
                            " bytes of memory that this process may take (the machine's, or its control group's limit)",
                            ": at most ", most, " are left; lower swap_space, or swap to a file (swap_file)"));
}

std::size_t available_memory(const Backend& backend) {
  const auto device = backend.available_memory();
  return device ? *device : available_host_memory();
}

MemoryPlan plan_memory(const ModelDescription& model, const EngineConfig& config, std::size_t device_memory,
                       const WeightSource* weights) {
  validate(config);
  if (device_memory > 0 && on_gpu(config)) {
    const auto sizes = cuda_sizes(cuda_options(config));
    return plan_memory(model, config, *sizes, sizes->usable(device_memory), weights);
  }
  EngineConfig quick = for_its_model(config, model);
  quick.cpu.threads = quick.cuda.threads = quick.tensor_parallel;  // the plan does not depend on them
  const auto backend = make_backend(quick);
  return plan_memory(model, quick, *backend, device_memory > 0 ? device_memory : available_memory(*backend), weights);
}

}  // namespace pagedcore
