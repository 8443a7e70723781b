#include "fake_cublas_lt.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <set>

using fake_lt::State;

namespace {

// As cublas_api.h and library_types.h number them; written apart from what is tested.
enum { success = 0, not_initialized = 1, invalid_value = 7, internal_error = 14, not_supported = 15 };
enum { r_32f = 0, r_16f = 2, r_16bf = 14, compute_32f = 68 };

struct Context {};
struct Desc {
  int compute, scale;
  std::int32_t transposed[2] = {0, 0};  // a, b
};
struct Layout {
  int type;
  std::uint64_t rows, cols;
  std::int64_t ld;
  bool operator==(const Layout&) const = default;
};
struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t reductions = 7;                       // in place, in the type of sums, in that of the output
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // of a, b, c, d
};
/// What is in a cublasLtMatmulAlgo_t of this library.
struct Chosen {
  std::uint64_t magic, workspace;
  std::uint32_t m, n, k, splits;
  std::uint32_t alignment[4];
  std::int32_t lda, ldb, ldd, out_type;
};
constexpr std::uint64_t kMagic = 0x5eedfa11;
struct Algorithm {
  std::uint64_t data[8];
};
static_assert(sizeof(Chosen) == sizeof(Algorithm));
struct Result {
  Algorithm algorithm;
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

State the_state;
std::set<const void*> alive;

int wrong(const char* what) {
  if (the_state.fault.empty()) the_state.fault = what;
  return invalid_value;
}
template <class T>
int create(T** out, T value) {
  *out = new T(value);
  alive.insert(*out);
  ++the_state.objects;
  return success;
}
template <class T>
int destroy(T* object) {
  if (alive.erase(object) == 0) return wrong("destroyed what is not there");
  delete object;
  --the_state.objects;
  return success;
}

float widen(int type, const void* values, std::size_t at) {
  if (type == r_16f) return __half2float(static_cast<const __half*>(values)[at]);
  if (type == r_16bf) return __bfloat162float(static_cast<const __nv_bfloat16*>(values)[at]);
  return static_cast<const float*>(values)[at];
}
void put(int type, void* values, std::size_t at, float x) {
  if (type == r_16f)
    static_cast<__half*>(values)[at] = __float2half_rn(x);
  else if (type == r_16bf)
    static_cast<__nv_bfloat16*>(values)[at] = __float2bfloat16_rn(x);
  else
    static_cast<float*>(values)[at] = x;
}

std::size_t bytes_of(const Layout& l) {
  const std::size_t elements = static_cast<std::size_t>(l.ld) * (l.cols - 1) + l.rows;
  return elements * (l.type == r_32f ? 4 : 2);
}

struct Product {
  Layout a, b, d;
  const void *weights, *in;
  void* out;
  float beta;
  Chosen chosen;
  float* partial;

  /// Of every k = piece modulo splits, in double, rounded to f32.
  float sum(std::size_t row, std::size_t output, std::uint32_t piece) const {
    double total = 0.0;
    for (std::size_t i = piece; i < a.rows; i += chosen.splits)
      total += double{widen(a.type, weights, output * static_cast<std::size_t>(a.ld) + i)} *
               double{widen(b.type, in, row * static_cast<std::size_t>(b.ld) + i)};
    return static_cast<float>(total);
  }
  void store(std::size_t row, std::size_t output, float total) const {
    const std::size_t at = row * static_cast<std::size_t>(d.ld) + output;
    put(d.type, out, at, beta != 0.0f ? total + beta * widen(d.type, out, at) : total);
  }
  template <class Each>
  void for_each(const Each& each) const {
    for (std::size_t row = 0; row < d.cols; ++row)
      for (std::size_t output = 0; output < d.rows; ++output) each(row, output);
  }
};

}  // namespace

#define FAKE_API extern "C" __attribute__((visibility("default")))

FAKE_API State* fake_cublas_lt_state() { return &the_state; }

FAKE_API std::size_t cublasLtGetVersion() { return the_state.version; }

FAKE_API const char* cublasLtGetStatusName(int status) {
  switch (status) {
    case not_initialized:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case invalid_value:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case internal_error:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case 3:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case 13:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
      return "CUBLAS_STATUS_UNKNOWN";
  }
}

FAKE_API int cublasLtCreate(Context** handle) {
  return the_state.create != success ? the_state.create : create(handle, Context{});
}
FAKE_API int cublasLtDestroy(Context* handle) { return destroy(handle); }

FAKE_API int cublasLtMatmulDescCreate(Desc** desc, int compute, int scale) {
  if (compute != compute_32f || scale != r_32f) return wrong("not computed in f32");
  return create(desc, Desc{compute, scale});
}
FAKE_API int cublasLtMatmulDescDestroy(Desc* desc) { return destroy(desc); }
FAKE_API int cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* value, std::size_t bytes) {
  if (!alive.contains(desc)) return wrong("attribute of no descriptor");
  if (attribute != 3 && attribute != 4) return wrong("an attribute of a descriptor that is unknown here");
  if (bytes != 4) return wrong("an attribute of the wrong size");
  std::memcpy(&desc->transposed[attribute - 3], value, 4);
  return success;
}

FAKE_API int cublasLtMatrixLayoutCreate(Layout** layout, int type, std::uint64_t rows, std::uint64_t cols,
                                        std::int64_t ld) {
  if (type != r_32f && type != r_16f && type != r_16bf) return wrong("a layout of another type");
  if (rows == 0 || cols == 0 || ld < static_cast<std::int64_t>(rows)) return wrong("a layout that is none");
  return create(layout, Layout{type, rows, cols, ld});
}
FAKE_API int cublasLtMatrixLayoutDestroy(Layout* layout) { return destroy(layout); }

FAKE_API int cublasLtMatmulPreferenceCreate(Preference** preference) { return create(preference, Preference{}); }
FAKE_API int cublasLtMatmulPreferenceDestroy(Preference* preference) { return destroy(preference); }
FAKE_API int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value,
                                                  std::size_t bytes) {
  if (!alive.contains(preference)) return wrong("attribute of no preference");
  if (attribute == 1) {
    if (bytes != 8) return wrong("a workspace of the wrong size");
    std::memcpy(&preference->workspace, value, 8);
    return success;
  }
  if (attribute == 3 && bytes == 4) {
    std::memcpy(&preference->reductions, value, 4);
    return success;
  }
  if (attribute < 5 || attribute > 8) return wrong("an attribute of a preference that is unknown here");
  if (bytes != 4) return wrong("an alignment of the wrong size");
  std::uint32_t& alignment = preference->alignment[attribute - 5];
  std::memcpy(&alignment, value, 4);
  if (alignment == 0 || alignment > 256 || (alignment & (alignment - 1)) != 0) return wrong("no alignment");
  return success;
}

FAKE_API int cublasLtMatmulAlgoGetHeuristic(Context* handle, Desc* desc, Layout* a, Layout* b, Layout* c, Layout* d,
                                            Preference* preference, int wanted, Result* results, int* found) {
  for (const void* object : std::initializer_list<const void*>{handle, desc, a, b, c, d, preference})
    if (!alive.contains(object)) return wrong("a heuristic of what is not there");
  if (wanted < 1) return wrong("no algorithm is wanted");
  if (desc->transposed[0] != 1 || desc->transposed[1] != 0) return wrong("not a product of T and N");
  if (a->type == r_32f || a->type != b->type || !(*c == *d) || (d->type != r_32f && d->type != a->type))
    return wrong("types that do not go together");
  if (a->rows != b->rows || a->cols != d->rows || b->cols != d->cols) return wrong("shapes that do not go together");
  if (preference->reductions != 2) return wrong("partial sums that may be rounded");
  ++the_state.heuristics;
  *found = std::min(the_state.algorithms, 1);
  if (the_state.heuristic != success || *found == 0) return the_state.heuristic;
  Chosen chosen{kMagic,
                0,
                static_cast<std::uint32_t>(d->cols),
                static_cast<std::uint32_t>(d->rows),
                static_cast<std::uint32_t>(a->rows),
                static_cast<std::uint32_t>(1 + (d->cols + d->rows) % 3),
                {},
                static_cast<std::int32_t>(a->ld),
                static_cast<std::int32_t>(b->ld),
                static_cast<std::int32_t>(d->ld),
                d->type};
  std::copy_n(preference->alignment, 4, chosen.alignment);
  const std::uint64_t partial = std::uint64_t{chosen.m} * chosen.n * 4 * chosen.splits;
  if (partial > preference->workspace)
    chosen.splits = 1;
  else if (chosen.splits > 1)
    chosen.workspace = partial;
  results[0] = {};
  std::memcpy(&results[0].algorithm, &chosen, sizeof chosen);
  results[0].workspace = chosen.workspace;
  return success;
}

#ifdef FAKE_LACKS_MATMUL
#define cublasLtMatmul cublasLtMatmulOfAnotherName
#endif
FAKE_API int cublasLtMatmul(Context* handle, Desc* desc, const void* alpha, const void* a, Layout* a_layout,
                            const void* b, Layout* b_layout, const void* beta, const void* c, Layout* c_layout, void* d,
                            Layout* d_layout, const Algorithm* algorithm, void* workspace, std::size_t bytes,
                            cudaStream_t stream) {
  const cuda_emu::Hooks& runtime = *the_state.runtime;
  for (const void* object : std::initializer_list<const void*>{handle, desc, a_layout, b_layout, c_layout, d_layout})
    if (!alive.contains(object)) return wrong("a product of what is not there");
  Product p{*a_layout, *b_layout, *d_layout, a, b, d, 0.0f, {}, static_cast<float*>(workspace)};
  if (c != d || !(*c_layout == *d_layout)) return wrong("a product that is not in place");
  float one = 0.0f;
  std::memcpy(&one, alpha, 4);
  std::memcpy(&p.beta, beta, 4);
  if (one != 1.0f || (p.beta != 0.0f && p.beta != 1.0f)) return wrong("factors other than 0 and 1");
  std::memcpy(&p.chosen, algorithm, sizeof p.chosen);
  const Chosen& chosen = p.chosen;
  if (chosen.magic != kMagic || chosen.m != p.d.cols || chosen.n != p.d.rows || chosen.k != p.a.rows ||
      chosen.lda != p.a.ld || chosen.ldb != p.b.ld || chosen.ldd != p.d.ld || chosen.out_type != p.d.type)
    return wrong("an algorithm that was chosen for another product");
  const void* addresses[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (reinterpret_cast<std::uintptr_t>(addresses[i]) % chosen.alignment[i] != 0)
      return wrong("less alignment than was said");
  if (!runtime.is_device_memory(a, bytes_of(p.a)) || !runtime.is_device_memory(b, bytes_of(p.b)) ||
      !runtime.is_device_memory(d, bytes_of(p.d)))
    return wrong("a matrix outside of device memory");
  if (chosen.workspace > bytes || (bytes > 0 && !runtime.is_device_memory(workspace, bytes)) ||
      reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0)
    return wrong("a workspace that is none");
  const auto in_workspace = [&](const void* matrix, const Layout& layout) {
    const auto* const begin = static_cast<const char*>(matrix);
    const auto* const own = static_cast<const char*>(workspace);
    return begin < own + bytes && own < begin + bytes_of(layout);
  };
  if (in_workspace(a, p.a) || in_workspace(b, p.b) || in_workspace(d, p.d))
    return wrong("a matrix in the library's own workspace");
  if (stream == nullptr) return wrong("the default stream");
  if (the_state.matmul != success) return the_state.matmul;
  if (the_state.refuses_capture && runtime.is_capturing(stream)) return internal_error;

  const auto signed_size = [](std::uint64_t size) { return static_cast<std::int64_t>(size); };
  the_state.workspace = bytes;
  the_state.calls.push_back({signed_size(p.d.cols), signed_size(p.d.rows), signed_size(p.a.rows), p.b.ld, p.d.ld,
                             p.d.type != r_32f, p.beta, static_cast<int>(chosen.splits)});
  if (chosen.splits == 1) {
    runtime.enqueue(stream, [p, workspace, bytes] {
      std::memset(workspace, 0xff, bytes);
      p.for_each([&](std::size_t row, std::size_t output) { p.store(row, output, p.sum(row, output, 0)); });
    });
    return success;
  }
  const auto place = [p](std::size_t row, std::size_t output, std::uint32_t piece) -> float& {
    return p.partial[(piece * p.d.cols + row) * p.d.rows + output];
  };
  runtime.enqueue(stream, [p, place, workspace, bytes] {
    std::memset(workspace, 0xff, bytes);
    for (std::uint32_t piece = 0; piece < p.chosen.splits; ++piece)
      p.for_each([&](std::size_t row, std::size_t output) { place(row, output, piece) = p.sum(row, output, piece); });
  });
  runtime.enqueue(stream, [p, place] {
    p.for_each([&](std::size_t row, std::size_t output) {
      float total = place(row, output, 0);
      for (std::uint32_t piece = 1; piece < p.chosen.splits; ++piece) total += place(row, output, piece);
      p.store(row, output, total);
    });
  });
  return success;
}
