// Of an executor's step: the rows that embeddings are made of, and those.
#include <algorithm>
#include <cmath>

#include "engine/local_executor.hpp"

namespace pagedcore {

/// Those of its rows that its embedding is made of: consecutive ones.
void LocalExecutor::list_pooled(const ScheduledSequence& s, RequestState& request) {
  PooledRange range{&request, 0, hidden_rows_.size(), 0};
  const PooledRows& rows = *request.pooled;
  for (std::uint32_t i = 0; i < s.num_rows; ++i) {
    if (!rows.wants(s.first_position + i, range.count)) continue;
    if (range.count++ == 0) range.position = s.first_position + i;
    hidden_rows_.push_back(static_cast<std::int32_t>(s.first_row + i));
  }
  pooled_.push_back(range);  // without rows too: a step that is run again may have taken them
}

void LocalExecutor::take_hidden(std::int64_t first, const Tensor& hidden) {
  const auto* base = static_cast<const float*>(backend_.host_view(hidden));
  std::int64_t stride = hidden.stride;
  if (base != nullptr) {
    backend_.synchronize();
  } else {
    downloaded_.resize(static_cast<std::size_t>(hidden.rows * hidden.cols));
    backend_.download(std::as_writable_bytes(std::span(downloaded_)), hidden);
    base = downloaded_.data();
    stride = hidden.cols;
  }
  const auto begin = static_cast<std::size_t>(first), end = begin + static_cast<std::size_t>(hidden.rows);
  host_parallel(static_cast<std::int64_t>(pooled_.size()), [&](std::int64_t index) {
    const PooledRange& range = pooled_[static_cast<std::size_t>(index)];
    const std::size_t last = std::min(range.first + range.count, end);
    for (std::size_t i = std::max(range.first, begin); i < last; ++i) {
      const float* row = base + static_cast<std::int64_t>(i - begin) * stride;
      range.request->pooled->add(range.position + i - range.first, {row, static_cast<std::size_t>(hidden.cols)});
    }
  });
}

/// Of the texts whose last rows came in this step, all together.
void LocalExecutor::make_embeddings() {
  std::vector<RequestState*> complete;
  std::vector<float> pooled;
  for (const PooledRange& range : pooled_) {
    if (!range.request->pooled->is_complete() || !range.request->embedding.empty()) continue;
    const std::vector<float> one = range.request->pooled->pooled();
    pooled.insert(pooled.end(), one.begin(), one.end());
    complete.push_back(range.request);
  }
  if (complete.empty()) return;
  const std::vector<float> made = model_.dense(std::move(pooled));
  const auto width = static_cast<std::ptrdiff_t>(made.size() / complete.size());
  for (std::size_t i = 0; i < complete.size(); ++i) {
    const auto begin = made.begin() + static_cast<std::ptrdiff_t>(i) * width;
    RequestState& request = *complete[i];
    if (!std::all_of(begin, begin + width, [](float x) { return std::isfinite(x); })) {
      request.error = "the embedding is not finite: the weights, or the compute type, give infinities for this text";
      continue;
    }
    request.embedding.assign(begin, begin + width);
    finish_embedding(request.embedding, *request.request.embedding);
  }
}

}  // namespace pagedcore
