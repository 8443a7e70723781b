// run_step: operations recorded as a CUDA graph give what they give one by one, and are run one by one where they
// cannot be recorded.
#include "harness.hpp"

using namespace cuda_test;
using cuda_emu::graph_counters;
using cuda_emu::Graphs;
using cuda_emu::machine;

namespace {

/// A step in small: rows are gathered, normed, multiplied, and attended to through a block table.
class Step {
 public:
  explicit Step(Backend& b) : backend(b), values(random_values(8 * 192, 1)) {
    const HostTensor host{DType::f32, {192, 192}, 2, std::as_bytes(std::span(weights))};
    weight = backend.pack({&host, 1}, PackKind::stacked);
  }

  /// Decodes `rows` sequences at `position`, which differs in every value from other positions.
  std::vector<float> run(std::int32_t rows, std::int32_t position) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(rows), 0);
    std::vector<TokenRange> ranges;
    std::vector<BlockId> tables;
    std::vector<std::int32_t> indices;
    for (std::int32_t row = 0; row < rows; ++row) {
      ranges.push_back({row, 1, position, row * 8});
      for (std::uint32_t i = 0; i < 8; ++i) tables.push_back(BlockId{static_cast<std::uint32_t>(row) * 8 + i});
      indices.push_back((row + position) % 8);
    }
    const auto batch = backend.prepare({tokens, ranges, tables, 1}, 16);
    backend.run_step(*batch, [&] {
      const Tensor gathered = gathered_.tensor.slice_rows(0, rows), normed = normed_.tensor.slice_rows(0, rows),
                   qkv = qkv_.tensor.slice_rows(0, rows), q = q_.tensor.slice_rows(0, rows);
      backend.gather_rows(gathered, in_.tensor, indices);
      backend.norm(normed, gathered, one_.tensor, nullptr, {});
      backend.matmul(qkv, normed, *weight, {});
      backend.rope_and_cache(q, qkv, *kv_, 0, *batch, shape_, {&frequencies_.tensor, 1.0f});
      backend.attention(out_.tensor.slice_rows(0, rows), q, *kv_, 0, *batch, {shape_});
      if (extra) extra();
    });
    std::vector<float> all = out_.values();
    all.resize(static_cast<std::size_t>(rows) * 64);
    return all;
  }

  Backend& backend;
  std::vector<float> values;
  std::vector<float> weights = random_values(192 * 192, 2);
  std::unique_ptr<Weight> weight;
  std::function<void()> extra;  // at the end of the operations

 private:
  AttentionShape shape_{1, 1, 64};
  Matrix in_{backend, DType::f32, 8, 192, values}, gathered_{backend, DType::f32, 8, 192},
      one_{backend, DType::f32, 1, 192, std::vector<float>(192, 1.0f)}, normed_{backend, DType::bf16, 8, 192},
      qkv_{backend, DType::f32, 8, 192}, q_{backend, DType::bf16, 8, 64}, out_{backend, DType::bf16, 8, 64},
      frequencies_{backend, DType::f32, 1, 32, random_values(32, 3)};
  std::unique_ptr<KvStorage> kv_ = backend.allocate_kv({1, 1, 64, 16, DType::bf16}, 64);
};

std::unique_ptr<Backend> make_with(std::int32_t graph_rows) {
  CudaOptions options = small();
  options.graph_rows = graph_rows;
  return make(options);
}

/// What the same steps give one by one.
std::vector<std::vector<float>> plainly(std::span<const std::pair<std::int32_t, std::int32_t>> steps) {
  const auto backend = make_with(0);
  Step step(*backend);
  std::vector<std::vector<float>> all;
  for (const auto& [rows, position] : steps) all.push_back(step.run(rows, position));
  return all;
}

using Steps = std::vector<std::pair<std::int32_t, std::int32_t>>;  // rows, position

}  // namespace

// rule: backend.step-may-be-one, cuda.graph-or-one-by-one
TEST_CASE("steps as graphs: the same bits, one executable for steps of one kind") {
  Steps steps;
  for (std::int32_t i = 0; i < 12; ++i) steps.emplace_back(i % 3 + 1, 5 * i);
  const auto expected = plainly(steps);
  const auto before = graph_counters();
  const auto backend = make_with(4);
  Step step(*backend);
  for (std::size_t i = 0; i < steps.size(); ++i) CHECK(step.run(steps[i].first, steps[i].second) == expected[i]);
  const auto& after = graph_counters();
  CHECK(after.launches - before.launches == 12);
  CHECK(after.instantiations - before.instantiations <= 3);  // contexts may be split or not
  CHECK(after.updates - before.updates == 12 - (after.instantiations - before.instantiations));
  step.run(5, 3);  // too many rows: one by one
  CHECK(graph_counters().launches - before.launches == 12);
}

TEST_CASE("what a recording copies lies in staging memory until it has run, however much comes after it") {
  const auto backend = make_with(4);
  const std::vector<TokenId> tokens{0};
  const std::vector<TokenRange> ranges{{0, 1, 0, 0}};
  const std::vector<BlockId> table{BlockId{0}};
  const auto batch = backend->prepare({tokens, ranges, table, 1}, 16);
  constexpr std::int64_t piece = 512 << 10;  // 2 MiB; the ring holds 8, and a little is taken already
  const Matrix recorded(*backend, DType::f32, 1, piece), later(*backend, DType::f32, 1, piece);
  const std::vector<float> values = random_values(piece, 4), others = random_values(piece, 5);
  backend->run_step(*batch, [&] { backend->upload(recorded.tensor, std::as_bytes(std::span(values))); });
  // The third of these does not fit behind the second, and goes where the recorded piece lies.
  for (int i = 0; i < 3; ++i) backend->upload(later.tensor, std::as_bytes(std::span(others)));
  CHECK(recorded.values() == values);
  CHECK(later.values() == others);
}

// rule: cuda.graph-or-one-by-one
TEST_CASE("a driver that records nothing, makes no executables, or updates none") {
  const MachineScope scope;
  const Steps steps{{2, 1}, {3, 4}, {2, 40}, {1, 100}, {4, 7}, {4, 8}};
  const auto expected = plainly(steps);
  for (const Graphs graphs : {Graphs::no_capture, Graphs::no_executables, Graphs::no_updates}) {
    CAPTURE(static_cast<int>(graphs));
    machine().graphs = graphs;
    const auto before = graph_counters();
    const auto backend = make_with(4);
    Step step(*backend);
    for (std::size_t i = 0; i < steps.size(); ++i) CHECK(step.run(steps[i].first, steps[i].second) == expected[i]);
    const auto& after = graph_counters();
    CHECK(after.updates == before.updates);
    CHECK(after.launches - before.launches == (graphs == Graphs::no_updates ? 6 : 0));
    if (graphs == Graphs::no_executables) CHECK(after.captures - before.captures == 3);  // then it gives up
  }
}

TEST_CASE("a step whose graph fails leaves no piece of staging memory behind that a later transfer would wait for") {
  const MachineScope scope;
  const auto backend = make_with(4);
  Step step(*backend);
  const auto expected = step.run(2, 1);
  // More than the ring holds: every piece of it is needed again, those that were recorded too.
  const Matrix large(*backend, DType::f32, 1, 3 << 20);
  const std::vector<float> values = random_values(3 << 20, 2);
  const auto transfers = [&] {
    backend->upload(large.tensor, std::as_bytes(std::span(values)));
    CHECK(large.values() == values);
  };
  for (int left = 0; left < 12; ++left) {  // of allocations of memory, streams and events: none, one, ...
    CAPTURE(left);
    machine().allocations_left = left;
    try {
      step.run(2, 1);
    } catch (const OutOfMemory&) {
    }
    machine().allocations_left = -1;
    transfers();
    CHECK(step.run(2, 1) == expected);
  }
}

// rule: cuda.graph-or-one-by-one
TEST_CASE("what cannot be recorded runs one by one, and a failing step leaves the backend as it was") {
  const Steps steps{{2, 1}, {2, 2}, {2, 3}};
  const auto expected = plainly(steps);
  const auto backend = make_with(4);
  Step step(*backend);
  const Matrix some(*backend, DType::f32, 1, 4, random_values(4, 1));
  step.extra = [&] { static_cast<void>(some.values()); };  // waits
  CHECK(step.run(2, 1) == expected[0]);
  const Matrix large(*backend, DType::f32, 1, 3 << 20);
  const std::vector<float> values = random_values(3 << 20, 2);
  step.extra = [&] { backend->upload(large.tensor, std::as_bytes(std::span(values))); };  // more than is staged at once
  CHECK(step.run(2, 2) == expected[1]);
  CHECK(large.values() == values);
  step.extra = [&] { throw InvalidArgument("not today"); };
  CHECK_THROWS_WITH_AS(step.run(2, 3), "not today", InvalidArgument);
  step.extra = nullptr;
  const auto launches = graph_counters().launches;
  CHECK(step.run(2, 3) == expected[2]);
  CHECK(graph_counters().launches == launches + 1);
}
