// A model as its callers see it, but for its forward pass.
#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "model/decoder.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

std::vector<float> Model::dense(std::vector<float> pooled) {
  Impl& m = *impl_;
  const EmbeddingDescription& e = m.d.embedding;
  std::int64_t cols = m.d.hidden_size;
  for (std::size_t i = 0; i < e.dense_sizes.size(); ++i) {
    const std::int64_t rows = static_cast<std::int64_t>(pooled.size()) / cols, out = e.dense_sizes[i];
    const std::int64_t most = m.activations.max_logit_rows();
    std::vector<float> next(static_cast<std::size_t>(rows * out));
    for (std::int64_t first = 0; first < rows; first += most) {
      const std::int64_t n = std::min(most, rows - first);
      const Tensor in = m.activations.dense(n, cols), result = m.activations.dense(n, out);
      const Tensor narrow = m.activations.dense_input(n, cols);
      const auto part = [&](std::vector<float>& list, std::int64_t width) {
        return std::span(list).subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>(n * width));
      };
      m.backend.upload(in, std::as_bytes(part(pooled, cols)));
      m.backend.convert(narrow, in);
      m.backend.matmul(result, narrow, *m.weights.dense[i].weight,
                       epilogue(Epilogue::Kind::store, m.weights.dense[i].bias));
      m.backend.download(std::as_writable_bytes(part(next, out)), result);
    }
    if (!e.dense_tanh.empty() && e.dense_tanh[i] != 0)
      for (float& x : next) x = std::tanh(x);
    pooled = std::move(next);
    cols = out;
  }
  return pooled;
}

namespace {
const ModelDescription& validated(const ModelDescription& description, const ModelRank& rank) {
  description.validate();
  validate_ranks(description, rank.size);
  if (rank.rank < 0 || rank.rank >= rank.size) throw InvalidArgument(str("rank ", rank.rank, " of ", rank.size));
  return description;
}
}  // namespace

Model::Model(const ModelDescription& description, const WeightSource& weights, Backend& backend,
             std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows, const ModelRank& rank)
    : impl_(std::make_unique<Impl>(validated(description, rank), weights, backend,
                                   MostRows{max_batched_tokens, max_logit_rows}, rank)) {}

Model::~Model() = default;

const ModelDescription& Model::description() const noexcept { return impl_->d; }

KvShape Model::kv_shape(std::int32_t block_size) const {
  return kv_shape_of(impl_->d, impl_->shard, impl_->backend, block_size);
}

void Model::speak_through(comm::Communicator& communicator) noexcept { impl_->exchange.speak_through(communicator); }

std::size_t Model::weight_bytes() const noexcept { return impl_->weights.bytes(); }
std::size_t Model::activation_bytes() const noexcept { return impl_->activations.bytes(); }

}  // namespace pagedcore
