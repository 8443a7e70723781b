#include "sim/simulated_executor.hpp"

#include <algorithm>

namespace pagedcore {

StepWork step_work(const StepPlan& plan) noexcept {
  StepWork total;
  for (const ScheduledSequence& work : plan.sequences) {
    const double n = work.num_rows, before = work.first_position;
    total.rows += n;
    total.pairs += n * before + n * (n + 1.0) / 2.0;
    total.context += work.num_rows == 1 ? before + 1.0 : before;
    total.samples += work.num_samples;
  }
  total.copies = static_cast<double>(plan.copies.size());
  total.swap_outs = static_cast<double>(plan.swap_outs.size());
  total.swap_ins = static_cast<double>(plan.swap_ins.size());
  return total;
}

double step_seconds(const CostModel& cost, const StepPlan& plan) noexcept {
  const StepWork work = step_work(plan);
  const double moves =
      work.swap_outs * cost.swap_out_block + work.swap_ins * cost.swap_in_block + work.copies * cost.copy_block;
  if (plan.sequences.empty()) return moves;
  return moves + cost.step + std::max(cost.weights, work.rows * cost.row + work.pairs * cost.pair) +
         work.context * cost.context_token + work.samples * cost.sample;
}

namespace sim {

void SimulatedExecutor::add_search(RequestId request, std::uint32_t width, std::uint32_t max_tokens) {
  searches_[raw(request)] = {width, max_tokens, 0};
}

/// After the first row every beam has the same past; from then on the ancestry is drawn.
BeamResult SimulatedExecutor::advance(RequestId request, Search& search) const {
  BeamResult result{request, {}};
  const bool is_first = search.sampled == 0;
  if (--search.left == 0) return result;
  for (std::uint32_t beam = 0; beam < search.width; ++beam) {
    const std::uint64_t draw = mix(raw(request) * 0x100000001b3u + (std::uint64_t{search.left} << 16) + beam);
    const double chance = static_cast<double>(draw >> 40) / static_cast<double>(1u << 24);
    const std::uint32_t parent = is_first                ? 0
                                 : chance < beam_mixing_ ? static_cast<std::uint32_t>(mix(draw) % search.width)
                                                         : beam;
    result.children.push_back({parent, static_cast<TokenId>(draw & 0x7fffffff)});
  }
  std::ranges::stable_sort(result.children, {}, &BeamChild::parent);
  return result;
}

StepResult SimulatedExecutor::run(const StepPlan& plan) {
  now += step_seconds(cost_, plan);
  StepResult result;
  result.step = plan.step;
  result.tokens.reserve(plan.sequences.size());
  for (const ScheduledSequence& work : plan.sequences) {
    if (work.num_samples == 0) continue;
    if (Search* search = searches_.find(raw(work.request)); search != nullptr) {
      if (search->sampled == raw(plan.step)) continue;  // one result for all of its beams
      result.beams.push_back(advance(work.request, *search));
      search->sampled = raw(plan.step);
      continue;
    }
    const std::uint32_t position = work.first_position + work.num_rows;
    const std::uint32_t* stop = stops_.find(raw(work.request));
    for (std::uint32_t k = work.first_sample; k < work.first_sample + work.num_samples; ++k) {
      result.tokens.push_back({work.sequence, k, token_of((raw(work.request) << 20) + k + 1, position),
                               stop != nullptr && position + 1 == *stop});
    }
  }
  for (const BeamResult& beam : result.beams) {
    if (beam.children.empty()) searches_.erase(raw(beam.request));
  }
  return result;
}

}  // namespace sim
}  // namespace pagedcore
