// Backend: the operations a decoder needs, on device memory. One object per device and engine.
//
// Contract, the same for every backend:
//  - Operations are enqueued in order on one stream; results are visible to later operations, and to the host after
//    synchronize(). Host memory passed by span is read before the call returns.
//  - Nothing outside a backend dereferences Tensor::data.
//  - The result for a row depends on that row's inputs only: not on the other rows of the batch, not on how a sequence
//    was cut into token ranges, not on the number of threads. Reductions run in one fixed order.
//  - Not thread-safe: one thread drives a backend. Any call may throw Error; a call that threw has enqueued nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pagedcore/attention.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/mixture.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/tensor.hpp"
#include "pagedcore/types.hpp"
#include "pagedcore/weight.hpp"

namespace pagedcore {

/// Owns device memory; frees it on destruction. Must not outlive its backend.
class PAGEDCORE_API Buffer {
 public:
  virtual ~Buffer();
  virtual void* data() noexcept = 0;
  virtual std::size_t bytes() const noexcept = 0;
};

/// The paged KV storage of one layer group: block-major over layers, [block][layer][kv head][K tile | V tile], so
/// that a block is one contiguous piece of `block_bytes()`. What a tile looks like inside is the backend's business.
struct KvShape {
  std::int32_t num_layers = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_size = 0;  // tokens per block, at most kMostBlockSize
  DType dtype = DType::f32;
};

class PAGEDCORE_API KvStorage {
 public:
  virtual ~KvStorage();
  virtual const KvShape& shape() const noexcept = 0;
  virtual std::uint32_t num_blocks() const noexcept = 0;
  virtual std::size_t block_bytes() const noexcept = 0;
  /// Host address of a block after synchronize(), or null where the host cannot read it.
  virtual const std::byte* host_view(BlockId block) const noexcept;
};

/// Consecutive tokens of one sequence in the flat batch: rows [first_row, first_row + num_rows) hold positions
/// [first_position, first_position + num_rows). Row r attends to positions [0, its own] through the block table, or, of
/// a bidirectional layer, to all up to the range's end.
struct TokenRange {
  std::int32_t first_row = 0;
  std::int32_t num_rows = 0;
  std::int32_t first_position = 0;
  std::int32_t table_offset = 0;  // into the tables of each layer group; covers every position up to the last row's
};

/// One step's batch, described in host memory.
struct BatchView {
  std::span<const TokenId> tokens;        // [rows]
  std::span<const TokenRange> ranges;     // in row order, covering every row exactly once
  std::span<const BlockId> block_tables;  // [num_layer_groups][entries]: concatenated tables of physical block
                                          // ids. Entries that no row's window reaches may be kNoBlock
  std::int32_t num_layer_groups = 1;      // each with tables of its own
};

/// A batch made ready on the device by Backend::prepare; shared by all layers of the step.
class PAGEDCORE_API Batch {
 public:
  virtual ~Batch();
  virtual std::int64_t rows() const noexcept = 0;
};

enum class NormKind : std::uint8_t { rms, layer };
template <>
struct Words<NormKind> {
  static constexpr Word<NormKind> list[] = {{NormKind::rms, "rms"}, {NormKind::layer, "layer"}};
};

/// What happens to the rows of a matmul before they are stored.
struct Epilogue {
  enum class Kind : std::uint8_t {
    store,       // out = x W^T + bias
    accumulate,  // out += x W^T + bias
    gated,       // out = act(x Wg^T + bg) * (x Wu^T + bu); the weight is a gated pair, out has n() columns
    activated,   // out = act(x W^T + bias)
  };
  Kind kind = Kind::store;
  Activation activation = Activation::silu;
  const Tensor* bias = nullptr;       // f32 [1, n], of a gated pair [1, 2 n]: bg, then bu; or none
  const Tensor* row_scale = nullptr;  // of gated: f32 [rows, 1], multiplies what is stored of each row; or none
  SwigluParams swiglu = {};
};

struct NormParams {
  NormKind kind = NormKind::rms;
  float eps = 1e-5f;
  float weight_offset = 0.0f;  // added to the weight (1 for Gemma)
};

/// What is wanted of one row of logits. The parameters, and the order in which they apply, are those of sampling.hpp.
struct SamplingTask {
  enum class Kind : std::uint8_t {
    draw,        // as sample() from `context`
    score,       // as logprobs_of(), for `token`
    candidates,  // of a beam: the `num_top` most likely tokens, by log-probability, then by token
  };
  Kind kind = Kind::draw;
  std::int64_t row = 0;                 // of the logits; tasks may share one
  TokenId token = -1;                   // to score
  SampleContext context;                // without parameters: the default ones
  std::span<const std::uint32_t> mask;  // of a draw, for allowed and banned tokens: bit t % 32 of word t / 32 says that
                                        // token t may be chosen; empty: all may
  std::int32_t num_top = 0;             // most likely tokens to report

  const SamplingParams& params() const noexcept {
    static const SamplingParams defaults;
    return context.params != nullptr ? *context.params : defaults;
  }
};

struct SamplingResult {
  bool done = false;              // false: the backend declines the task; nothing else is set
  TokenId token = -1;             // drawn
  TokenLogprob chosen;            // the token's, of a draw that wants it or of a score
  std::vector<TokenLogprob> top;  // best first, at most num_top: tokens of probability 0 are left out
};

/// What a device keeps tensors in, and the bytes that they take: arithmetic, which needs no device.
class PAGEDCORE_API TensorSizes {
 public:
  virtual ~TensorSizes();

  /// The element type in which matmul inputs are kept: f32 or bf16. The residual stream and matmul outputs may be f32.
  virtual DType compute_dtype() const noexcept = 0;
  /// The element type in which KV is kept: compute_dtype(), unless this backend was asked for a narrower one.
  virtual DType kv_dtype() const noexcept;
  /// Bytes that Backend::pack() will hold for an [n, k] matrix, so that memory is planned before it is allocated.
  virtual std::size_t packed_bytes(std::int64_t n, std::int64_t k, const WeightForm& form) const = 0;
  /// The same of these matrices, of which only types and shapes are looked at. The default: all in compute_dtype().
  virtual PackedSize packed_size(std::span<const HostTensor> parts, const WeightForm& form) const;
  virtual std::size_t kv_block_bytes(const KvShape& shape) const = 0;
  /// Whether Backend::route and Backend::mixture are there.
  virtual bool serves_mixtures() const noexcept;
  /// Whether Backend::attention takes AttentionParams::sinks.
  virtual bool serves_sinks() const noexcept;
};

class PAGEDCORE_API Backend : public TensorSizes {
 public:
  ~Backend() override;

  /// For people: device, instruction set, threads.
  virtual std::string describe() const = 0;

  // Memory. All throw OutOfMemory.
  virtual std::unique_ptr<Buffer> allocate(std::size_t bytes) = 0;             // 64-byte aligned, zeroed
  virtual void upload(const Tensor& dst, std::span<const std::byte> src) = 0;  // contiguous rows
  virtual void download(std::span<std::byte> dst, const Tensor& src) = 0;      // waits
  virtual void synchronize() = 0;
  /// Bytes of device memory that tensors may take, of what is free now; none where the device's memory is the host's.
  virtual std::optional<std::size_t> available_memory() const;
  /// Announces how much memory the caller is going to allocate, pack and keep KV in, all together. A device with memory
  /// of its own gets it now, in one piece, or throws OutOfMemory with the arithmetic. Once, before anything is
  /// allocated.
  virtual void reserve(std::size_t bytes);

  // Weights. Packing converts from any weight type of tensor.hpp to compute_dtype(), or keeps block formats where this
  // backend was told to: the numbers are the same, and so are the bits of products. Throws InvalidArgument for parts
  // and leaves that do not fit each other.
  virtual std::unique_ptr<Weight> pack(std::span<const HostTensor> parts, const WeightForm& form) = 0;

  // KV storage.
  virtual std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, std::uint32_t num_blocks) = 0;
  /// All copies of a step as one operation. Sources and destinations are disjoint sets.
  virtual void copy_blocks(KvStorage& kv, std::span<const BlockCopy> copies) = 0;
  /// Whole blocks to or from host memory, block_bytes() each, as one operation: dst[i] receives blocks[i]. The host
  /// memory must stay valid, and is filled or free again, after synchronize(). Throw InvalidArgument, with nothing
  /// moved, for a block outside the storage.
  virtual void swap_out(const KvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) = 0;
  virtual void swap_in(KvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) = 0;

  // One step. `prepare` copies the description to the device and works out what all layers share.
  virtual std::unique_ptr<Batch> prepare(const BatchView& view, std::int32_t block_size) = 0;
  /// Calls `operations`, which enqueues operations over the batch and waits for none, so that a device can take them as
  /// one. It may be called twice, where what it did first was put aside unexecuted: it must do the same again.
  virtual void run_step(const Batch& batch, const std::function<void()>& operations);

  /// out[r, :] = scale * table[token of row r, :]; out is f32 [rows, k].
  virtual void embed(const Tensor& out, const Weight& table, const Batch& batch, float scale) = 0;
  /// out[r, :] = table[offset + position of row r, :]; out is f32 [rows, k]. Throws InvalidArgument for a position that
  /// the table has no row for.
  virtual void embed_positions(const Tensor& out, const Weight& table, const Batch& batch, std::int32_t offset) = 0;
  /// x += scale * y, both f32 of equal shape.
  virtual void add(const Tensor& x, const Tensor& y, float scale) = 0;
  /// out = in, which is f32, in compute_dtype() or f32; they do not overlap.
  virtual void convert(const Tensor& out, const Tensor& in) = 0;
  /// Row-wise normalisation over all columns; out may be f32 or compute_dtype(), in is f32; out == in is allowed.
  virtual void norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
                    const NormParams& p) = 0;
  /// The same over each consecutive `head_dim` columns (QK norm), in place on f32. Weight and bias have head_dim
  /// columns, which serve every head, or those of x.
  virtual void head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                         const NormParams& p) = 0;
  /// in: compute_dtype() [m, k], f32 where the weight's form says so; out: f32, or compute_dtype() for gated and
  /// activated.
  virtual void matmul(const Tensor& out, const Tensor& in, const Weight& weight, const Epilogue& epilogue) = 0;
  /// Chooses as many experts a row as `out.experts` has columns. logits: f32 [rows, experts], with a gate one column
  /// more. A logit that is no number counts as the least one.
  virtual void route(const Routing& out, const Tensor& logits, const RouterParams& p);
  /// A mixture of experts, out f32 [rows, n] from in, compute_dtype() [rows, k]. Slot s of a row has x_s = share *
  /// (act(x Wg^T) * (x Wu^T)) of its expert, in compute_dtype(). A leaf of down's k (WeightForm) is the sum over the
  /// slots, in their order, of W x_s over that leaf; the tree adds the leaves, and then, slot by slot, share * bias
  /// comes. So the order of the sums depends on the row alone, and ranks may hold ranges of leaves. Routes that name no
  /// expert are InvalidArgument. Both throw Unsupported where serves_mixtures() is false.
  virtual void mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts);
  /// qkv: f32 [rows, (heads + 2 kv heads) * head_dim]. Rotates q and k at each row's position, stores q to `q`
  /// (compute_dtype(), [rows, heads * head_dim]) and writes K and V of every row into its token slot of `layer`.
  virtual void rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& kv, std::int32_t layer, const Batch& batch,
                              const AttentionShape& shape, const RopeParams& rope) = 0;
  /// out: compute_dtype() [rows, heads * head_dim] = softmax over the row's context, read through the block tables.
  virtual void attention(const Tensor& out, const Tensor& q, const KvStorage& kv, std::int32_t layer,
                         const Batch& batch, const AttentionParams& p) = 0;
  /// out[i, :] = in[indices[i], :], same dtype.
  virtual void gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) = 0;
  // Of a model that several ranks share (WeightForm says how sums are cut). A rank packs the leaves of each subtree
  // that it has as a weight of its own; matmul() and mixture() then give the subtree's value, and combine() what they
  // give over all leaves. The defaults throw Unsupported: devices that serve no ranks.

  /// out = the root, from the values of `sums`, which may be overwritten; bias and residual as in matmul(): the same
  /// bits. `epilogue` stores or accumulates. Throws InvalidArgument for nodes that do not cover the leaves, each once,
  /// in order, and for shapes that differ.
  virtual void combine(const Tensor& out, const PartialSums& sums, const Epilogue& epilogue);
  /// As embed(), for a table of the vocabulary's rows from `first` on: rows of tokens outside it are left as they are.
  virtual void embed_some(const Tensor& out, const Weight& table, const Batch& batch, float scale, TokenId first);

  /// In place on f32: x = scale * x, then with softcap > 0, x = softcap * tanh(x / softcap).
  virtual void scale_softcap(const Tensor& x, float scale, float softcap) = 0;

  /// Chooses and scores tokens where the logits lie, f32 [rows, vocab], and waits: results[i] is that of tasks[i].
  /// Tokens are those that sampling.hpp chooses on the host, log-probabilities the same but for the last bit of a
  /// logarithm. A backend may decline a task (`done` stays false); the caller then samples it on the host. It declines
  /// what it cannot do, a task in which a parameter that it does not know differs from its default, what rounding could
  /// decide otherwise, and what is at fault (logits that are no distribution, nothing left to choose, a token outside
  /// the row), whose error the host's attempt reports. What it declines depends on the task and its row alone. The
  /// default declines all: right where host_view() gives the logits. Throws InvalidArgument for logits of another type,
  /// a row outside them, a mask of another size, and unequal numbers of tasks and results.
  virtual void sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                             std::span<SamplingResult> results);

  /// Runs body(i) for i in [0, count) on the backend's host threads and waits. Exceptions from the body are rethrown
  /// (the one of the smallest i). For host work of a step such as sampling.
  virtual void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) = 0;
  /// Host address of a device matrix, or null where the host cannot read it without a download.
  virtual const void* host_view(const Tensor& t) noexcept = 0;
};

/// A batch of decoding sequences of equal context, for timing attention by how its KV lies in memory.
struct AttentionProbe {
  KvShape kv;
  std::int32_t num_heads = 0;  // of queries
  std::int32_t batch = 0;
  std::int32_t context = 0;   // tokens
  std::int32_t repeats = 20;  // of one call for every layer
};

/// Seconds of one call of attention(): the mean over the layers, the least over the repeats (other work only adds). All
/// blocks lie in a random order (seeded: the same probe, the same order); with a block_size of `context` a sequence has
/// one. Throws InvalidArgument for counts below 1, OutOfMemory for more than the memory, and as the backend does.
PAGEDCORE_API double attention_seconds(Backend& backend, const AttentionProbe& probe);

enum class DeviceKind : std::uint8_t { cpu, cuda };
struct DeviceId {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
};
/// "cpu", "cuda" or "cuda:<index>"; throws InvalidArgument for anything else.
PAGEDCORE_API DeviceId parse_device(const std::string& text);

/// The element type in which KV is kept.
enum class KvCacheType : std::uint8_t { compute, fp8, int8 };
template <>
struct Words<KvCacheType> {
  static constexpr Word<KvCacheType> list[] = {{KvCacheType::compute, "auto"}, {KvCacheType::fp8, "fp8"},
                                               {KvCacheType::fp8, "fp8_e4m3"}, {KvCacheType::fp8, "f8_e4m3"},
                                               {KvCacheType::int8, "int8"},    {KvCacheType::int8, "i8"}};
};

struct CpuOptions {
  int threads = 0;
  DType dtype = DType::bf16;
  std::string isa = "auto";
  WeightStorage weights = WeightStorage::automatic;
  KvCacheType kv_cache_dtype = KvCacheType::compute;

  template <class V>
  static void fields(V&& v) {
    using C = CpuOptions;
    v(field("threads", &C::threads, "Threads of the host.", in(1, kMostThreads))
          .zero_means("the number of CPUs that this process may run on"));
    v(field(
        "dtype", &C::dtype,
        "Compute type: float32 or bfloat16 on the CPU, bfloat16 or float16 on a GPU. int8: on the CPU, products with "
        "weights "
        "in a block format multiply their codes by inputs in int8 with a scale for each 32; all else is bfloat16, as "
        "everything is on a GPU."));
    v(field("weights", &C::weights,
            "What is kept of weights in a block format of a GGUF file: that (native), or numbers of the compute type "
            "(dense); "
            "the bits of results are the same. auto: dense where all weights then take at most 1 GiB, else native; "
            "with dtype "
            "int8 native. int8 and int4: native, and matrices in no block format are rounded to 8 bits with a scale "
            "for each "
            "32, or to 4 bits with a scale and a minimum. A GPU widens all."));
    v(field("kv_cache_dtype", &C::kv_cache_dtype,
            "auto: KV in the compute type. int8 with a scale for each token and head, and on a GPU fp8 (e4m3) "
            "likewise, take "
            "about half the memory of bfloat16 and lose some precision."));
    v(field("isa", &C::isa, "Instruction set of the CPU, for tests and comparisons; auto: the best that it has."));
  }
};

/// Instruction sets that this CPU can run, best last: among portable, avx2, avx512, avx512_bf16, amx, neon.
PAGEDCORE_API std::span<const std::string> cpu_isas();
/// Throws InvalidArgument for an unknown isa or dtype and Unsupported for one that this CPU lacks.
PAGEDCORE_API std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

struct CudaOptions {
  int device = 0;  // index; an engine's comes from EngineConfig::device
  int threads = 0;
  DType dtype = DType::bf16;
  KvCacheType kv_cache_dtype = KvCacheType::compute;
  std::size_t workspace = std::size_t{64} << 20;
  std::int32_t graph_rows = 64;
  bool sample_on_device = true;
  /// Products of 16-bit weights by cuBLASLt, NVIDIA's library, instead of this backend's own kernels. It chooses its
  /// algorithm by the shape, so a row's bits depend on how many rows run with it: the promise "same request, same bits
  /// whatever else runs" does not hold. Takes device memory beside `workspace`: half of it, and as much again but
  /// at most 32 MiB. The library is opened at run time: the file that the environment variable PAGEDCORE_CUBLASLT
  /// names, else libcublasLt.so.13, .so.12 or .so from 12.0 up; Unsupported without one. Never run on a GPU.
  bool cublas_lt = false;
  double gpu_memory_utilization = 0.9;
  std::string plugin;

  template <class V>
  static void fields(V&& v) {
    using C = CudaOptions;
    v(field("threads", &C::threads, "Threads of the host.", in(1, kMostThreads))
          .zero_means("the number of CPUs that this process may run on"));
    v(field(
        "dtype", &C::dtype,
        "Compute type: float32 or bfloat16 on the CPU, bfloat16 or float16 on a GPU. int8: on the CPU, products with "
        "weights "
        "in a block format multiply their codes by inputs in int8 with a scale for each 32; all else is bfloat16, as "
        "everything is on a GPU."));
    v(field("kv_cache_dtype", &C::kv_cache_dtype,
            "auto: KV in the compute type. int8 with a scale for each token and head, and on a GPU fp8 (e4m3) "
            "likewise, take "
            "about half the memory of bfloat16 and lose some precision."));
    v(field("workspace", &C::workspace, "On a GPU, memory for what a step needs besides activations.",
            in(1 << 20, std::int64_t{1} << 40))
          .bytes());
    v(field("graph_rows", &C::graph_rows,
            "On a GPU, steps of up to this many rows are submitted as one CUDA graph; 0: none are.", in(0, 1 << 20)));
    v(field("sample_on_device", &C::sample_on_device,
            "On a GPU, sample there; else the host samples from downloaded logits: the same tokens."));
    v(field(
        "cublas_lt", &C::cublas_lt,
        "On a GPU, matrix products by NVIDIA's cuBLASLt instead of our own kernels. A request's bits then depend on "
        "what runs beside it. The library is found by the dynamic loader, or is the file that the environment "
        "variable PAGEDCORE_CUBLASLT names."));
    v(field("gpu_memory_utilization", &C::gpu_memory_utilization,
            "On a GPU, the part of its free memory that an engine takes whose KV cache has no size of its own.",
            above_up_to(0, 1)));
    v(field("plugin", &C::plugin, "Path of libpagedcore_cuda.so.").path().zero_means("beside libpagedcore"));
  }
};

/// Opens the plugin on first use. Throws Unsupported when it, a driver or a device that it serves is missing, and
/// InvalidArgument for a device index out of range.
PAGEDCORE_API std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

}  // namespace pagedcore
