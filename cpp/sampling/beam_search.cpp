#include "sampling/beam_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "sampling/logprobs.hpp"
#include "sampling/row_kernels.hpp"
#include "sampling/top_k.hpp"

namespace pagedcore::sampling {

std::vector<BeamCandidate> beam_candidates(std::span<const float> logits, std::size_t count, Scratch& scratch,
                                           TokenMask mask) {
  const float max = checked_max(logits);
  const double log_sum = double{max} + std::log(exp_sum(logits, max, 1.0f));
  if (!mask.empty()) {
    check_mask(mask, logits.size());
    scratch.row.resize(logits.size());
    keep_allowed(logits, mask, scratch.row);
    logits = scratch.row;
  }
  std::vector<TokenId>& tokens = scratch.tokens;
  top_k(logits, std::min(count, logits.size()), tokens, scratch);
  std::vector<BeamCandidate> candidates;
  candidates.reserve(tokens.size());
  for (const TokenId token : tokens) {
    candidates.push_back({token, static_cast<float>(double{logits[static_cast<std::size_t>(token)]} - log_sum)});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const BeamCandidate& a, const BeamCandidate& b) { return a.logprob > b.logprob; });
  return candidates;
}

BeamSearch::BeamSearch(const BeamSearchParams& params)
    : params_(params),
      keep_(std::max<std::size_t>(2, 1 + params.stop_token_ids.size()) * params.beam_width),
      running_{{kRoot, 0.0f}} {}

bool BeamSearch::is_stop(TokenId token) const noexcept {
  return std::ranges::find(params_.stop_token_ids, token) != params_.stop_token_ids.end();
}

float BeamSearch::normalised(float sum, std::uint32_t length) const noexcept {
  return sum / static_cast<float>(std::pow(static_cast<double>(length), double{params_.length_penalty}));
}

/// Whether a running beam could still displace the worst of `width` finished hypotheses. `heuristic` judges by the
/// length that beams have now; `never` by the one that is most favourable.
bool BeamSearch::can_improve(float best_running, const std::vector<Finished>& finished) const noexcept {
  if (finished.size() < params_.beam_width) return true;
  const bool longest = params_.early_stopping == EarlyStopping::never && params_.length_penalty > 0.0f;
  return normalised(best_running, longest ? params_.max_tokens : length_ + 1) > finished.back().score;
}

std::vector<BeamSearch::Child> BeamSearch::advance(std::span<const std::vector<BeamCandidate>> candidates) {
  if (ended() || candidates.size() != running_.size()) {
    throw InvalidArgument(str("candidates of ", candidates.size(), " beams for a search with ", running_.size()));
  }
  struct Option {
    float score;
    std::uint32_t parent;
    TokenId token;
  };
  std::vector<Option> options;
  std::size_t count = 0;
  for (const auto& list : candidates) count += list.size();
  options.reserve(count);
  for (std::uint32_t b = 0; b < running_.size(); ++b) {
    for (const BeamCandidate& c : candidates[b]) options.push_back({running_[b].score + c.logprob, b, c.token});
  }
  const auto better = [](const Option& a, const Option& b) {
    return a.score != b.score ? a.score > b.score : a.parent != b.parent ? a.parent < b.parent : a.token < b.token;
  };
  const std::size_t kept = std::min(keep_, options.size());
  std::partial_sort(options.begin(), options.begin() + static_cast<std::ptrdiff_t>(kept), options.end(), better);
  options.resize(kept);

  // Everything new is built beside the old: what throws changes nothing that counts.
  const std::size_t old_nodes = nodes_.size();
  std::vector<Child> children;
  std::vector<Beam> running;
  std::vector<Finished> finished = finished_;
  const bool is_last = length_ + 1 == params_.max_tokens;
  try {
    const auto add_node = [&](const Option& option) {
      nodes_.push_back({running_[option.parent].node, length_ + 1, option.token});
      return static_cast<std::int32_t>(nodes_.size() - 1);
    };
    for (std::size_t rank = 0; rank < options.size(); ++rank) {
      const Option& option = options[rank];
      const bool stops = is_stop(option.token);
      if (!stops && !is_last) {
        if (running.size() == params_.beam_width) continue;
        children.push_back({option.parent, option.token});
        running.push_back({add_node(option), option.score});
      } else if (rank < params_.beam_width) {  // those behind are kept to run on in its place only
        finished.push_back({add_node(option), normalised(option.score, length_ + 1), stops});
      }
    }
    std::stable_sort(finished.begin(), finished.end(),
                     [](const Finished& a, const Finished& b) { return a.score > b.score; });
    if (finished.size() > params_.beam_width) finished.resize(params_.beam_width);
  } catch (...) {
    nodes_.resize(old_nodes);
    throw;
  }
  const bool is_full = finished.size() == params_.beam_width;
  if (running.empty() || !can_improve(running.front().score, finished) ||
      (is_full && params_.early_stopping == EarlyStopping::immediate)) {
    running.clear();
    children.clear();
  }
  running_ = std::move(running);
  finished_ = std::move(finished);
  ++length_;
  return children;
}

std::vector<BeamSearch::Hypothesis> BeamSearch::hypotheses() const {
  std::vector<Hypothesis> best;
  for (const Finished& finished : finished_) {
    if (best.size() == params_.n) break;
    best.push_back({tokens(finished.node), finished.score, finished.stopped});
  }
  return best;
}

std::vector<TokenId> BeamSearch::stable() const {
  std::int32_t common = !finished_.empty() ? finished_.front().node : running_.front().node;
  for (const Beam& beam : running_) common = common_ancestor(common, beam.node);
  return tokens(common);
}

std::uint32_t BeamSearch::depth(std::int32_t node) const noexcept {
  return node == kRoot ? 0 : nodes_[static_cast<std::size_t>(node)].depth;
}

std::int32_t BeamSearch::common_ancestor(std::int32_t a, std::int32_t b) const noexcept {
  while (a != b) {
    std::int32_t& deeper = depth(a) > depth(b) ? a : b;
    deeper = nodes_[static_cast<std::size_t>(deeper)].parent;
  }
  return a;
}

std::vector<TokenId> BeamSearch::tokens(std::int32_t node) const {
  std::vector<TokenId> path(depth(node));
  for (std::size_t i = path.size(); i-- > 0; node = nodes_[static_cast<std::size_t>(node)].parent) {
    path[i] = nodes_[static_cast<std::size_t>(node)].token;
  }
  return path;
}

}  // namespace pagedcore::sampling
