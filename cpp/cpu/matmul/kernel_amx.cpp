// bf16 tiles of Intel AMX: 32 rows x 32 columns in four accumulator tiles, 32 consecutive k at a time. TDPBF16PS sums
// the k of an output in order and treats rows independently, so every row count, one included, gives a row the same
// bits.
//
// Order of the loops, outside in:
//   kSuperRows rows        so that the partial sums stay in L2
//     groups of panels     a unit, that is, kChunk k of a group's panels, stays in L2 while all rows pass over it
//       chunks of k        so that 32 rows of inputs stay in L1; sums go to memory in between, in f32, which is exact
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
constexpr int64_t kChunkSteps = 18;  // 32 rows x 18 steps x 64 bytes = 36 KiB of the 48 KiB of L1
constexpr int64_t kUnitBytes = 128 << 10;
constexpr int64_t kSuperRows = 512;
constexpr int64_t kSumsBytes = kBlockRows * kRowBytes;
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

/// How one call is cut.
struct Blocking {
  int64_t steps, chunk_steps, group_panels, super_blocks;

  explicit Blocking(const MatmulArgs& a) {
    const int64_t blocks = ceil_div(a.m, kBlockRows);
    super_blocks = min(blocks, kSuperRows / kBlockRows);
    steps = a.k_padded / kStep;
    chunk_steps = blocks == 1 ? steps : ceil_div(steps, ceil_div(steps, kChunkSteps));
    group_panels = kUnitBytes / (chunk_steps * kStepBytes);
    if (group_panels < 1) group_panels = 1;
  }
  int64_t partial_bytes() const { return chunk_steps == steps ? 0 : super_blocks * group_panels * kSumsBytes; }
};

int64_t scratch_bytes(const MatmulArgs& a) { return Blocking(a).partial_bytes(); }

/// Finished sums of one block, waiting for their epilogue, which runs a few rows at a time.
struct Pending {
  const MatmulArgs& args;
  const float* sums = nullptr;
  int64_t row = 0, panel = 0;
  int rows = 0;

  void finish(int count) {
    if (rows == 0) return;
    if (count > rows) count = rows;
    finish_tile(args, row, count, panel, sums);
    row += count;
    rows -= count;
    sums += count * kPanelColumns;
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
  int64_t first_step, steps;
  bool first_chunk, last_chunk;
  int64_t to_next;      // bytes from a panel's weights here to those of the same panel of the next unit
  int64_t next_panels;  // how many that one has
};

class Run {
 public:
  Run(const MatmulArgs& args, const MatmulBlock& block, void* scratch)
      : args_(args), block_(block), cut_(args), partial_(static_cast<float*>(scratch)), pending_{args} {}

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
      for (int64_t step = 0; step < cut_.steps; step += cut_.chunk_steps, fetched = true) {
        Unit unit{group, group_end, step, min(cut_.chunk_steps, cut_.steps - step), step == 0, false, 0, 0};
        unit.last_chunk = step + unit.steps == cut_.steps;
        unit.to_next =
            unit.last_chunk ? cut_.group_panels * args_.panel_bytes - step * kStepBytes : unit.steps * kStepBytes;
        unit.next_panels =
            (unit.last_chunk ? min(group_end + cut_.group_panels, block_.end_panel) - group_end : group_end - group);
        for (int64_t row = first_row; row < end_row; row += kBlockRows)
          block_of_rows(unit, row, first_row, end_row, fetched);
      }
    }
  }

  /// A row tile always has all its rows: the last one moves up over rows already done where m is not a multiple of 16,
  /// and computes them again to the same bits. Only m < 16 configures shorter tiles.
  void block_of_rows(const Unit& unit, int64_t row, int64_t first_row, int64_t end_row, bool fetched) {
    const int64_t index = (row - first_row) / kBlockRows, blocks = ceil_div(end_row - first_row, kBlockRows);
    const int64_t rows = min(kBlockRows, end_row - row);
    // Tiles start at rows `first` and `first + second`; sums of row `row` are `skip` rows into their buffer.
    const int64_t first = rows < tile_rows_ ? end_row - tile_rows_ : row, skip = row - first;
    const int64_t second = rows > tile_rows_ ? rows - tile_rows_ : 0;
    const uint16_t* in = static_cast<const uint16_t*>(args_.in) + first * args_.in_stride;
    const Inputs inputs{in + unit.first_step * kStep, args_.in_stride * 2, second};
    const bool ragged = unit.last_chunk && args_.k % kStep != 0;
    if (ragged) copy_tail(in, rows + skip);

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
      float* partial = partial_ + (index * cut_.group_panels + panel - unit.first_panel) * kBlockRows * kPanelColumns;
      load_sums(second != 0, unit.first_chunk ? nullptr : partial, second);
      multiply_unit(inputs, w, unit.steps, ragged, fetch);
      if (!unit.last_chunk) {
        store_sums(second != 0, partial, second);
        continue;
      }
      pending_.finish(kBlockRows);
      float* sums = sums_[current_ ^= 1];
      store_sums(second != 0, sums, second);
      pending_.sums = sums + skip * kPanelColumns;
      pending_.row = row;
      pending_.panel = panel;
      pending_.rows = static_cast<int>(rows);
    }
  }

  void multiply_unit(const Inputs& inputs, const unsigned char* w, int64_t steps, bool ragged, Fetch& fetch) {
    const int finish_rows = static_cast<int>(ceil_div(kBlockRows, steps));
    const int64_t whole = ragged ? steps - 1 : steps;
    const Inputs tail{tail_, kStep * 2, inputs.second};
    if (inputs.second != 0) {
      multiply<true>(inputs, w, whole, fetch, pending_, finish_rows);
      if (ragged) multiply<true>(tail, w + whole * kStepBytes, 1, fetch, pending_, finish_rows);
    } else {
      multiply<false>(inputs, w, whole, fetch, pending_, finish_rows);
      if (ragged) multiply<false>(tail, w + whole * kStepBytes, 1, fetch, pending_, finish_rows);
    }
  }

  /// The last k % 32 inputs of some rows, with zeros behind: what follows them in `in` may be anything, or nothing.
  void copy_tail(const uint16_t* in, int64_t rows) {
    const int64_t tail = args_.k % kStep;
    for (int64_t r = 0; r < rows; ++r) {
      uint16_t* to = tail_ + r * kStep;
      std::memcpy(to, in + r * args_.in_stride + args_.k - tail, static_cast<std::size_t>(tail) * 2);
      std::memset(to + tail, 0, static_cast<std::size_t>(kStep - tail) * 2);
    }
    about_to_read(tail_);
  }

  const MatmulArgs& args_;
  const MatmulBlock& block_;
  const Blocking cut_;
  const int64_t tile_rows_ = min(args_.m, kTileRows);
  float* partial_;  // sums between chunks: [blocks of a super block][panels of a group][32][32]
  Pending pending_;
  int current_ = 0;
  alignas(64) float sums_[2][kBlockRows * kPanelColumns];  // of this panel, and of the one before
  alignas(64) uint16_t tail_[kBlockRows * kStep];
};

void run_amx(const MatmulArgs& args, const MatmulBlock& block, void* scratch) { Run{args, block, scratch}(); }

}  // namespace

constinit const MatmulKernel amx_kernel{Simd::lanes, kBlockRows, kStep, int64_t{1} << 40, scratch_bytes, run_amx};

}  // namespace pagedcore::cpu
