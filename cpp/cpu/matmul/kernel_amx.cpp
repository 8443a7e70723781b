// bf16 tiles of Intel AMX: 32 rows x 32 columns in four accumulator tiles, 32 consecutive k at a time. TDPBF16PS sums
// the k of an output in order and treats rows independently, so every row count, one included, gives a row the same
// bits. Where a leaf of k ends, its sums join those of the leaves before it (panel_kernel.hpp has the order).
//
// Order of the loops, outside in:
//   kSuperRows rows        so that the partial sums stay in L2
//     groups of panels     a unit, that is, a chunk of k of a group's panels, stays in L2 while all rows pass over it
//       chunks of k        so that 32 rows of inputs stay in L1; sums go to memory in between, in f32, which is exact.
//                          A chunk is whole leaves, or a part of one
//         blocks of 32 rows
//           panels
// What the vector units do to finished sums, and the fetching of the next unit, runs in the shadow of the tile
// products.
#include "cpu/matmul/simd_avx512.hpp"
//
#include <immintrin.h>

#include <cstring>

#include "cpu/matmul/epilogue.hpp"

namespace pagedcore::cpu {
namespace {

using std::int64_t;
using std::uint16_t;

constexpr int kTileRows = 16, kBlockRows = 2 * kTileRows;
constexpr int kStep = 32;  // k of a tile
constexpr int kPanelColumns = 2 * Simd::lanes;
constexpr int64_t kLine = 64;
constexpr int64_t kRowBytes = kPanelColumns * 4;  // of a panel (two k of every column) and of a block of sums
constexpr int64_t kStepBytes = kStep / 2 * kRowBytes;
constexpr int64_t kChunkSteps = 18;      // 32 rows x 18 steps x 64 bytes = 36 KiB of the 48 KiB of L1
constexpr int64_t kWholeLeafSteps = 22;  // 44 KiB: better than to cut a leaf
constexpr int64_t kUnitBytes = 128 << 10;
constexpr int64_t kSuperRows = 512;
constexpr int64_t kSumsBytes = kBlockRows * kRowBytes;
constexpr int64_t kTailBytes = kBlockRows * kStep * 2;
constexpr int64_t kAheadSteps = 4;  // where weights come from memory while they are used

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
};

/// GCC's tile intrinsics do not say what memory they read. This does: whatever `p` points at is written before them.
inline void about_to_read(const void* p) { __asm__ volatile("" ::"r"(p) : "memory"); }

/// Tiles 0..3: sums [row tile][column tile]; 4, 5: inputs; 6, 7: weights.
void configure_tiles(int input_rows) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = static_cast<std::uint8_t>(i < 6 ? input_rows : 16);
  }
  about_to_read(&config);
  _tile_loadconfig(&config);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

/// A leaf in steps, and its first column of k.
struct Leaf {
  int64_t first_step, end_step, first_k, k;

  Leaf(const MatmulArgs& a, int64_t i)
      : first_step(i == 0 ? 0 : a.leaves[i - 1].padded_end / kStep),
        end_step(a.leaves[i].padded_end / kStep),
        first_k(i == 0 ? 0 : a.leaves[i - 1].k_end),
        k(a.leaves[i].k_end - first_k) {}
  bool ragged() const { return k % kStep != 0; }
};

/// How many steps the chunk from `step` on, in leaf `leaf`, has.
int64_t chunk_at(const MatmulArgs& a, int64_t leaf, int64_t step) {
  const int64_t left = Leaf(a, leaf).end_step - step;
  if (left > kWholeLeafSteps) return ceil_div(left, ceil_div(left, kChunkSteps));
  int64_t end = step + left;
  while (++leaf < a.num_leaves && Leaf(a, leaf).end_step - step <= kChunkSteps) end = Leaf(a, leaf).end_step;
  return end - step;
}

/// How one call is cut.
struct Blocking {
  int64_t steps, longest = 0, group_panels, super_blocks;
  bool one_chunk;
  int64_t levels = 0;   // of sums that wait for later leaves
  bool ragged = false;  // some leaf ends within a step

  explicit Blocking(const MatmulArgs& a) {
    const int64_t blocks = ceil_div(a.m, kBlockRows);
    super_blocks = min(blocks, kSuperRows / kBlockRows);
    steps = a.k_padded / kStep;
    int64_t leaf = 0;
    for (int64_t step = 0, chunk; step < steps; step += chunk) {
      while (Leaf(a, leaf).end_step <= step) ++leaf;
      chunk = chunk_at(a, leaf, step);
      if (chunk > longest) longest = chunk;
    }
    one_chunk = blocks == 1 || longest == steps;
    if (one_chunk) longest = steps;
    group_panels = kUnitBytes / (longest * kStepBytes);
    if (group_panels < 1) group_panels = 1;
    for (int64_t waiting = a.num_leaves - 1; waiting > 0; waiting /= 2) ++levels;
    for (int64_t i = 0; i < a.num_leaves; ++i) ragged = ragged || Leaf(a, i).ragged();
  }
  /// Blocks of sums that wait, of a panel and 32 rows: of a leaf that the next chunk goes on with, and of whole leaves.
  int64_t waiting() const { return one_chunk ? levels : 1 + levels; }
  int64_t waiting_bytes() const { return (one_chunk ? 1 : super_blocks * group_panels) * waiting() * kSumsBytes; }
  int64_t tail_bytes(const MatmulArgs& a) const { return ragged ? a.num_leaves * kTailBytes : 0; }
};

int64_t scratch_bytes(const MatmulArgs& a) {
  const Blocking cut(a);
  return cut.waiting_bytes() + cut.tail_bytes(a);
}

/// Block `i` of some that lie one after another.
inline float* block_at(float* sums, int64_t i) { return sums + i * kBlockRows * kPanelColumns; }

/// Sums of a leaf of one block that join those of leaves before it and, after the last leaf, go through the epilogue: a
/// few rows at a time.
struct Pending {
  const MatmulArgs& args;
  float* sums = nullptr;     // of row `row`
  float* waiting = nullptr;  // of row `row`, of the lowest level; the next is a block further
  int64_t leaf = 0, row = 0, panel = 0;
  int rows = 0;

  void finish(int count) {
    if (rows == 0) return;
    if (count > rows) count = rows;
    const bool last = leaf + 1 == args.num_leaves;
    if (args.finish == Finish::leaf_sums) {
      add_leaf(args, row, count, leaf, sums);
    } else {
      if (args.num_leaves > 1) take_leaf(count, last);
      if (last) finish_tile(args, row, count, panel, sums);
    }
    row += count;
    rows -= count;
    sums += count * kPanelColumns;
    if (args.num_leaves > 1) waiting += count * kPanelColumns;
  }

 private:
  void take_leaf(int count, bool last) {
    for (int64_t at = 0; at < count * kPanelColumns; at += Simd::lanes) {
      Simd::F sum = Simd::load(sums + at);
      int64_t level = 0;
      for (int64_t others = leaf; others != 0 && (last || others % 2 != 0); others /= 2, ++level)
        if (others % 2 != 0) sum = Simd::add(Simd::load(block_at(waiting, level) + at), sum);
      Simd::store((last ? sums : block_at(waiting, level)) + at, sum);
    }
  }
};

/// Cache lines to ask for, a few at every step.
struct Fetch {
  const unsigned char* next = nullptr;
  int64_t lines_per_step = 0;

  void step() {
    for (int64_t i = 0; i < lines_per_step; ++i, next += kLine) __builtin_prefetch(next, 0, 2);
  }
};

/// 32 rows of inputs (16 where `second` is 0): the first tile's, and the second's `second` rows further.
struct Inputs {
  const uint16_t* at;
  int64_t stride;  // bytes
  int64_t second;

  const unsigned char* second_tile() const { return reinterpret_cast<const unsigned char*>(at) + second * stride; }
};

inline void load_sums(bool two, const float* sums, int64_t second) {
  if (sums == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    if (!two) return;
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kRowBytes);
    _tile_loadd(1, sums + Simd::lanes, kRowBytes);
    if (!two) return;
    sums += second * kPanelColumns;
    _tile_loadd(2, sums, kRowBytes);
    _tile_loadd(3, sums + Simd::lanes, kRowBytes);
  }
}

inline void store_sums(bool two, float* sums, int64_t second) {
  _tile_stored(0, sums, kRowBytes);
  _tile_stored(1, sums + Simd::lanes, kRowBytes);
  if (!two) return;
  sums += second * kPanelColumns;
  _tile_stored(2, sums, kRowBytes);
  _tile_stored(3, sums + Simd::lanes, kRowBytes);
}

/// sums += inputs x weights over `steps` steps. Weights are loaded with the hint that spares L1 for the inputs, which
/// the next panel needs again.
template <bool Two>
void multiply(const Inputs& inputs, const unsigned char* w, int64_t steps, Fetch& fetch, Pending& pending,
              int finish_rows) {
  const unsigned char* in0 = reinterpret_cast<const unsigned char*>(inputs.at);
  const unsigned char* in1 = inputs.second_tile();
  for (int64_t s = 0; s < steps; ++s, in0 += kStep * 2, in1 += kStep * 2, w += kStepBytes) {
    fetch.step();
    _tile_loadd(4, in0, inputs.stride);
    _tile_stream_loadd(6, w, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, w + kLine, kRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (Two) {
      _tile_loadd(5, in1, inputs.stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    pending.finish(finish_rows);
  }
}

/// A chunk of k of a group of panels.
struct Unit {
  int64_t first_panel, end_panel;
  int64_t first_leaf, first_step, steps;
  int64_t to_next;      // bytes from a panel's weights here to those of the same panel of the next unit
  int64_t next_panels;  // how many that one has
};

/// Rows of a unit whose tiles start at rows `first` and `first + second`; sums of row `row` are `skip` rows into their
/// buffer.
struct Rows {
  int64_t row, rows, first, skip, second;
};

class Run {
 public:
  Run(const MatmulArgs& args, const MatmulBlock& block, void* scratch)
      : args_(args),
        block_(block),
        cut_(args),
        waiting_(static_cast<float*>(scratch)),
        tails_(reinterpret_cast<uint16_t*>(static_cast<unsigned char*>(scratch) + cut_.waiting_bytes())),
        pending_{args} {}

  void operator()() {
    configure_tiles(static_cast<int>(tile_rows_));
    const int64_t super_rows = cut_.super_blocks * kBlockRows;
    for (int64_t row = block_.first_row; row < block_.end_row; row += super_rows)
      super_block(row, min(row + super_rows, block_.end_row));
    pending_.finish(kBlockRows);
    _tile_release();  // the thread may be the host's: leave it without tile state to save and restore
  }

 private:
  void super_block(int64_t first_row, int64_t end_row) {
    bool fetched =
        false;  // the first unit's weights come as they are used, the others' while the one before is computed
    for (int64_t group = block_.first_panel; group < block_.end_panel; group += cut_.group_panels) {
      const int64_t group_end = min(group + cut_.group_panels, block_.end_panel);
      for (int64_t step = 0, leaf = 0, steps; step < cut_.steps; step += steps, fetched = true) {
        while (Leaf(args_, leaf).end_step <= step) ++leaf;
        steps = cut_.one_chunk ? cut_.steps : chunk_at(args_, leaf, step);
        Unit unit{group, group_end, leaf, step, steps, 0, 0};
        const bool last = step + steps == cut_.steps;
        unit.to_next = last ? cut_.group_panels * args_.panel_bytes - step * kStepBytes : steps * kStepBytes;
        unit.next_panels =
            (last ? min(group_end + cut_.group_panels, block_.end_panel) - group_end : group_end - group);
        for (int64_t row = first_row; row < end_row; row += kBlockRows)
          block_of_rows(unit, row, first_row, end_row, fetched);
      }
    }
  }

  /// A row tile always has all its rows: the last one moves up over rows already done where m is not a multiple of 16,
  /// and computes them again to the same bits. Only m < 16 configures shorter tiles.
  void block_of_rows(const Unit& unit, int64_t row, int64_t first_row, int64_t end_row, bool fetched) {
    const int64_t index = (row - first_row) / kBlockRows, blocks = ceil_div(end_row - first_row, kBlockRows);
    Rows rows{row, min(kBlockRows, end_row - row), row, 0, 0};
    if (rows.rows < tile_rows_) rows.first = end_row - tile_rows_;
    rows.skip = row - rows.first;
    if (rows.rows > tile_rows_) rows.second = rows.rows - tile_rows_;
    copy_tails(unit, rows);

    for (int64_t panel = unit.first_panel; panel < unit.end_panel; ++panel) {
      const unsigned char* w =
          static_cast<const unsigned char*>(args_.weights) + panel * args_.panel_bytes + unit.first_step * kStepBytes;
      Fetch fetch;
      if (!fetched && index == 0) {
        fetch = {w + kAheadSteps * kStepBytes, kStepBytes / kLine};
      } else if (blocks > 1 && panel - unit.first_panel < unit.next_panels) {
        // Every block fetches its share; while the first unit itself is being fetched, the first block has none.
        const int64_t spared = fetched ? 0 : 1;
        const int64_t lines = ceil_div(kStepBytes / kLine, blocks - spared);
        fetch = {w + unit.to_next + (index - spared) * unit.steps * lines * kLine, lines};
      }
      const int64_t place = cut_.one_chunk ? 0 : index * cut_.group_panels + panel - unit.first_panel;
      visit(unit, rows, panel, w, block_at(waiting_, place * cut_.waiting()), fetch);
    }
  }

  /// One panel's part of a unit, leaf by leaf. `waiting`: the sums of an open leaf, where there are chunks, then those
  /// of whole leaves.
  void visit(const Unit& unit, const Rows& rows, int64_t panel, const unsigned char* w, float* waiting, Fetch& fetch) {
    const int64_t end_step = unit.first_step + unit.steps;
    const bool two = rows.second != 0;
    float* whole = cut_.one_chunk || args_.num_leaves == 1 ? waiting : block_at(waiting, 1);
    int64_t leaf = unit.first_leaf;
    for (int64_t step = unit.first_step; step < end_step; ++leaf) {
      const Leaf at(args_, leaf);
      const int64_t steps = min(at.end_step, end_step) - step;
      load_sums(two, step == at.first_step ? nullptr : waiting, rows.second);
      multiply_leaf(rows, leaf, step, w, steps, fetch);
      step += steps;
      w += steps * kStepBytes;
      if (step < at.end_step) return store_sums(two, waiting, rows.second);
      float* sums = sums_[current_ ^= 1];  // those of the leaf before are finished: multiply_leaf saw to it
      store_sums(two, sums, rows.second);
      pending_.sums = sums + rows.skip * kPanelColumns;
      pending_.waiting = args_.num_leaves > 1 ? whole + rows.skip * kPanelColumns : nullptr;
      pending_.leaf = leaf;
      pending_.row = rows.row;
      pending_.panel = panel;
      pending_.rows = static_cast<int>(rows.rows);
    }
  }

  void multiply_leaf(const Rows& rows, int64_t leaf, int64_t step, const unsigned char* w, int64_t steps,
                     Fetch& fetch) {
    const Leaf at(args_, leaf);
    const int64_t k = at.first_k + (step - at.first_step) * kStep;
    const Inputs inputs{static_cast<const uint16_t*>(args_.in) + rows.first * args_.in_stride + k, args_.in_stride * 2,
                        rows.second};
    const int finish_rows = static_cast<int>(ceil_div(kBlockRows, steps));  // in these steps all that wait are finished
    const bool ragged = at.ragged() && step + steps == at.end_step;
    const int64_t whole = ragged ? steps - 1 : steps;
    const Inputs tail{tails_ + (ragged ? leaf : 0) * kBlockRows * kStep, kStep * 2, rows.second};
    if (rows.second != 0) {
      multiply<true>(inputs, w, whole, fetch, pending_, finish_rows);
      if (ragged) multiply<true>(tail, w + whole * kStepBytes, 1, fetch, pending_, finish_rows);
    } else {
      multiply<false>(inputs, w, whole, fetch, pending_, finish_rows);
      if (ragged) multiply<false>(tail, w + whole * kStepBytes, 1, fetch, pending_, finish_rows);
    }
  }

  /// The last k % 32 inputs of every leaf that ends in the unit, with zeros behind: what follows them in `in` may be
  /// another leaf's, or anything, or nothing.
  void copy_tails(const Unit& unit, const Rows& rows) {
    if (!cut_.ragged) return;
    const int64_t end_step = unit.first_step + unit.steps;
    for (int64_t leaf = unit.first_leaf; leaf < args_.num_leaves && Leaf(args_, leaf).end_step <= end_step; ++leaf) {
      const Leaf at(args_, leaf);
      const int64_t tail = at.k % kStep;
      if (tail == 0) continue;
      const uint16_t* in = static_cast<const uint16_t*>(args_.in) + at.first_k + at.k - tail;
      for (int64_t r = 0; r < rows.rows + rows.skip; ++r) {
        uint16_t* to = tails_ + (leaf * kBlockRows + r) * kStep;
        std::memcpy(to, in + (rows.first + r) * args_.in_stride, static_cast<std::size_t>(tail) * 2);
        std::memset(to + tail, 0, static_cast<std::size_t>(kStep - tail) * 2);
      }
    }
    about_to_read(tails_);
  }

  const MatmulArgs& args_;
  const MatmulBlock& block_;
  const Blocking cut_;
  const int64_t tile_rows_ = min(args_.m, kTileRows);
  float* waiting_;   // [blocks of a super block][panels of a group][Blocking::waiting()][32][32]; in one chunk, one
  uint16_t* tails_;  // [leaves][32][kStep]
  Pending pending_;
  int current_ = 0;
  alignas(64) float sums_[2][kBlockRows * kPanelColumns];  // of this leaf, and of the one before
};

void run_amx(const MatmulArgs& args, const MatmulBlock& block, void* scratch) { Run{args, block, scratch}(); }

}  // namespace

constinit const MatmulKernel amx_kernel{Simd::lanes, kBlockRows, kStep, int64_t{1} << 40, scratch_bytes, run_amx};

}  // namespace pagedcore::cpu
