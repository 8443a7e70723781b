#include "cpu/elementwise/rows.hpp"

#include <cmath>
#include <cstring>

#include "cpu/elementwise/elementwise.hpp"
#include "cpu/matmul/matmul.hpp"
#include "tensor/float16.hpp"

namespace pagedcore::cpu {

void scale_softcap(ThreadPool& pool, const Tensor& x, float scale, float softcap) {
  check_f32("scale_softcap: the matrix", x, x.rows, x.cols);
  constexpr std::int64_t tanh_cost = 16;  // in elements that are only multiplied
  const std::int64_t work = softcap > 0.0f ? tanh_cost * x.cols : x.cols;
  for_each_row(pool, x.rows, work, [&](std::int64_t row) {
    float* values = row_of<float>(x, row);
    for (std::int64_t i = 0; i < x.cols; ++i) values[i] *= scale;
    if (softcap > 0.0f)
      for (std::int64_t i = 0; i < x.cols; ++i) values[i] = softcap * std::tanh(values[i] / softcap);
  });
}

void embed(ThreadPool& pool, const Tensor& out, const Weight& table, std::span<const TokenId> tokens, float scale) {
  check_embed(out, table, tokens);
  for_each_row(pool, out.rows, out.cols, [&](std::int64_t row) {
    float* values = row_of<float>(out, row);
    unpack_row(table, tokens[static_cast<std::size_t>(row)], values);
    if (scale != 1.0f)
      for (std::int64_t i = 0; i < out.cols; ++i) values[i] *= scale;
  });
}

void embed_some(ThreadPool& pool, const Tensor& out, const Weight& table, std::span<const TokenId> tokens, float scale,
                TokenId first) {
  check_embed_some(out, table, tokens.size());
  for_each_row(pool, out.rows, out.cols, [&](std::int64_t row) {
    const std::int64_t place = std::int64_t{tokens[static_cast<std::size_t>(row)]} - first;
    if (place < 0 || place >= table.n()) return;
    float* values = row_of<float>(out, row);
    unpack_row(table, place, values);
    if (scale != 1.0f)
      for (std::int64_t i = 0; i < out.cols; ++i) values[i] *= scale;
  });
}

void embed_positions(ThreadPool& pool, const Tensor& out, const Weight& table, std::span<const std::int32_t> positions,
                     std::int32_t offset) {
  check_embed_positions(out, table, positions, offset);
  for_each_row(pool, out.rows, out.cols, [&](std::int64_t row) {
    unpack_row(table, positions[static_cast<std::size_t>(row)] + offset, row_of<float>(out, row));
  });
}

void add(ThreadPool& pool, const Tensor& x, const Tensor& y, float scale) {
  check_add(x, y);
  for_each_row(pool, x.rows, x.cols, [&](std::int64_t row) {
    float* sum = row_of<float>(x, row);
    const float* term = row_of<float>(y, row);
    for (std::int64_t i = 0; i < x.cols; ++i) sum[i] += scale * term[i];
  });
}

namespace {

void add_to(float* __restrict to, const float* __restrict from, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
}

}  // namespace

void combine(ThreadPool& pool, const Tensor& out, const PartialSums& sums, const Epilogue& epilogue) {
  const std::vector<TreeAddition> additions = checked_additions(out, sums, epilogue);
  const float* bias = epilogue.bias == nullptr ? nullptr : static_cast<const float*>(epilogue.bias->data);
  const auto cost = out.cols * static_cast<std::int64_t>(sums.nodes.size());
  for_each_row(pool, out.rows, cost, [&](std::int64_t row) {
    for (const TreeAddition& step : additions)
      add_to(row_of<float>(sums.values[step.to], row), row_of<float>(sums.values[step.from], row), out.cols);
    float* root = row_of<float>(sums.values[0], row);
    float* to = row_of<float>(out, row);
    if (bias != nullptr) add_to(root, bias, out.cols);
    if (epilogue.kind == Epilogue::Kind::accumulate)
      add_to(to, root, out.cols);
    else
      std::copy_n(root, out.cols, to);
  });
}

void convert(ThreadPool& pool, const Tensor& out, const Tensor& in) {
  check_convert(out, in, DType::bf16);
  for_each_row(pool, in.rows, in.cols, [&](std::int64_t row) {
    const float* from = row_of<float>(in, row);
    if (out.dtype == DType::f32) {
      std::copy_n(from, in.cols, row_of<float>(out, row));
    } else {
      std::uint16_t* to = row_of<std::uint16_t>(out, row);
      for (std::int64_t i = 0; i < in.cols; ++i) to[i] = f32_to_bf16(from[i]);
    }
  });
}

void gather_rows(ThreadPool& pool, const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) {
  check_gather_rows(out, in, indices);
  const std::size_t bytes = bytes_of(in.dtype, in.cols);
  const auto row_at = [](const Tensor& t, std::int64_t row) { return t.slice_rows(row, 1).data; };
  for_each_row(pool, out.rows, in.cols, [&](std::int64_t row) {
    std::memcpy(row_at(out, row), row_at(in, indices[static_cast<std::size_t>(row)]), bytes);
  });
}

}  // namespace pagedcore::cpu
