#include "backend/swapper.hpp"

#include <algorithm>
#include <cstring>

#include "base/text.hpp"
#include "kernels/copy.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

/// On the device, in the order of the piece.
DeviceMemory indices_of(Device& device, Staging& staging, std::span<const BlockId> blocks) {
  std::vector<std::uint32_t> ids;
  for (const BlockId block : blocks) ids.push_back(raw(block));
  ArrayUpload arrays;
  arrays.add<std::uint32_t>(ids);
  return arrays.send(device, staging);
}

}  // namespace

Swapper::Swapper(Device& device, Staging& staging, std::size_t piece_bytes)
    : device_(device), staging_(staging), piece_bytes_(piece_bytes) {}

Swapper::~Swapper() {
  // A transfer may have begun whose piece was never marked busy.
  if (stream_ != nullptr) cudaStreamSynchronize(stream_->get());
  release_buffers();
}

void Swapper::release_buffers() noexcept {
  for (PieceBuffer& buffer : buffers_) {
    if (buffer.busy) cudaEventSynchronize(buffer.free->get());
    if (buffer.pinned != nullptr) cudaFreeHost(buffer.pinned);
    buffer = PieceBuffer{};
  }
  buffer_bytes_ = 0;
}

void Swapper::make_buffers(std::size_t block_bytes) {
  const std::size_t bytes = std::max(piece_bytes_, block_bytes);
  if (buffer_bytes_ >= bytes) return;
  finish();
  release_buffers();
  if (stream_ == nullptr) stream_ = std::make_unique<Stream>(device_);
  for (PieceBuffer& buffer : buffers_) {
    buffer.device = DeviceMemory(device_, bytes);
    void* memory = nullptr;
    const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      throw OutOfMemory(str("cannot allocate 2 x ", bytes,
                            " bytes of pinned host memory to swap blocks through; raise the "
                            "limit of locked memory (ulimit -l) or free memory"));
    }
    device_.check(error, "allocating pinned host memory");
    buffer.pinned = static_cast<std::byte*>(memory);
    buffer.moved = std::make_unique<Event>(device_);
    buffer.free = std::make_unique<Event>(device_);
  }
  // The memory is the arena's: operations of the stream that computes may be in flight that use it for what had it
  // before.
  buffers_[0].moved->record(device_, device_.stream());
  device_.check(cudaStreamWaitEvent(stream_->get(), buffers_[0].moved->get(), 0), "waiting for an event");
  buffer_bytes_ = bytes;
}

template <typename Move>
void Swapper::for_each_piece(std::size_t blocks, std::size_t block_bytes, const Move& move) {
  if (blocks == 0) return;
  make_buffers(block_bytes);
  const std::size_t most = buffer_bytes_ / block_bytes;
  for (std::size_t first = 0; first < blocks; first += most) {
    PieceBuffer& buffer = buffers_[next_];
    next_ = (next_ + 1) % buffers_.size();
    finish(buffer);
    buffer.block_bytes = block_bytes;
    move(buffer, first, std::min(most, blocks - first));
    buffer.busy = true;
  }
}

void Swapper::out(const CudaKvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst) {
  const std::size_t bytes = kv.block_bytes();
  for_each_piece(blocks.size(), bytes, [&](PieceBuffer& buffer, std::size_t first, std::size_t count) {
    const DeviceMemory indices = indices_of(device_, staging_, blocks.subspan(first, count));
    CopyArgs args;
    args.dst = buffer.device.data();
    args.src = kv.data();
    args.dst_stride = args.src_stride = args.bytes = static_cast<std::int64_t>(bytes);
    args.src_index = reinterpret_cast<const std::uint32_t*>(indices.data());
    args.count = static_cast<std::int32_t>(count);
    device_.check(launch_copy(args, device_.stream()), "gathering blocks");
    buffer.moved->record(device_, device_.stream());
    device_.check(cudaStreamWaitEvent(stream_->get(), buffer.moved->get(), 0), "waiting for an event");
    device_.check(
        cudaMemcpyAsync(buffer.pinned, buffer.device.data(), count * bytes, cudaMemcpyDeviceToHost, stream_->get()),
        "swapping out");
    buffer.free->record(device_, stream_->get());
    buffer.targets.assign(dst.begin() + static_cast<std::ptrdiff_t>(first),
                          dst.begin() + static_cast<std::ptrdiff_t>(first + count));
  });
}

void Swapper::in(const CudaKvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src) {
  const std::size_t bytes = kv.block_bytes();
  for_each_piece(blocks.size(), bytes, [&](PieceBuffer& buffer, std::size_t first, std::size_t count) {
    // First, as it may fail: nothing may read the buffer's memory then.
    const DeviceMemory indices = indices_of(device_, staging_, blocks.subspan(first, count));
    for (std::size_t i = 0; i < count; ++i) std::memcpy(buffer.pinned + i * bytes, src[first + i], bytes);
    device_.check(
        cudaMemcpyAsync(buffer.device.data(), buffer.pinned, count * bytes, cudaMemcpyHostToDevice, stream_->get()),
        "swapping in");
    buffer.moved->record(device_, stream_->get());
    device_.check(cudaStreamWaitEvent(device_.stream(), buffer.moved->get(), 0), "waiting for an event");
    CopyArgs args;
    args.dst = kv.data();
    args.src = buffer.device.data();
    args.dst_stride = args.src_stride = args.bytes = static_cast<std::int64_t>(bytes);
    args.dst_index = reinterpret_cast<const std::uint32_t*>(indices.data());
    args.count = static_cast<std::int32_t>(count);
    device_.check(launch_copy(args, device_.stream()), "scattering blocks");
    buffer.free->record(device_, device_.stream());
  });
}

void Swapper::finish(PieceBuffer& buffer) {
  if (!buffer.busy) return;
  device_.check(cudaEventSynchronize(buffer.free->get()), "waiting for a swap");
  for (std::size_t i = 0; i < buffer.targets.size(); ++i) {
    std::memcpy(buffer.targets[i], buffer.pinned + i * buffer.block_bytes, buffer.block_bytes);
  }
  buffer.targets.clear();
  buffer.busy = false;
}

void Swapper::finish() {
  for (std::size_t i = 0; i < buffers_.size(); ++i) finish(buffers_[(next_ + i) % buffers_.size()]);
}

}  // namespace pagedcore::cuda
