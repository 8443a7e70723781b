// Paged attention: units of the work list over the workers.
#include "cpu/attention/attention.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/attention/batch.hpp"
#include "cpu/attention/context.hpp"
#include "cpu/attention/kernels.hpp"
#include "cpu/attention/softmax_state.hpp"
#include "cpu/kv/storage.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

using namespace attention_detail;

constexpr float kLog2e = 1.44269504088896341f;
constexpr std::int64_t kInlineCost = 96 * 1024;  // WorkList::cost x head_dim; below it, waking workers costs more

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

class Step {
 public:
  Step(const Tensor& out, const Tensor& q, const PagedStorage& kv, std::int32_t layer, const PreparedBatch& batch,
       const AttentionParams& params, WorkList& work)
      : out_(out), q_(q), kv_(kv), layer_(layer), batch_(batch), work_(work), kernels_(kernels_of(kv.isa())) {
    const TileLayout& layout = kv.layout();
    const bool tiles = kernels_.bf16_tile && layout.key_dim % kLanes == 0;
    if (layout.tile == DType::f32) {
      kernel_ = kernels_.f32;
    } else if (kernels_.bf16_dot && q.dtype == DType::bf16) {
      kernel_ = tiles ? kernels_.bf16_tile : kernels_.bf16_dot;
    } else {
      kernel_ = kernels_.bf16;
    }
    if (q.dtype != DType::f32 && (kernel_ == kernels_.f32 || kernel_ == kernels_.bf16)) {
      queries_ = Queries::widened;
    } else {
      const bool padded = layout.key_dim != layout.head_dim;
      queries_ = padded || kernel_ == kernels_.bf16_tile ? Queries::copied : Queries::in_place;
    }
    task_ = {};
    task_.key_dim = layout.key_dim;
    task_.value_dim = layout.value_dim;
    task_.scale = params.scale * kLog2e;
    if (params.softcap > 0.0f) {
      task_.softcap = params.softcap * kLog2e;
      task_.inv_softcap = 2.0f * kLog2e * (params.scale / params.softcap);
    }
    slopes_ = params.alibi ? static_cast<const float*>(params.alibi->data) : nullptr;
    sinks_ = params.sinks ? static_cast<const float*>(params.sinks->data) : nullptr;

    const int padded = (work.state_rows + kTileRows - 1) / kTileRows * kTileRows;
    const auto rows = static_cast<std::size_t>(padded);
    state_floats_ = aligned(SoftmaxState::floats(padded, layout.value_dim) * 4) / 4;
    rows_bytes_ = aligned(rows * (sizeof(char*) + 2 * sizeof(int) + sizeof(float)));
    q_bytes_ = queries_ == Queries::in_place ? 0 : aligned(rows * static_cast<std::size_t>(layout.key_dim) * 4);
    kv.workspace().reserve(work.shape.threads,
                           rows_bytes_ + q_bytes_ + 3 * state_floats_ * 4 + ContextReader::scratch_bytes(layout),
                           static_cast<std::size_t>(work.num_states) * state_floats_ * 4);
  }

  void run(const WorkUnit& unit, int worker) const noexcept {
    const bool tiles = kernel_ == kernels_.bf16_tile;
    const std::int32_t heads = work_.shape.heads_of(unit.kv_head);
    if (tiles) kernels_.tile_begin(work_.tiles[static_cast<std::size_t>(unit.tile)].num_rows * heads);
    attend(unit, worker);
    if (tiles) kernels_.tile_end();
  }

 private:
  void attend(const WorkUnit& unit, int worker) const noexcept {
    const QueryTile& tile = work_.tiles[static_cast<std::size_t>(unit.tile)];
    char* memory = kv_.workspace().of(worker);
    PieceTask task = task_;
    set_rows(task, tile, unit.kv_head, memory);
    const int heads = task.rows / tile.num_rows;
    memory += rows_bytes_ + q_bytes_;
    float* states = reinterpret_cast<float*>(memory);
    const ContextReader context(kv_, layer_, unit.kv_head, tile,
                                batch_.tables(work_.shape.layer_group).data() + tile.table_offset,
                                memory + 3 * state_floats_ * 4);
    if (unit.split >= 0) {
      Split& split = work_.splits[static_cast<std::size_t>(unit.split)];
      for (std::int32_t s = unit.first_segment; s < unit.last_segment; ++s)
        segment(task, context, tile, s, state_of(split, s, task.rows), heads);
      const std::int32_t done = unit.last_segment - unit.first_segment;
      if (split.remaining.fetch_sub(done, std::memory_order_acq_rel) != done) return;
      split.remaining.store(split.num_segments, std::memory_order_relaxed);  // for the next layer
      SoftmaxState first = state_of(split, split.first_segment, task.rows);
      for (std::int32_t s = 1; s < split.num_segments; ++s)
        merge(first, state_of(split, split.first_segment + s, task.rows), task.rows, task.value_dim);
      finish(first, tile, unit.kv_head);
      return;
    }
    SoftmaxState whole = SoftmaxState::at(states, task.rows);
    segment(task, context, tile, unit.first_segment, whole, heads);
    for (std::int32_t s = unit.first_segment + 1; s < unit.last_segment; ++s) {
      const SoftmaxState next = SoftmaxState::at(states + state_floats_, task.rows);
      segment(task, context, tile, s, next, heads);
      merge(whole, next, task.rows, task.value_dim);
    }
    finish(whole, tile, unit.kv_head);
  }

  SoftmaxState state_of(const Split& split, std::int32_t segment, int rows) const noexcept {
    const auto index = static_cast<std::size_t>(split.first_state + segment - split.first_segment);
    return SoftmaxState::at(reinterpret_cast<float*>(kv_.workspace().shared()) + index * state_floats_, rows);
  }

  // Row (token, query head of the KV head): its query and the positions it sees.
  void set_rows(PieceTask& task, const QueryTile& tile, std::int32_t kv_head, char* memory) const noexcept {
    const auto capacity = static_cast<std::size_t>(work_.state_rows);
    auto** q = reinterpret_cast<const char**>(memory);
    int* begin = reinterpret_cast<int*>(q + capacity);
    int* end = begin + capacity;
    auto* slopes = reinterpret_cast<float*>(end + capacity);
    char* copies = memory + rows_bytes_;
    const auto element = static_cast<std::size_t>(info(q_.dtype).block_bytes);
    const int head_dim = kv_.layout().head_dim, first_head = work_.shape.first_head(kv_head);
    const int heads = work_.shape.heads_of(kv_head);
    int row = 0;
    for (std::int32_t t = 0; t < tile.num_rows; ++t) {
      const std::int64_t first = (tile.first_row + t) * q_.stride + std::int64_t{first_head} * head_dim;
      const char* in = static_cast<const char*>(q_.data) + first * static_cast<std::int64_t>(element);
      const int position = tile.first_position + t;
      for (int h = 0; h < heads; ++h, ++row, in += static_cast<std::size_t>(head_dim) * element) {
        q[row] = in;
        begin[row] = context_begin(work_.shape, position);
        end[row] = context_end(work_.shape, position, tile.range_end);
        if (slopes_) slopes[row] = slopes_[first_head + h] * kLog2e;
        if (queries_ == Queries::in_place) continue;
        q[row] = copies;
        copies += queries_ == Queries::copied ? copy(in, copies, element) : widen(in, copies);
      }
    }
    task.q = q;
    task.begin = begin;
    task.end = end;
    task.slopes = slopes_ ? slopes : nullptr;
    task.rows = row;
  }

  // A query of key_dim elements, the last of them zero where the head has fewer. Return its bytes.
  std::size_t copy(const char* in, char* to, std::size_t element) const noexcept {
    const std::size_t given = static_cast<std::size_t>(kv_.layout().head_dim) * element;
    const std::size_t bytes = static_cast<std::size_t>(task_.key_dim) * element;
    std::memcpy(to, in, given);
    std::memset(to + given, 0, bytes - given);
    return bytes;
  }
  std::size_t widen(const char* in, char* to) const noexcept {
    const int head_dim = kv_.layout().head_dim;
    for (int d = 0; d < head_dim; ++d) {
      std::uint16_t bits;
      std::memcpy(&bits, in + d * 2, 2);
      const std::uint32_t u = std::uint32_t{bits} << 16;
      std::memcpy(to + d * 4, &u, 4);
    }
    std::memset(to + head_dim * 4, 0, static_cast<std::size_t>(task_.key_dim - head_dim) * 4);
    return static_cast<std::size_t>(task_.key_dim) * 4;
  }

  void segment(PieceTask& task, const ContextReader& context, const QueryTile& tile, std::int32_t index,
               SoftmaxState state, int heads) const noexcept {
    state.open(task.rows, task.value_dim);
    task.m = state.m;
    task.l = state.l;
    task.acc = state.acc;
    const int end = std::min(tile.end, (index + 1) * kContextSegment);
    for (int p = std::max(tile.begin, index * kContextSegment); p < end;) {
      const int next = std::min(end, p / kContextPiece * kContextPiece + kContextPiece);
      if (tile.num_rows > 1 && context.leaks(p, next)) {
        token_by_token(task, context, tile, {p, next}, heads);
      } else {
        context.read(task, p, next, next, std::min(tile.end, next + kContextPiece));
        kernel_(task);
      }
      p = next;
    }
  }

  // A piece in which only some rows may see a V that is not finite: each token of the tile reads it with its own mask.
  // The rows pass through a state of their own, since a matrix tile may write rows beyond those of one token.
  void token_by_token(const PieceTask& all, const ContextReader& context, const QueryTile& tile,
                      std::pair<int, int> piece, int heads) const noexcept {
    const auto [p, next] = piece;
    const bool tiles = kernel_ == kernels_.bf16_tile;
    const auto width = static_cast<std::size_t>(all.value_dim) * static_cast<std::size_t>(heads);
    const auto rows = static_cast<std::size_t>(heads);
    const SoftmaxState own = SoftmaxState::at(spare_state(context), heads);
    if (tiles) kernels_.tile_begin(heads);
    for (std::int32_t t = 0; t < tile.num_rows; ++t) {
      const int row = t * heads;
      QueryTile token = tile;
      token.num_rows = 1;
      token.begin = all.begin[row];
      token.end = all.end[row];
      const int first = std::max(p, token.begin), last = std::min(next, token.end);
      if (first >= last) continue;
      PieceTask task = all;
      task.q += row;
      task.begin += row;
      task.end += row;
      if (task.slopes) task.slopes += row;
      task.rows = heads;
      task.m = own.m;
      task.l = own.l;
      task.acc = own.acc;
      std::copy_n(all.m + row, rows, own.m);
      std::copy_n(all.l + row, rows, own.l);
      std::copy_n(all.acc + row * all.value_dim, width, own.acc);
      context.seen_by(token).read(task, first, last, last, last);
      kernel_(task);
      std::copy_n(own.m, rows, all.m + row);
      std::copy_n(own.l, rows, all.l + row);
      std::copy_n(own.acc, width, all.acc + row * all.value_dim);
    }
    if (tiles) kernels_.tile_begin(all.rows);
  }
  // The third state of a worker's memory lies before the reader's scratch.
  float* spare_state(const ContextReader& context) const noexcept {
    return reinterpret_cast<float*>(context.scratch()) - state_floats_;
  }

  void finish(const SoftmaxState& state, const QueryTile& tile, std::int32_t kv_head) const noexcept {
    const int head_dim = kv_.layout().head_dim, heads = work_.shape.heads_of(kv_head);
    for (std::int32_t t = 0, row = 0; t < tile.num_rows; ++t) {
      const std::int64_t first =
          (tile.first_row + t) * out_.stride + std::int64_t{work_.shape.first_head(kv_head)} * head_dim;
      for (int h = 0; h < heads; ++h, ++row) {
        float* acc = state.acc + row * task_.value_dim;
        const float inverse =
            sinks_ ? inverse_with_sink(state.m[row], state.l[row], sinks_[work_.shape.first_head(kv_head) + h] * kLog2e)
                   : 1.0f / state.l[row];
        // Masked positions may have turned -0 into +0: adding +0 makes both +0.
        for (int d = 0; d < head_dim; ++d) acc[d] = acc[d] * inverse + 0.0f;
        const std::int64_t at = first + std::int64_t{h} * head_dim;
        if (out_.dtype == DType::f32) {
          std::memcpy(static_cast<float*>(out_.data) + at, acc, static_cast<std::size_t>(head_dim) * 4);
        } else {
          kernels_.narrow(acc, static_cast<std::uint16_t*>(out_.data) + at, head_dim);
        }
      }
    }
  }

  const Tensor& out_;
  const Tensor& q_;
  const PagedStorage& kv_;
  std::int32_t layer_;
  const PreparedBatch& batch_;
  WorkList& work_;
  const AttentionKernels& kernels_;
  const float* slopes_;  // [heads], or none
  const float* sinks_;   // likewise
  AttendPiece kernel_;
  enum class Queries { in_place, copied, widened } queries_;
  PieceTask task_;
  // Of a worker's memory: [row descriptions | copies of q | three states | packed tiles].
  std::size_t rows_bytes_, q_bytes_, state_floats_;
};

}  // namespace

void attention(ThreadPool& pool, const Tensor& out, const Tensor& q, const KvStorage& storage, std::int32_t layer,
               const Batch& prepared, const AttentionParams& params) {
  const auto& kv = static_cast<const PagedStorage&>(storage);
  const auto& batch = static_cast<const PreparedBatch&>(prepared);
  const AttentionShape& shape = params.shape;
  check_layer_call(kv, batch.facts(), layer, shape);
  check_attention(out, q, batch.rows(), params, DType::bf16);

  const WorkShape key{.num_kv_heads = shape.num_kv_heads,
                      .num_heads = shape.num_heads,
                      .heads_per_kv_head = shape.group(),
                      .first_in_group = shape.first_in_group,
                      .window = params.window,
                      .bidirectional = params.bidirectional,
                      .threads = pool.threads(),
                      .layer_group = shape.layer_group};
  WorkList& work = batch.work(key);
  const Step step(out, q, kv, layer, batch, params, work);
  const auto body = [&](std::int64_t i, int worker) { step.run(work.units[static_cast<std::size_t>(i)], worker); };
  const auto units = static_cast<std::int64_t>(work.units.size());
  if (pool.threads() == 1 || units == 1 || work.cost * shape.head_dim <= kInlineCost) {
    for (std::int64_t i = 0; i < units; ++i) body(i, 0);
  } else {
    pool.for_each(units, body);
  }
}

}  // namespace pagedcore::cpu
