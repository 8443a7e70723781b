// Rotary embedding, cache and attention over batches of sequences at different positions.
#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/checks.hpp"
#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

struct Sequence {
  std::int32_t context;  // tokens that are in the cache already
  std::int32_t rows;     // of the step
};

struct World {
  std::int32_t heads = 6, kv_heads = 2, head_dim = 64, block_size = 16;
  std::int32_t frequencies = 32;  // of the rotary embedding; 0: none
  float softcap = 0.0f;
  std::int32_t window = 0;
  bool bidirectional = false;
  bool alibi = false;
  bool sinks = false;
  DType kv = DType::f32;    // of keys and values on the device; f32: its compute type
  bool exact_kv = false;    // numbers that this type, with a scale for each head, holds exactly
  std::int32_t shared = 0;  // tokens, whole blocks, that all sequences have in the blocks of the first
  std::vector<Sequence> sequences{{0, 1}, {16, 1}, {0, 17}, {37, 6}, {129, 1}};

  std::int32_t q_cols() const { return heads * head_dim; }
  std::int32_t kv_cols() const { return kv_heads * head_dim; }
  std::int32_t qkv_cols() const { return q_cols() + 2 * kv_cols(); }
};

/// Cuts a head's numbers to what i8 or f8_e4m3 holds exactly with one scale for the head: a power of two, as one of the
/// numbers is the largest that there is.
void cut_to(std::span<float> head, DType type) {
  const float largest = type == DType::i8 ? 127.0f : 448.0f, scale = type == DType::i8 ? 0x1p-5f : 0x1p-7f;
  for (float& v : head) {
    const float q = std::clamp(v / scale, -largest, largest);
    if (type == DType::i8) {
      v = scale * std::nearbyint(q);
    } else {  // three bits behind the first; small ones are left out
      v = std::fabs(q) < 0x1p-6f ? 0.0f : scale * std::bit_cast<float>(std::bit_cast<std::uint32_t>(q) & 0xfff00000u);
    }
  }
  head[3] = largest * scale;
}

/// Of ALiBi, another for every head; of the first, none.
std::vector<float> slopes(std::int32_t heads) {
  std::vector<float> all;
  for (std::int32_t h = 0; h < heads; ++h) all.push_back(0.03f * static_cast<float>(h));
  return all;
}

/// The sequences of a world in a KV storage of two layers, with block tables of two layer groups, of which the second
/// is used. Slots that nobody wrote are NaN.
class Cache {
 public:
  static constexpr std::int32_t kLayer = 1, kLayerGroup = 1;

  Cache(Backend& b, const World& w) : b_(b), w_(w) {
    std::uint32_t blocks = 2;  // unused
    for (const Sequence& s : w.sequences) blocks += blocks_of(s);
    std::vector<BlockId> ids = first_blocks(blocks);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(5));
    for (const Sequence& s : w.sequences) {
      offsets_.push_back(static_cast<std::int32_t>(table_.size()));
      const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(table_.size());
      table_.insert(table_.end(), begin, begin + blocks_of(s));
      std::copy_n(table_.begin(), w.shared / w.block_size, table_.begin() + offsets_.back());
    }
    const bool narrow = w.kv != DType::f32 && b.compute_dtype() != DType::f32;
    kv_ = b.allocate_kv({2, w.kv_heads, w.head_dim, w.block_size, narrow ? w.kv : b.compute_dtype()}, blocks);
    const std::vector<std::byte> nothing(kv_->block_bytes(), std::byte{0xff});
    const std::vector<BlockId> all = first_blocks(blocks);
    b.swap_in(*kv_, all, std::vector<const std::byte*>(blocks, nothing.data()));
    b.synchronize();
    std::vector<float> inverse(static_cast<std::size_t>(w.frequencies));
    for (std::size_t i = 0; i < inverse.size(); ++i) {
      inverse[i] = std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(w.frequencies));
    }
    if (w.alibi) alibi_ = std::make_unique<Matrix>(b, DType::f32, 1, w.heads, slopes(w.heads));
    if (w.sinks) sinks_ = std::make_unique<Matrix>(b, DType::f32, 1, w.heads, normal_values(w.heads, 6));
    if (w.frequencies > 0) inv_freq_ = std::make_unique<Matrix>(b, DType::f32, 1, w.frequencies, inverse);
  }

  struct Range {
    std::size_t sequence;
    std::int32_t first, rows;  // positions
  };
  struct Result {
    std::vector<float> q, out;
  };
  /// Writes keys and values of the ranges, and attends.
  Result step(const std::vector<Range>& ranges, bool attend = true) {
    std::vector<TokenRange> list;
    std::vector<float> qkv;
    std::int32_t rows = 0;
    for (const Range& r : ranges) {
      list.push_back({rows, r.rows, r.first, offsets_[r.sequence]});
      rows += r.rows;
      for (std::int32_t p = r.first; p < r.first + r.rows; ++p) {
        auto row = normal_values(w_.qkv_cols(), static_cast<unsigned>(100'000 * r.sequence + p));
        if (w_.exact_kv) {
          for (auto head = row.begin() + w_.q_cols(); head != row.end(); head += w_.head_dim)
            cut_to({head, head + w_.head_dim}, w_.kv);
        }
        qkv.insert(qkv.end(), row.begin(), row.end());
      }
    }
    const std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    // The first layer group's tables are others.
    std::vector<BlockId> tables(table_.rbegin(), table_.rend());
    const std::vector<BlockId> second = reachable(ranges);
    tables.insert(tables.end(), second.begin(), second.end());
    const auto batch = b_.prepare({tokens, list, tables, 2}, w_.block_size);
    const Matrix in(b_, DType::f32, rows, w_.qkv_cols(), qkv), q(b_, b_.compute_dtype(), rows, w_.q_cols()),
        out(b_, b_.compute_dtype(), rows, w_.q_cols());
    const AttentionShape shape{w_.heads, w_.kv_heads, w_.head_dim, kLayerGroup};
    b_.rope_and_cache(q.tensor(), in.tensor(), *kv_, kLayer, *batch, shape,
                      {inv_freq_ ? &inv_freq_->tensor() : nullptr, inv_freq_ ? 1.25f : 1.0f});
    Result result{q.values(), {}};
    if (!attend) return result;
    const float scale = 1.0f / std::sqrt(static_cast<float>(w_.head_dim));
    b_.attention(out.tensor(), q.tensor(), *kv_, kLayer, *batch,
                 {shape, scale, w_.softcap, w_.window, w_.bidirectional, alibi_ ? &alibi_->tensor() : nullptr,
                  sinks_ ? &sinks_->tensor() : nullptr});
    result.out = out.values();
    return result;
  }

  void write_context() {
    std::vector<Range> ranges;
    for (std::size_t i = 0; i < w_.sequences.size(); ++i) {
      const std::int32_t first = i > 0 ? w_.shared : 0;  // the first sequence writes what all share
      if (w_.sequences[i].context > first) ranges.push_back({i, first, w_.sequences[i].context - first});
    }
    if (!ranges.empty()) step(ranges, false);
  }
  std::vector<Range> ragged() const {
    std::vector<Range> ranges;
    for (std::size_t i = 0; i < w_.sequences.size(); ++i) {
      ranges.push_back({i, w_.sequences[i].context, w_.sequences[i].rows});
    }
    return ranges;
  }
  /// From now on the sequence has a copy of its block at `position` in place of the block itself, of which only the
  /// slots before `position` are copied.
  void replace_block(std::size_t sequence, std::int32_t position) {
    auto& entry = table_[static_cast<std::size_t>(offsets_[sequence] + position / w_.block_size)];
    BlockId unused{0};
    while (std::ranges::find(table_, unused) != table_.end()) unused = BlockId{raw(unused) + 1};
    const BlockCopy copy{entry, unused, static_cast<std::uint32_t>(position % w_.block_size)};
    b_.copy_blocks(*kv_, {&copy, 1});
    entry = unused;
  }

 private:
  std::int32_t blocks_of(const Sequence& s) const { return (s.context + s.rows + w_.block_size - 1) / w_.block_size; }
  /// The second layer group's tables, without the blocks that no window of these ranges reaches.
  std::vector<BlockId> reachable(const std::vector<Range>& ranges) const {
    std::vector<BlockId> table = table_;
    for (const Range& r : ranges) {
      const std::int32_t behind = w_.window > 0 ? std::max(0, r.first - w_.window + 1) / w_.block_size : 0;
      const auto begin = table.begin() + offsets_[r.sequence];
      std::fill(begin, begin + behind, kNoBlock);
    }
    return table;
  }

  Backend& b_;
  World w_;
  std::vector<BlockId> table_;
  std::vector<std::int32_t> offsets_;  // of each sequence in it
  std::unique_ptr<KvStorage> kv_;
  std::unique_ptr<Matrix> inv_freq_, alibi_, sinks_;
};

std::vector<float> queries(Backend& b, const World& w) {
  Cache cache(b, w);
  return cache.step(cache.ragged(), false).q;
}

std::vector<float> outputs(Backend& b, const World& w) {
  Cache cache(b, w);
  cache.write_context();
  return cache.step(cache.ragged()).out;
}

std::vector<float> after_copy(Backend& b, const World& w) {
  Cache cache(b, w);
  cache.write_context();
  cache.replace_block(3, w.sequences[3].context);
  return cache.step(cache.ragged()).out;
}

constexpr std::int32_t kHeadDims[] = {64, 80, 96, 112, 128, 256};

World of_head_dim(std::int32_t dim, bool quick) {
  World w;
  w.head_dim = dim, w.frequencies = dim / 2;
  if (quick) w.heads = 2, w.kv_heads = 1, w.sequences = {{0, 19}, {37, 1}};
  return w;
}

/// Of every head size, one after the other, with numbers that need no rounding.
std::vector<float> exact_in(DType kv, Backend& b, bool quick) {
  std::vector<float> all;
  for (const std::int32_t dim : kHeadDims) {
    World w = of_head_dim(dim, quick);
    w.kv = kv, w.exact_kv = true, w.frequencies = 0;
    const std::vector<float> values = outputs(b, w);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// All rows of a step in one batch; and every row in a step of its own, one after the other.
Checks::Pair however_cut(Backend& b, const World& w) {
  Checks::Pair pair;
  Cache whole(b, w), cut(b, w);
  whole.write_context();
  cut.write_context();
  pair.got = encoded(whole.step(whole.ragged()).out, DType::f32);
  for (const Cache::Range& r : cut.ragged()) {
    for (std::int32_t i = 0; i < r.rows; ++i) {
      const auto row = encoded(cut.step({{r.sequence, r.first + i, 1}}).out, DType::f32);
      pair.want.insert(pair.want.end(), row.begin(), row.end());
    }
  }
  return pair;
}

}  // namespace

void check_attention(Checks& checks) {
  const DType narrow = checks.compute_dtype();
  const auto world = [](auto change) {
    World w;
    change(w);
    return w;
  };
  const World plain;
  const World partial = world([](World& w) { w.frequencies = 20; });
  const World bare = world([](World& w) { w.frequencies = 0; });
  const World capped = world([](World& w) { w.softcap = 2.0f, w.heads = 2; });
  const World windowed = world([](World& w) { w.window = 24, w.block_size = 8; });
  // Long enough for contexts to be cut, and for a window to begin and end inside of what a row sees.
  const World both_ways = world([](World& w) { w.bidirectional = true, w.sequences = {{0, 1}, {0, 17}, {0, 600}}; });
  const World both_windows = world([](World& w) {
    w.bidirectional = true, w.window = 24, w.block_size = 8, w.sequences = {{0, 5}, {0, 130}, {0, 600}};
  });
  const World sunk = world([](World& w) { w.sinks = true, w.window = 24, w.block_size = 8; });
  const World sloped = world([](World& w) { w.alibi = true, w.frequencies = 0; });
  const World multi = world([](World& w) { w.heads = 17, w.kv_heads = 1, w.sequences = {{0, 9}, {37, 1}}; });
  // Long enough for contexts, and what they have in common, to be cut into pieces.
  const World prefix = world([](World& w) {
    w.heads = 2, w.kv_heads = 1, w.shared = 512, w.sequences = {{600, 1}, {530, 3}, {512, 1}, {641, 1}};
  });
  const auto rotate = [&](const char* what, const World& w) {
    checks.compare("rope_and_cache", what, narrow, [&](Backend& b) { return queries(b, w); });
  };
  rotate("whole heads", plain);
  rotate("a part of every head", partial);
  rotate("no rotation", bare);
  const auto add = [&](const std::string& what, const World& w) {
    checks.compare("attention", what, narrow, [&](Backend& b) { return outputs(b, w); });
  };
  add("ragged batch", plain);
  add("soft cap, no grouped heads", capped);
  add("window, blocks behind it gone", windowed);
  const auto add_optional = [&](const char* what, const World& w) {
    checks.compare_optional("attention", what, tolerance_of(narrow), [&](Backend& b) { return outputs(b, w); });
  };
  add_optional("tokens behind a row", both_ways);
  add_optional("tokens behind a row, within a window", both_windows);
  add_optional("sinks, within a window", sunk);
  add("scores less by distance", sloped);
  add("many heads for one of keys and values", multi);
  add("a common beginning of 512 tokens", prefix);
  for (const std::int32_t dim : kHeadDims) {
    if (dim != plain.head_dim) add("heads of " + std::to_string(dim), of_head_dim(dim, checks.quick()));
  }
  if (!checks.quick()) {
    const World large = world([](World& w) {
      w.heads = 16, w.kv_heads = 4, w.head_dim = 128, w.frequencies = 64, w.block_size = 32;
      w.sequences = {{3000, 1}, {700, 40}, {0, 130}, {1025, 1}, {2047, 3}};
    });
    add("contexts up to 3,000 tokens", large);
  }
  checks.compare("copy_blocks", "a part of a block, read by attention", narrow,
                 [&](Backend& b) { return after_copy(b, plain); });
  if (narrow != DType::f32) {
    // i8 keeps a value to 1/254 of the largest of its row, about 3.5 of 64 unit-normal ones: 1.4e-2, on keys too.
    // f8_e4m3 keeps it to 1/16 of itself, 6.3e-2, and with keys probabilities move: together 1.1e-1 of the emulated
    // kernels. Numbers that need no rounding are held to what 8 bits are widened to, bf16.
    for (const auto& [kv, tolerance] : {std::pair{DType::i8, 4e-2}, std::pair{DType::f8_e4m3, 2e-1}}) {
      const std::string values = "keys and values as " + std::string(info(kv).name);
      const World small = world([kv = kv](World& w) { w.kv = kv; });
      checks.compare_optional("attention", values + ", rounded", tolerance,
                              [&](Backend& b) { return outputs(b, small); });
      checks.compare_optional("attention", values + ", exact, every head size", tolerance_of(DType::bf16),
                              [&](Backend& b) { return exact_in(kv, b, checks.quick()); });
    }
  }
  checks.exact("attention", "same bits however a sequence is cut", [&](Backend& b) { return however_cut(b, plain); });
}

}  // namespace pagedcore::selftest
