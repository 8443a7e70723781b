#include "attention/paged_world.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace cuda_test {
namespace {

std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

enum Kind : std::uint64_t { kKey = 1, kValue = 2, kQuery = 3 };
float element(std::uint64_t seed, Kind kind, int position, int head, int d) {
  return normal(mix(seed * 8 + kind) ^ (static_cast<std::uint64_t>(position) << 32) ^
                (static_cast<std::uint64_t>(head) << 16) ^ static_cast<std::uint64_t>(d));
}

float quantized_scale(const std::vector<float>& row, KvType type) {
  float largest = 0.0f;
  for (const float x : row) largest = std::max(largest, std::abs(x));
  std::uint32_t bits;
  const float exact = largest / quantized_max(type);
  std::memcpy(&bits, &exact, 4);
  bits = (bits + 0xffffu) & 0xffff0000u;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return scale;
}

}  // namespace

double to_double(ComputeType type, std::uint16_t bits) {
  if (type == ComputeType::f16) return __half2float(__half(__half_raw{bits}));
  return __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{bits}));
}
std::uint16_t to_bits(ComputeType type, float x) {
  if (type == ComputeType::f16) return static_cast<__half_raw>(__float2half_rn(x)).x;
  return static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(x)).x;
}

float normal(std::uint64_t key) {
  const double u = (static_cast<double>(mix(key) >> 11) + 0.5) * 0x1p-53,
               v = static_cast<double>(mix(~key) >> 11) * 0x1p-53;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

std::vector<std::uint32_t> blocks_from(int first, int length, int block_size) {
  std::vector<std::uint32_t> blocks;
  for (int i = 0; i * block_size < length; ++i) blocks.push_back(static_cast<std::uint32_t>(first + i));
  return blocks;
}

PagedWorld::PagedWorld(const WorldShape& shape) : shape_(shape) {
  if (shape_.scale == 0.0f) shape_.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
  cache_.assign(static_cast<std::size_t>(block_bytes()) * static_cast<std::size_t>(shape_.num_blocks), std::byte{0xff});
}

int PagedWorld::add(int length, std::vector<std::uint32_t> blocks, std::uint64_t seed) {
  sequences_.push_back({length, std::move(blocks), std::vector<std::uint64_t>(static_cast<std::size_t>(length), seed)});
  for (int p = 0; p < length; ++p) write(sequences_.back(), p);
  return static_cast<int>(sequences_.size()) - 1;
}

int PagedWorld::fork(int sequence, int from, int length, std::vector<std::uint32_t> own_blocks, std::uint64_t seed) {
  Sequence s = sequences_[static_cast<std::size_t>(sequence)];
  s.blocks.resize(static_cast<std::size_t>(from / shape_.block_size));
  s.blocks.insert(s.blocks.end(), own_blocks.begin(), own_blocks.end());
  s.seeds.resize(static_cast<std::size_t>(from));
  s.seeds.resize(static_cast<std::size_t>(length), seed);
  s.length = length;
  for (int p = from / shape_.block_size * shape_.block_size; p < length; ++p) write(s, p);
  sequences_.push_back(std::move(s));
  return static_cast<int>(sequences_.size()) - 1;
}

std::uint32_t PagedWorld::block_of(const Sequence& s, int position) const {
  return s.blocks[static_cast<std::size_t>(position / shape_.block_size)];
}

void PagedWorld::write(const Sequence& s, int position) {
  plain_.clear();
  const KvTile t = tile();
  const std::uint64_t seed = s.seeds[static_cast<std::size_t>(position)];
  for (int h = 0; h < shape_.num_kv_heads; ++h) {
    for (int v = 0; v < 2; ++v) {
      std::byte* tile_data =
          cache_.data() + std::int64_t{block_of(s, position)} * block_bytes() + (2 * h + v) * t.bytes();
      std::byte* to = tile_data + position % shape_.block_size * t.row_bytes();
      std::vector<float> row;
      for (int d = 0; d < shape_.head_dim; ++d) row.push_back(element(seed, v ? kValue : kKey, position, h, d));
      if (!is_quantized(t.type)) {
        for (int d = 0; d < shape_.head_dim; ++d) {
          const std::uint16_t bits = to_bits(shape_.compute, row[static_cast<std::size_t>(d)]);
          std::memcpy(to + 2 * d, &bits, 2);
        }
        continue;
      }
      const float scale = quantized_scale(row, t.type);
      std::memcpy(tile_data + t.scales_offset() + position % shape_.block_size * 4, &scale, 4);
      for (int d = 0; d < shape_.head_dim; ++d) {
        const float x = row[static_cast<std::size_t>(d)] / scale;
        to[kv_place(d)] = t.type == KvType::int8
                              ? static_cast<std::byte>(static_cast<std::int8_t>(std::nearbyint(x)))
                              : static_cast<std::byte>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
      }
    }
  }
}

void PagedWorld::break_token(int sequence, int position, int kv_head) {
  plain_.clear();
  const KvTile t = tile();
  std::byte* k = cache_.data() +
                 std::int64_t{block_of(sequences_[static_cast<std::size_t>(sequence)], position)} * block_bytes() +
                 2 * kv_head * t.bytes();
  const int slot = position % shape_.block_size;
  std::byte* rows[] = {k + slot * t.row_bytes(), k + t.bytes() + slot * t.row_bytes()};
  std::fill_n(rows[0], t.row_bytes(), is_quantized(t.type) ? std::byte{0} : std::byte{0xff});
  std::fill_n(rows[1], t.row_bytes(), std::byte{0});
  if (!is_quantized(t.type)) return;
  std::fill_n(k + t.scales_offset() + slot * 4, 4, std::byte{0xff});
  std::fill_n(k + t.bytes() + t.scales_offset() + slot * 4, 4, std::byte{0});
}

double PagedWorld::stored(int sequence, int position, int kv_head, int d, bool value) const {
  const KvTile t = tile();
  const Sequence& s = sequences_[static_cast<std::size_t>(sequence)];
  const std::byte* tile_data =
      cache_.data() + std::int64_t{block_of(s, position)} * block_bytes() + (2 * kv_head + value) * t.bytes();
  const std::byte* from = tile_data + position % shape_.block_size * t.row_bytes();
  if (!is_quantized(t.type)) {
    std::uint16_t bits;
    std::memcpy(&bits, from + 2 * d, 2);
    return to_double(shape_.compute, bits);
  }
  float scale;
  std::memcpy(&scale, tile_data + t.scales_offset() + position % shape_.block_size * 4, 4);
  const auto byte = static_cast<std::uint8_t>(from[kv_place(d)]);
  if (t.type == KvType::int8) return static_cast<std::int8_t>(byte) * static_cast<double>(scale);
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(byte, __NV_E4M3))) * static_cast<double>(scale);
}

std::uint16_t PagedWorld::query(int sequence, int position, int head, int d) const {
  const std::uint64_t seed = sequences_[static_cast<std::size_t>(sequence)].seeds[static_cast<std::size_t>(position)];
  return to_bits(shape_.compute, element(seed, kQuery, position, head, d));
}

const std::vector<double>& PagedWorld::plain(int sequence, int kv_head, bool value) const {
  std::vector<double>& rows = plain_[{sequence, kv_head, value}];
  if (!rows.empty()) return rows;
  for (int p = 0; p < sequences_[static_cast<std::size_t>(sequence)].length; ++p) {
    for (int d = 0; d < shape_.head_dim; ++d) rows.push_back(stored(sequence, p, kv_head, d, value));
  }
  return rows;
}

std::vector<double> PagedWorld::reference(int sequence, int position) const {
  std::vector<double> out;
  const int heads_per_kv_head = shape_.num_heads / shape_.num_kv_heads;
  const auto dim = static_cast<std::size_t>(shape_.head_dim);
  const int lowest = shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
  for (int h = 0; h < shape_.num_heads; ++h) {
    const auto &keys = plain(sequence, h / heads_per_kv_head, false),
               &values = plain(sequence, h / heads_per_kv_head, true);
    std::vector<double> q, scores;
    for (int d = 0; d < shape_.head_dim; ++d) q.push_back(to_double(shape_.compute, query(sequence, position, h, d)));
    for (int p = lowest; p <= position; ++p) {
      const double* key = &keys[static_cast<std::size_t>(p) * dim];
      const double x = std::inner_product(q.begin(), q.end(), key, 0.0) * shape_.scale;
      scores.push_back(shape_.softcap > 0 ? shape_.softcap * std::tanh(x / shape_.softcap) : x);
    }
    const double top = *std::ranges::max_element(scores);
    double sum = 0;
    std::vector<double> acc(dim);
    for (int p = lowest; p <= position; ++p) {
      const double e = std::exp(scores[static_cast<std::size_t>(p - lowest)] - top);
      sum += e;
      const double* value = &values[static_cast<std::size_t>(p) * dim];
      for (std::size_t d = 0; d < dim; ++d) acc[d] += e * value[d];
    }
    for (const double x : acc) out.push_back(x / sum);
  }
  return out;
}

PagedWorld::Batch PagedWorld::describe(std::span<const Rows> rows) const {
  Batch batch;
  for (const Rows& r : rows) {
    const Sequence& s = sequences_[static_cast<std::size_t>(r.sequence)];
    batch.ranges.push_back(
        {static_cast<int>(batch.positions.size()), r.count, r.first, static_cast<int>(batch.tables.size())});
    const int used = (r.first + r.count + shape_.block_size - 1) / shape_.block_size;
    for (int b = 0; b < used; ++b) {
      // Blocks that no row's window reaches have been freed.
      const bool reached = shape_.window == 0 || (b + 1) * shape_.block_size > r.first - shape_.window + 1;
      batch.tables.push_back(reached ? s.blocks[static_cast<std::size_t>(b)] : 0xffffffffu);
    }
    for (int i = 0; i < r.count; ++i) {
      batch.positions.push_back(r.first + i);
      batch.keys.push_back({r.sequence, r.first + i});
    }
  }
  return batch;
}

AttentionPlan PagedWorld::plan(std::span<const Rows> rows, const Cut& cut) const {
  const Batch batch = describe(rows);
  return plan_attention(batch.ranges, batch.tables,
                        {shape_.num_heads, shape_.num_kv_heads, shape_.head_dim, shape_.block_size, shape_.window,
                         cut.parallelism, cut.max_states});
}

std::map<std::pair<int, int>, Bits> PagedWorld::run(std::span<const Rows> rows, const Cut& cut) const {
  const Batch batch = describe(rows);
  const AttentionPlan p = plan(rows, cut);
  const auto width = static_cast<std::size_t>(shape_.num_heads * shape_.head_dim);
  const auto gap = static_cast<std::size_t>(shape_.row_gap);
  std::vector<std::uint16_t> q_host;
  for (const auto& [sequence, position] : batch.keys) {
    for (int h = 0; h < shape_.num_heads; ++h) {
      for (int d = 0; d < shape_.head_dim; ++d) q_host.push_back(query(sequence, position, h, d));
    }
    q_host.insert(q_host.end(), gap, 0xffff);  // between rows
  }
  const DeviceArray<std::uint16_t> q(q_host);
  const DeviceArray<std::uint16_t> out(q_host.size());
  const DeviceArray<std::byte> cache(cache_);
  const DeviceArray<std::uint32_t> tables(batch.tables);
  const DeviceArray<std::int32_t> positions(batch.positions), plan_rows(p.rows), row_states(p.row_states),
      split_rows(p.split_rows);
  const DeviceArray<AttentionItem> narrow(p.narrow), wide(p.wide);
  const DeviceArray<float> states(
      static_cast<std::size_t>(attention_state_bytes(p.num_states, shape_.num_heads, shape_.head_dim) / 4));

  AttentionArgs args;
  args.compute = shape_.compute;
  args.out = out.data(), args.q = q.data();
  args.out_stride = args.q_stride = static_cast<std::int64_t>(width + gap);
  args.kv = {outside_ ? outside_ : cache.data(), outside_ ? stride_ : block_bytes(), shape_.num_kv_heads, tile()};
  args.num_heads = shape_.num_heads;
  args.scale = shape_.scale, args.softcap = shape_.softcap, args.window = shape_.window;
  args.tables = tables.data(), args.positions = positions.data();
  args.rows = plan_rows.data(), args.row_states = row_states.data(), args.split_rows = split_rows.data();
  args.narrow = narrow.data(), args.wide = wide.data(), args.states = states.data();
  args.num_narrow = static_cast<int>(p.narrow.size()), args.num_wide = static_cast<int>(p.wide.size());
  args.num_split_rows = static_cast<int>(p.split_rows.size());
  check(launch_attention(args, nullptr));
  finish();

  const auto result = out.download();
  std::map<std::pair<int, int>, Bits> by_row;
  for (std::size_t r = 0; r < batch.keys.size(); ++r) {
    const auto from = result.begin() + static_cast<std::ptrdiff_t>(r * (width + gap));
    by_row[batch.keys[r]] = Bits(from, from + static_cast<std::ptrdiff_t>(width));
  }
  return by_row;
}

}  // namespace cuda_test
