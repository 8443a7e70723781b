// The products of a mixture. The rows of an expert lie one after another (RowLists), so its weights are read once,
// however many rows it has. The products of `down` are cut by columns of the output alone: whoever has a panel of
// columns takes all experts in order, and keeps the sums of each row and leaf until the last one is in.
#include "cpu/mixture/mixture.hpp"

#include <algorithm>
#include <cstring>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/elementwise/rows.hpp"
#include "cpu/matmul/product.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kSumsBytes = 512 << 10;  // of sums that stay in L2 while the experts' products are added

const PackedWeight& packed(const std::unique_ptr<Weight>& weight) { return static_cast<const PackedWeight&>(*weight); }

void reserve(const ThreadPool& pool, Scratch& scratch, std::int64_t bytes) {
  if (bytes != 0 && !scratch.reserve(pool.threads(), static_cast<std::size_t>(bytes)))
    throw OutOfMemory(str("no memory for ", bytes, " bytes of scratch of a mixture for each of ", pool.threads(),
                          " threads; free memory"));
}

/// inner = the gated products of each slot, scaled by its share.
void gated_products(ThreadPool& pool, Scratch& scratch, const RowLists& lists, const Tensor& in,
                    const Mixture& experts) {
  struct Product {
    std::int64_t rows, first_task;
    Partition partition;
    BlockRunner runner;
  };
  std::vector<Product> products;
  products.reserve(lists.used.size());
  std::int64_t tasks = 0, scratch_bytes = 0;
  for (const std::int32_t expert : lists.used) {
    const auto e = static_cast<std::size_t>(expert);
    const PackedWeight& weight = packed(experts.up[e]);
    const std::int64_t first = lists.starts[e], rows = lists.starts[e + 1] - first;
    MatmulArgs args = product_args(in.rows == 1 ? in : experts.gathered.slice_rows(first, rows), weight);
    const Tensor out = experts.inner.slice_rows(first, rows);
    args.out = out.data;
    args.out_stride = out.stride;
    args.finish = Finish::gated;
    args.activation = static_cast<ActivationFunction>(experts.activation);
    args.out_is_bf16 = out.dtype == DType::bf16;
    args.rows.scale = lists.shares.data() + first;
    args.rows.swiglu_alpha = experts.swiglu.alpha;
    args.rows.swiglu_limit = experts.swiglu.limit;
    if (experts.up_bias != nullptr) args.bias = row_of<float>(*experts.up_bias, expert);
    products.push_back({rows, tasks, Partition(rows, weight, pool.threads()), BlockRunner(weight, args)});
    tasks += products.back().partition.count();
    scratch_bytes = std::max(scratch_bytes, products.back().runner.scratch_bytes());
  }
  reserve(pool, scratch, scratch_bytes);
  pool.for_each(tasks, [&](std::int64_t task, int worker) {
    auto after = std::upper_bound(products.begin(), products.end(), task,
                                  [](std::int64_t t, const Product& p) { return t < p.first_task; });
    const Product& p = *--after;
    const PackedWeight& weight =
        packed(experts.up[static_cast<std::size_t>(lists.used[static_cast<std::size_t>(after - products.begin())])]);
    p.runner(p.partition.block(task - p.first_task, p.rows, weight), weight.layout().panels,
             scratch_bytes == 0 ? nullptr : scratch.of(worker));
  });
}

/// The sums of a block of rows over one panel of columns: f32 [leaves][rows][columns].
class LeafSums {
 public:
  LeafSums(std::int64_t leaves, std::int64_t rows, std::int64_t columns)
      : leaves_(leaves), rows_(rows), columns_(columns) {}

  std::int64_t bytes() const { return (leaves_ * leaf() * 4 + 63) / 64 * 64; }
  std::int64_t leaf() const { return rows_ * columns_; }

  /// The tree of WeightForm over the leaves; its root is then where the first leaf was.
  void combine(float* sums) const {
    for (std::int64_t reach = 1; reach < leaves_; reach *= 2)
      for (std::int64_t left = 0; left + reach < leaves_; left += 2 * reach) {
        float* const to = sums + left * leaf();
        const float* const from = sums + (left + reach) * leaf();
        for (std::int64_t i = 0; i < leaf(); ++i) to[i] += from[i];
      }
  }

 private:
  std::int64_t leaves_, rows_, columns_;
};

/// root += share * bias of each slot of a row, in their order; columns [column, column + wide).
void add_biases(const Routing& routing, const Tensor& bias, std::int64_t row, std::int64_t column, std::int64_t wide,
                float* root) {
  for (std::int64_t slot = 0; slot < routing.experts.cols; ++slot) {
    const float share = row_of<float>(routing.shares, row)[slot];
    const float* const from = row_of<float>(bias, row_of<std::int32_t>(routing.experts, row)[slot]) + column;
    for (std::int64_t i = 0; i < wide; ++i) root[i] += share * from[i];
  }
}

/// out = or += the sums over slots of the products of their inner rows.
void down_products(ThreadPool& pool, Scratch& scratch, const RowLists& lists, const Tensor& out, const Routing& routing,
                   const Mixture& experts) {
  const PackedWeight& any = packed(experts.down[0]);
  const auto leaves = static_cast<std::int64_t>(any.layout().leaves.size());
  const std::int64_t columns = 2 * any.kernel().lanes, panels = any.layout().panels;
  const std::int64_t block_rows = std::clamp<std::int64_t>(kSumsBytes / (leaves * columns * 4), 1, out.rows);
  const std::int64_t blocks = (out.rows + block_rows - 1) / block_rows;
  const LeafSums sums(leaves, block_rows, columns);

  std::vector<std::int32_t> places(lists.rows.size());  // of the rows in their blocks
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::int32_t>(lists.rows[i] % block_rows);
  const auto args_of = [&](const PackedWeight& weight, std::int64_t first, std::int64_t rows) {
    MatmulArgs args = product_args(experts.inner.slice_rows(first, rows), weight);
    args.finish = Finish::leaf_sums;
    args.out_stride = sums.leaf();
    args.rows.places = places.data() + first;
    return args;
  };
  std::int64_t scratch_bytes = 0;
  for (const std::int32_t expert : lists.used) {
    const auto e = static_cast<std::size_t>(expert);
    const std::int64_t most = std::min(lists.starts[e + 1] - lists.starts[e], block_rows);
    const PackedWeight& weight = packed(experts.down[e]);
    scratch_bytes = std::max(scratch_bytes, BlockRunner(weight, args_of(weight, 0, most)).scratch_bytes());
  }
  reserve(pool, scratch, sums.bytes() + scratch_bytes);
  pool.for_each(panels * blocks, [&](std::int64_t task, int worker) {
    const std::int64_t panel = task / blocks, first_row = task % blocks * block_rows;
    const std::int64_t end_row = std::min(first_row + block_rows, out.rows);
    std::byte* const own = scratch.of(worker);
    auto* const taken = reinterpret_cast<float*>(own);
    std::memset(taken, 0, static_cast<std::size_t>(sums.bytes()));
    for (const std::int32_t expert : lists.used) {
      const auto e = static_cast<std::size_t>(expert);
      const auto rows = lists.rows.begin();
      const auto end = rows + lists.starts[e + 1];
      const auto from = std::lower_bound(rows + lists.starts[e], end, first_row);
      const std::int64_t count = std::lower_bound(from, end, end_row) - from;
      if (count == 0) continue;
      MatmulArgs args = args_of(packed(experts.down[e]), from - rows, count);
      args.out = taken;
      BlockRunner(packed(experts.down[e]), args)({0, count, panel, panel + 1}, panels, own + sums.bytes());
    }
    sums.combine(taken);
    const std::int64_t column = panel * columns, wide = std::min(columns, out.cols - column);
    float* root = taken;
    for (std::int64_t row = first_row; row < end_row; ++row, root += columns) {
      float* const to = row_of<float>(out, row) + column;
      if (experts.down_bias != nullptr) add_biases(routing, *experts.down_bias, row, column, wide, root);
      for (std::int64_t i = 0; i < wide; ++i) to[i] = experts.accumulate ? to[i] + root[i] : root[i];
    }
  });
}

}  // namespace

void mixture(ThreadPool& pool, Scratch& scratch, RowLists& lists, const Tensor& out, const Tensor& in,
             const Routing& routing, const Mixture& experts) {
  const DType compute = experts.down.empty() ? in.dtype : packed(experts.down[0]).dtype();
  check_mixture(out, in, routing, experts, compute);
  if (in.rows == 0) return;
  lists.fill(routing, static_cast<std::int64_t>(experts.up.size()));
  const std::size_t bytes = bytes_of(in.dtype, in.cols);
  if (in.rows > 1)
    for_each_row(pool, experts.gathered.rows, in.cols, [&](std::int64_t slot) {
      std::memcpy(experts.gathered.slice_rows(slot, 1).data,
                  in.slice_rows(lists.rows[static_cast<std::size_t>(slot)], 1).data, bytes);
    });
  gated_products(pool, scratch, lists, in, experts);
  down_products(pool, scratch, lists, out, routing, experts);
}

}  // namespace pagedcore::cpu
