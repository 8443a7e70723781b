// Copies: to equality, and nothing else touched.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "device_array.hpp"
#include "kernels/copy.hpp"

namespace pagedcore::cuda {
namespace {

using cuda_test::DeviceArray;
using Bytes = std::vector<std::byte>;

Bytes noise(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

std::vector<std::uint32_t> shuffled(std::uint32_t size, std::uint32_t seed) {
  std::vector<std::uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

TEST_CASE("copy-on-write copies, gathers and scatters of pieces of any size") {
  // Vectors of 16 bytes, of 4, single bytes; below, at and above what one block of threads moves.
  for (const std::size_t bytes : {1u, 4u, 16u, 100u, 1040u, 16384u, 16400u, 33001u}) {
    for (const bool gather : {false, true}) {
      for (const bool scatter : {false, true}) {
        if (bytes == 33001 && gather != scatter) continue;
        CAPTURE(bytes);
        CAPTURE(gather);
        CAPTURE(scatter);
        constexpr std::size_t kPlaces = 9, kCount = 4;
        const std::size_t src_stride = bytes + (bytes % 16 == 0 ? 32 : 5), dst_stride = bytes;
        const Bytes src = noise((kPlaces - 1) * src_stride + bytes, 1),
                    before = noise((kPlaces - 1) * dst_stride + bytes, 2);
        auto from = shuffled(kPlaces, 3), to = shuffled(kPlaces, 4);
        from.resize(kCount);
        from[1] = from[0];  // two pieces may come from one place
        to.resize(kCount);
        const DeviceArray<std::byte> device_src(src), device_dst(before);
        const DeviceArray<std::uint32_t> device_from(from), device_to(to);
        CopyArgs args;
        args.dst = device_dst.data();
        args.src = device_src.data();
        args.dst_stride = static_cast<std::int64_t>(dst_stride);
        args.src_stride = static_cast<std::int64_t>(src_stride);
        args.dst_index = scatter ? device_to.data() : nullptr;
        args.src_index = gather ? device_from.data() : nullptr;
        args.bytes = static_cast<std::int64_t>(bytes);
        args.count = kCount;
        cuda_test::check(launch_copy(args, nullptr));
        cuda_test::finish();
        Bytes expected = before;
        for (std::size_t i = 0; i < kCount; ++i)
          std::copy_n(&src[(gather ? from[i] : i) * src_stride], bytes, &expected[(scatter ? to[i] : i) * dst_stride]);
        CHECK(device_dst.download() == expected);
        CHECK(device_src.download() == src);
      }
    }
  }
}

// rule: cuda.offsets-are-64-bit
TEST_CASE("places further than 2^31 bytes away") {
  // The storage is too large to have: its base address is such that piece 3 lies in the memory there is.
  constexpr std::int64_t kStride = (std::int64_t{3} << 30) + 16, kBytes = 64;
  const Bytes src = noise(kBytes, 1), dst = noise(kBytes, 2);
  const DeviceArray<std::byte> device_src(src), device_dst(dst);
  const DeviceArray<std::uint32_t> place(std::vector<std::uint32_t>{3});
  const auto base = [](const DeviceArray<std::byte>& a) {
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(a.data()) - 3 * kStride);
  };
  cuda_test::check(launch_copy(
      {base(device_dst), base(device_src), kStride, kStride, place.data(), place.data(), kBytes, 1}, nullptr));
  cuda_test::finish();
  CHECK(device_dst.download() == src);
}

// rule: cuda.launchers-only-launch
TEST_CASE("nothing to copy launches nothing") {
  cuda_test::check(launch_copy({}, nullptr));
  cuda_test::finish();
}

}  // namespace
}  // namespace pagedcore::cuda
