#include "model/leaves.hpp"

#include <algorithm>

namespace pagedcore {
namespace {

constexpr std::int64_t kUnit = 32;        // of k: a group of quantized weights, a step of matrix instructions
constexpr std::int64_t kMostHead = 128;   // columns of a leaf of the attention output
constexpr std::int64_t kDownLeaves = 16;  // so that up to 16 ranks can share a layer

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::vector<std::int64_t> even_leaves(std::int64_t k, std::int64_t pieces) {
  const std::int64_t units = ceil_div(k, kUnit), leaves = std::min(pieces, units);
  std::vector<std::int64_t> ends;
  for (std::int64_t i = 1; i <= leaves; ++i) ends.push_back(std::min(k, kUnit * (i * units / leaves)));
  return ends;
}

std::int64_t num_head_leaves(std::int64_t num_heads, std::int64_t head_dim) noexcept {
  return num_heads * ceil_div(head_dim, kMostHead);
}

std::vector<std::int64_t> head_leaves(std::int64_t num_heads, std::int64_t head_dim) {
  const std::vector<std::int64_t> of_a_head = even_leaves(head_dim, ceil_div(head_dim, kMostHead));
  std::vector<std::int64_t> ends;
  for (std::int64_t head = 0; head < num_heads; ++head)
    for (const std::int64_t end : of_a_head) ends.push_back(head * head_dim + end);
  return ends;
}

std::vector<std::int64_t> down_leaves(std::int64_t intermediate_size) {
  return even_leaves(intermediate_size, kDownLeaves);
}

}  // namespace pagedcore
