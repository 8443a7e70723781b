#include "kernels/matmul_pack.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace pagedcore::cuda {
namespace {

std::uint16_t narrow(DType type, float x) {
  return type == DType::f16 ? std::bit_cast<std::uint16_t>(__float2half_rn(x))
                            : std::bit_cast<std::uint16_t>(__float2bfloat16_rn(x));
}

float widen(DType type, std::uint16_t x) {
  return type == DType::f16 ? __half2float(std::bit_cast<__half>(x))
                            : __bfloat162float(std::bit_cast<__nv_bfloat16>(x));
}

/// The scale as the device will have it: never 0, so that dividing by it is safe.
std::uint16_t narrow_scale(DType type, float scale) {
  const std::uint16_t bits = narrow(type, scale);
  return widen(type, bits) > 0.0f ? bits : narrow(type, 1.0f);
}

std::uint32_t nearest(float x, int low, int high) {
  return static_cast<std::uint32_t>(std::clamp(static_cast<int>(std::lrint(x)), low, high));
}

float largest_magnitude(std::span<const float> values) {
  float largest = 0.0f;
  for (const float x : values) largest = std::max(largest, std::abs(x));
  return largest;
}

class Packer {
 public:
  Packer(const PackSpec& spec, std::span<std::byte> weights, std::span<std::byte> scales)
      : spec_(spec), weights_(weights), scales_(scales) {}

  /// `place`: the row among the rows of all tiles; of a plain weight, among the matrix's.
  void put_row(std::int64_t place, std::span<const float> values) {
    switch (spec_.format) {
      case WeightFormat::native:
        put_leaves(place, values);
        return;
      case WeightFormat::int8_row: {
        const float largest = largest_magnitude(values), scale = largest > 0.0f ? largest / 127.0f : 1.0f;
        store(scales_, place / 16 * 16 + place % 8 * 2 + place % 16 / 8, scale);
        for (std::int64_t k = 0; k < spec_.k; ++k) put8(place, k, values[index(k)] / scale);
        return;
      }
      case WeightFormat::int8_group:
      case WeightFormat::int4_group:
        for (std::int64_t group = 0; group < spec_.scale_groups(); ++group) put_group(place, group, values);
        return;
      case WeightFormat::plain:
        for (std::int64_t k = 0; k < spec_.k; ++k)
          store(weights_, place * spec_.k + k, narrow(spec_.type, values[index(k)]));
        return;
    }
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  template <class T>
  static void store(std::span<std::byte> bytes, std::int64_t at, T value) {
    std::memcpy(&bytes[index(at) * sizeof value], &value, sizeof value);
  }
  std::byte* tile(std::int64_t place, std::int64_t k) const {
    return &weights_[index((place / kTileRows * spec_.groups() + k / kGroupK) * tile_bytes(spec_.format))];
  }
  static int row_in_tile(std::int64_t place) { return static_cast<int>(place % kTileRows); }
  static int column_in_tile(std::int64_t k) { return static_cast<int>(k % kGroupK); }

  /// Each leaf from a group of its own on.
  void put_leaves(std::int64_t place, std::span<const float> values) {
    MatmulLeaf before;
    for (std::size_t leaf = 0; leaf < std::max<std::size_t>(1, spec_.leaf_ends.size()); ++leaf) {
      const MatmulLeaf end = spec_.leaf_end(leaf);
      std::int64_t at = std::int64_t{before.group} * kGroupK;
      for (std::int64_t k = before.column; k < end.column; ++k, ++at)
        put16(place, at, narrow(spec_.type, values[index(k)]));
      before = end;
    }
  }
  void put16(std::int64_t place, std::int64_t k, std::uint16_t bits) {
    std::memcpy(tile(place, k) + 2 * tile_offset(row_in_tile(place), column_in_tile(k)), &bits, 2);
  }
  void put8(std::int64_t place, std::int64_t k, float scaled) {
    const std::uint32_t q = nearest(scaled + 128.0f, 1, 255);
    tile(place, k)[tile_offset8(row_in_tile(place), column_in_tile(k))] = static_cast<std::byte>(q);
  }
  void put4(std::int64_t place, std::int64_t k, std::uint32_t q) {
    std::byte* word = tile(place, k) + 4 * int4_word(row_in_tile(place), column_in_tile(k));
    std::uint32_t bits;
    std::memcpy(&bits, word, 4);
    bits |= q << int4_shift(row_in_tile(place), column_in_tile(k));
    std::memcpy(word, &bits, 4);
  }

  void put_group(std::int64_t place, std::int64_t group, std::span<const float> row) {
    const std::int64_t width = std::int64_t{spec_.k_groups_per_scale} * kGroupK, first = group * width;
    const auto values = row.subspan(index(first), index(std::min(width, spec_.k - first)));
    const std::int64_t at = (place / kTileRows * spec_.scale_groups() + group) * 8 + place % 8;  // pair of rows
    const std::int64_t half = place % 16 / 8;
    if (spec_.format == WeightFormat::int8_group) {
      const std::uint16_t scale = narrow_scale(spec_.type, largest_magnitude(values) / 127.0f);
      store(scales_, at * 2 + half, scale);
      for (std::size_t i = 0; i < values.size(); ++i)
        put8(place, first + static_cast<std::int64_t>(i), values[i] / widen(spec_.type, scale));
      return;
    }
    const float low = std::min(0.0f, *std::ranges::min_element(values));
    const float high = std::max(0.0f, *std::ranges::max_element(values));
    const std::uint16_t bits = narrow_scale(spec_.type, (high - low) / 15.0f);
    const float scale = widen(spec_.type, bits);
    const auto zero = static_cast<float>(nearest(-low / scale, 0, 15));
    const float magic = spec_.type == DType::f16 ? 1024.0f : 128.0f;  // Narrow<T>::kMagic
    store(scales_, at * 4 + half, bits);
    store(scales_, at * 4 + 2 + half, narrow(spec_.type, magic + zero));
    for (std::size_t i = 0; i < values.size(); ++i)
      put4(place, first + static_cast<std::int64_t>(i), nearest(values[i] / scale + zero, 0, 15));
    // What lies past k is multiplied by inputs of zero, but has to be finite: 0 - zero is.
  }

  const PackSpec& spec_;
  std::span<std::byte> weights_, scales_;
};

}  // namespace

std::size_t PackSpec::scale_bytes() const noexcept {
  const auto rows = static_cast<std::size_t>(tiles() * kTileRows), groups = static_cast<std::size_t>(scale_groups());
  switch (format) {
    case WeightFormat::native:
    case WeightFormat::plain:
      return 0;
    case WeightFormat::int8_row:
      return rows * sizeof(float);
    case WeightFormat::int8_group:
      return rows * groups * 2;
    case WeightFormat::int4_group:
      return rows * groups * 4;
  }
  return 0;
}

void pack_matrix(const PackSpec& spec, const RowSource& rows, std::span<std::byte> weights, std::span<std::byte> scales,
                 const Parallel& parallel) {
  std::ranges::fill(weights, std::byte{0});
  std::ranges::fill(scales, std::byte{0});
  if (spec.format == WeightFormat::native && spec.leaf_ends.size() > 1) {
    for (std::size_t leaf = 0; leaf < spec.leaf_ends.size(); ++leaf) {
      const MatmulLeaf end = spec.leaf_end(leaf);
      std::memcpy(&weights[spec.tile_bytes_of_all() + leaf * sizeof end], &end, sizeof end);
    }
  }
  // A tile's rows share words, and tiles share nothing. The tile of a gated pair has 8 rows of either matrix.
  const bool gated = spec.kind == PackKind::gated;
  const std::int64_t height = gated ? kTileRows / 2 : kTileRows;
  parallel(spec.tiles(), [&](std::int64_t tile) {
    Packer packer(spec, weights, scales);
    std::vector<float> values(static_cast<std::size_t>(spec.k));
    const auto put = [&](std::int64_t row, std::int64_t place) {
      rows(row, values);
      packer.put_row(spec.format == WeightFormat::plain ? row : place, values);
    };
    for (std::int64_t row = tile * height; row < std::min(spec.n, (tile + 1) * height); ++row) {
      put(row, gated ? gated_row(row, 0) : stacked_row(row));
      if (gated) put(spec.n + row, gated_row(row, 1));
    }
  });
}

}  // namespace pagedcore::cuda
