#include "pagedcore/sampling.hpp"

#include <nanobind/ndarray.h>

#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/memory_view.hpp"
#include "bindings/records.hpp"

namespace pagedcore::bindings {
namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const float> view(const Logits& logits) { return {logits.data(), logits.size()}; }

void bind_params(nb::module_& m) {
  using P = SamplingParams;
  m.attr("MOST_SAMPLES") = kMostSamples;
  m.attr("NO_TOKEN_LIMIT") = kNoTokenLimit;
  Record<P>(m, "SamplingParams", "How the tokens of a request are chosen. validate() checks the ranges.");
  m.def("validate", nb::overload_cast<const P&, std::int32_t>(&validate), "params"_a, "vocab_size"_a,
        "Raises InvalidArgument naming the first bad value.");
  m.def("validate", nb::overload_cast<const P&>(&validate), "params"_a, "The checks that need no model.");
}

void bind_beam_search_params(nb::module_& m) {
  using P = BeamSearchParams;
  Record<P>(m, "BeamSearchParams", "A beam search with the results of transformers' generate().");
  m.def("validate", nb::overload_cast<const P&>(&validate), "params"_a, "The checks that need no model.");
}

nb::tuple views_of(nb::handle self) {
  const auto& table = nb::cast<const LogprobTable&>(self);
  return nb::make_tuple(bytes_of(table.chosen, self), bytes_of(table.counts, self), bytes_of(table.others, self));
}

void bind_logprobs(nb::module_& m) {
  Record<TokenLogprob>(m, "TokenLogprob", "A token's log-probability and rank (1 is the most likely).");
  Record<PositionLogprobs>(m, "PositionLogprobs",
                           "Log-probabilities at one position, before penalties and temperature.");
  Record<LogprobTable>(m, "LogprobTable", "Log-probabilities at consecutive positions, in arrays.", Fields::fixed)
      .python()
      .def("__len__", &LogprobTable::size)
      .def(
          "__getitem__",
          [](const LogprobTable& self, std::ptrdiff_t position) {
            const auto size = static_cast<std::ptrdiff_t>(self.size());
            const std::ptrdiff_t at = position < 0 ? position + size : position;
            if (at < 0 || at >= size) throw nb::index_error("a position beyond the end");
            return self[static_cast<std::size_t>(at)];
          },
          "position"_a)
      .def("views", &views_of, nb::sig("def views(self) -> tuple[memoryview, memoryview, memoryview]"),
           "The bytes of `chosen`, `counts` and `others`, not copied; they keep the table alive.");
  m.def(
      "logprobs_of",
      [](const Logits& logits, TokenId token, std::int32_t top) { return logprobs_of(view(logits), token, top); },
      "logits"_a, "token"_a, "top"_a);
}

void bind_sample(nb::module_& m) {
  m.def("uniform", &uniform, "seed"_a, "sample"_a, "position"_a,
        "A counter-based random number in [0, 1): Philox4x32-10.");
  Record<SampleOutcome>(m, "SampleOutcome", "The token drawn from one row of logits.");
  m.def(
      "sample",
      [](const Logits& logits, const SamplingParams& params, const std::vector<TokenId>& prompt,
         const std::vector<TokenId>& output, std::uint32_t sample_index) {
        return sample(view(logits), {&params, prompt, output, sample_index});
      },
      "logits"_a, "params"_a, "prompt"_a, "output"_a = nb::list(), "sample"_a = 0, "Draws one token.");
}

}  // namespace

void bind_sampling(nb::module_& m) {
  bind_params(m);
  bind_beam_search_params(m);
  bind_logprobs(m);
  bind_sample(m);
}

}  // namespace pagedcore::bindings
