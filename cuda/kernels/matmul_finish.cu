#include "kernels/matmul_finish.cuh"
#include "kernels/weight_dispatch.hpp"

namespace pagedcore::cuda {

cudaError_t launch_matmul_finish(const MatmulArgs& args, const float* sums, DType type, cudaStream_t stream) {
  if (args.m == 0) return cudaSuccess;
  constexpr int kPairsOfThread = 4, kMostParts = 1024;
  const int pairs = args.finish == Epilogue::Kind::gated ? args.n : (args.n + 1) / 2;
  const int parts = (pairs + kFinishThreads * kPairsOfThread - 1) / (kFinishThreads * kPairsOfThread);
  const dim3 grid(args.m, parts < kMostParts ? parts : kMostParts);
  return dispatch_type(type, [&]<class T>() {
    PC_LAUNCH((matmul_finish<T>), grid, dim3(kFinishThreads), 0, stream, args, sums);
    return cudaGetLastError();
  });
}

}  // namespace pagedcore::cuda
