#include "kernels/sampling.cuh"

namespace pagedcore::cuda {

cudaError_t launch_process_logits(const ProcessTask* tasks, std::int32_t count, std::int32_t vocab,
                                  cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  PC_LAUNCH(process_logits, dim3(count), dim3(kRowThreadsPerBlock), 0, stream, tasks, vocab);
  return cudaGetLastError();
}

cudaError_t launch_sample(const SampleTask* tasks, SampledToken* results, std::int32_t count, std::int32_t vocab,
                          cudaStream_t stream) {
  if (vocab < 1 || vocab > kMaxVocab) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  PC_LAUNCH(sample_rows, dim3(count), dim3(kRowThreadsPerBlock), 0, stream, tasks, results, vocab);
  return cudaGetLastError();
}

cudaError_t launch_logprobs(const LogprobTask* tasks, std::int32_t count, std::int32_t vocab, cudaStream_t stream) {
  if (vocab < 1 || vocab > kMaxVocab) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  PC_LAUNCH(row_logprobs, dim3(count), dim3(kRowThreadsPerBlock), 0, stream, tasks, vocab);
  return cudaGetLastError();
}

}  // namespace pagedcore::cuda
