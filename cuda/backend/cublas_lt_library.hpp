// The part of cuBLASLt that we use. The library is opened when a backend asks for it, so building needs neither its
// header nor the library. Names and numbers are those of cublasLt.h and cublas_api.h of 13.10.
#pragma once

#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace pagedcore::cuda::lt {

enum Status : int {  // cublasStatus_t
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum ComputeMode : int { CUBLAS_COMPUTE_32F = 68 };  // cublasComputeType_t: products and sums in f32
enum Operation : std::int32_t { CUBLAS_OP_T = 1 };   // cublasOperation_t; 0, N, is what a descriptor begins with
enum ReductionScheme : std::uint32_t { CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2 };  // partial sums stay f32
enum DescAttribute : int { CUBLASLT_MATMUL_DESC_TRANSA = 3 };                         // an Operation
enum PreferenceAttribute : int {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,    // uint64_t; all others uint32_t
  CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,  // of ReductionScheme
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};

struct Algorithm {  // cublasLtMatmulAlgo_t
  std::uint64_t data[8];
};
struct HeuristicResult {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96);

using Handle = struct HandleObject*;          // cublasLtHandle_t
using Desc = struct DescObject*;              // cublasLtMatmulDesc_t
using Layout = struct LayoutObject*;          // cublasLtMatrixLayout_t
using Preference = struct PreferenceObject*;  // cublasLtMatmulPreference_t

/// The library's functions, by their names without cublasLt.
struct Library {
  std::size_t (*GetVersion)();  // 10000 major + 100 minor + patch
  const char* (*GetStatusName)(Status);
  Status (*Create)(Handle*);
  Status (*Destroy)(Handle);
  Status (*MatmulDescCreate)(Desc*, ComputeMode, cudaDataType_t scale);
  Status (*MatmulDescDestroy)(Desc);
  Status (*MatmulDescSetAttribute)(Desc, DescAttribute, const void*, std::size_t bytes);
  Status (*MatrixLayoutCreate)(Layout*, cudaDataType, std::uint64_t rows, std::uint64_t cols, std::int64_t ld);
  Status (*MatrixLayoutDestroy)(Layout);
  Status (*MatmulPreferenceCreate)(Preference*);
  Status (*MatmulPreferenceDestroy)(Preference);
  Status (*MatmulPreferenceSetAttribute)(Preference, PreferenceAttribute, const void*, std::size_t bytes);
  Status (*MatmulAlgoGetHeuristic)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, Preference, int wanted,
                                   HeuristicResult*, int* found);
  /// d = alpha op(a) op(b) + beta c, of matrices that lie column by column.
  Status (*Matmul)(Handle, Desc, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta,
                   const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace, std::size_t bytes,
                   cudaStream_t);

  std::string version() const;  // "13.1.0"
};

/// Opens the file that PAGEDCORE_CUBLASLT names, else the first of libcublasLt.so.13, .so.12 and .so that the loader
/// finds. It stays open. Throws Unsupported, with what was tried and the remedy, where there is none, one lacks a
/// function or is older than 12.0.
Library open_library();

}  // namespace pagedcore::cuda::lt
