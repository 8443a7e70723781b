#include "backend/cublas_lt.hpp"

#include <algorithm>
#include <vector>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

using Kind = Epilogue::Kind;

constexpr std::size_t kMostPlans = 4096;       // prefills differ in their number of rows
constexpr std::uint32_t kMostAlignment = 256;  // the largest that the library asks about

std::uint32_t alignment_of(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address) | kMostAlignment;
  return static_cast<std::uint32_t>(at & (~at + 1));  // the lowest bit
}

cudaDataType data_type(DType type) { return type == DType::f16 ? CUDA_R_16F : CUDA_R_16BF; }

/// Rows [first, first + m) of a product.
MatmulArgs rows_of(const MatmulArgs& args, std::int32_t first, std::int32_t m) {
  constexpr std::int64_t kNarrowBytes = 2;
  MatmulArgs rows = args;
  rows.m = m;
  rows.in = static_cast<const std::byte*>(args.in) + first * args.in_stride * kNarrowBytes;
  const std::int64_t out_bytes = args.out_is_narrow ? kNarrowBytes : std::int64_t{sizeof(float)};
  rows.out = static_cast<std::byte*>(args.out) + first * args.out_stride * out_bytes;
  return rows;
}

}  // namespace

CublasLt::CublasLt(Device& device, DType type, std::size_t workspace_bytes)
    : device_(device),
      library_(lt::open_library()),
      type_(type),
      own_bytes_(cublas_lt_bytes(workspace_bytes).own),
      sums_bytes_(cublas_lt_bytes(workspace_bytes).sums) {
  if (const lt::Status status = library_.Create(&handle_); status != lt::CUBLAS_STATUS_SUCCESS) {
    const std::string text =
        str(name(), " cannot be used on ", device.name(), ": cublasLtCreate: ", library_.GetStatusName(status));
    if (status == lt::CUBLAS_STATUS_ALLOC_FAILED) throw OutOfMemory(text);
    throw Unsupported(str(text, "; use a version that fits driver and GPU, or leave cublas_lt off"));
  }
}

CublasLt::~CublasLt() {
  cudaStreamSynchronize(device_.stream());  // its kernels may be running
  library_.Destroy(handle_);
}

void CublasLt::take_memory() {
  if (memory_.bytes() == 0) memory_ = DeviceMemory(device_, bytes());
}

std::string CublasLt::text_of(const Product& p) const {
  const auto out = info(p.out_type == CUDA_R_32F ? DType::f32 : type_).name;
  return str("[", p.m, ", ", p.k, "] (stride ", p.in_stride, ") x [", p.n, ", ", p.k, "]^T of ", info(type_).name,
             " to ", out, " (stride ", p.out_stride, ")");
}

void CublasLt::check(lt::Status status, const char* call, const Product& product) {
  if (status == lt::CUBLAS_STATUS_SUCCESS) return;
  if (device_.recording()) device_.give_up_recording(call);  // what the recording is to blame for succeeds without one
  device_.fail(str("matmul ", text_of(product), " by ", name(), ": ", call), library_.GetStatusName(status));
}

template <class Object, class Function, class... Args>
CublasLt::Owned<Object> CublasLt::make(Function create, lt::Status (*destroy)(Object*), const Product& product,
                                       Args... args) {
  Object* object = nullptr;
  check(create(&object, args...), "making a descriptor", product);
  return Owned<Object>(object, {destroy});
}

CublasLt::Product CublasLt::product_of(const MatmulArgs& args, std::int32_t n, const void* out, std::int64_t out_stride,
                                       cudaDataType out_type) {
  return {args.m, n, args.k, args.in_stride, out_stride, out_type, alignment_of(args.in), alignment_of(out)};
}

/// The library's matrices lie column by column, so its product is that of the transposes: out^T [n, m] = W in^T, where
/// the weight, which it sees as [k, n], is transposed.
const CublasLt::Plan& CublasLt::plan_of(const Product& p) {
  if (const auto found = plans_.find(p); found != plans_.end()) return found->second;
  const auto rows = [](std::int64_t size) { return static_cast<std::uint64_t>(size); };
  const cudaDataType narrow = data_type(type_);
  const auto layout = [&](cudaDataType type, std::int64_t height, std::int64_t width, std::int64_t stride) {
    return make(library_.MatrixLayoutCreate, library_.MatrixLayoutDestroy, p, type, rows(height), rows(width), stride);
  };
  Plan plan{make(library_.MatmulDescCreate, library_.MatmulDescDestroy, p, lt::CUBLAS_COMPUTE_32F, CUDA_R_32F),
            layout(narrow, p.k, p.n, p.k),
            layout(narrow, p.k, p.m, p.in_stride),
            layout(p.out_type, p.n, p.m, p.out_stride),
            {}};
  const lt::Operation transposed = lt::CUBLAS_OP_T;
  check(
      library_.MatmulDescSetAttribute(plan.desc.get(), lt::CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
      "setting an attribute", p);

  const auto preference = make(library_.MatmulPreferenceCreate, library_.MatmulPreferenceDestroy, p);
  const auto prefer = [&](lt::PreferenceAttribute attribute, auto value) {
    check(library_.MatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
          "setting a preference", p);
  };
  prefer(lt::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{own_bytes_});
  prefer(lt::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, lt::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  prefer(lt::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kMostAlignment);
  prefer(lt::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.in_alignment);
  prefer(lt::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.out_alignment);
  prefer(lt::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.out_alignment);

  lt::HeuristicResult result{};
  int found = 0;
  lt::Status status =
      library_.MatmulAlgoGetHeuristic(handle_, plan.desc.get(), plan.weights.get(), plan.in.get(), plan.out.get(),
                                      plan.out.get(), preference.get(), 1, &result, &found);
  if (status == lt::CUBLAS_STATUS_SUCCESS && found > 0) status = result.state;
  if (status == lt::CUBLAS_STATUS_NOT_SUPPORTED || (status == lt::CUBLAS_STATUS_SUCCESS && found == 0))
    throw Unsupported(str("matmul ", text_of(p), ": ", name(), " has no algorithm for it on ", device_.name(),
                          "; leave cublas_lt off"));
  check(status, "cublasLtMatmulAlgoGetHeuristic", p);
  plan.algorithm = result.algorithm;
  return plans_.emplace(p, std::move(plan)).first->second;
}

void CublasLt::enqueue(const Plan& plan, const Product& product, const MatmulArgs& args, void* out, float beta) {
  const float alpha = 1.0f;
  check(library_.Matmul(handle_, plan.desc.get(), &alpha, args.weights, plan.weights.get(), args.in, plan.in.get(),
                        &beta, out, plan.out.get(), out, plan.out.get(), &plan.algorithm, memory_.data(), own_bytes_,
                        device_.stream()),
        "cublasLtMatmul", product);
}

void CublasLt::multiply(const MatmulArgs& args) {
  if (args.m == 0) return;
  if (plans_.size() >= kMostPlans) plans_.clear();
  take_memory();
  if (args.bias != nullptr || (args.finish != Kind::store && args.finish != Kind::accumulate))
    return finish_pieces(args);
  const Product product =
      product_of(args, args.n, args.out, args.out_stride, args.out_is_narrow ? data_type(type_) : CUDA_R_32F);
  enqueue(plan_of(product), product, args, args.out, args.finish == Kind::accumulate ? 1.0f : 0.0f);
}

/// As many rows at a time as there is room for their sums, all times nearly as many.
void CublasLt::finish_pieces(const MatmulArgs& args) {
  const std::int32_t columns = args.finish == Kind::gated ? 2 * args.n : args.n;
  const std::size_t row_bytes = static_cast<std::size_t>(columns) * sizeof(float);
  const auto most = static_cast<std::int64_t>(sums_bytes_ / row_bytes);
  if (most == 0)
    throw OutOfMemory(str("matmul: a row of ", columns, " sums for the epilogue takes ", row_bytes,
                          " bytes; with cublas_lt half of workspace is for them, ", sums_bytes_,
                          ": raise workspace to at least ", 2 * row_bytes + 2 * Arena::kAlignment));
  const auto pieces = static_cast<std::int32_t>((args.m + most - 1) / most);
  auto* sums = reinterpret_cast<float*>(memory_.data() + own_bytes_);
  struct Piece {
    MatmulArgs args;
    Product product;
    const Plan* plan;
  };
  std::vector<Piece> list;  // complete before anything is enqueued
  for (std::int32_t i = 0; i < pieces; ++i) {
    const auto first = [&](std::int32_t piece) {
      return static_cast<std::int32_t>(std::int64_t{args.m} * piece / pieces);
    };
    const MatmulArgs rows = rows_of(args, first(i), first(i + 1) - first(i));
    const Product product = product_of(rows, columns, sums, columns, CUDA_R_32F);
    list.push_back({rows, product, &plan_of(product)});
  }
  for (const Piece& piece : list) {
    enqueue(*piece.plan, piece.product, piece.args, sums, 0.0f);
    device_.check(launch_matmul_finish(piece.args, sums, type_, device_.stream()), "matmul");
  }
}

}  // namespace pagedcore::cuda
