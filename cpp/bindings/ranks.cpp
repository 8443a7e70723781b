// Ranks that are processes.
#include <map>
#include <string>

#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "bindings/weights.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/rank_process.hpp"
#include "pagedcore/rank_trial.hpp"

namespace pagedcore::bindings {
namespace {

template <class Weights>
void run_rank(const ModelDescription& model, const Weights& weights, const EngineConfig& config, std::int32_t rank,
              const std::map<std::string, std::string>& wants) {
  decltype(auto) source = snapshot(weights);
  const ModelDescription description = model;
  const EngineConfig options = config;
  const ReleasedGil released;
  serve_rank(description, source, options, {rank, {wants.begin(), wants.end()}});
}

}  // namespace

void bind_ranks(nb::module_& m) {
  constexpr const char* doc =
      "Comes to rank 0 at config.rank_address, loads its part of the model and runs what rank 0 plans until that is "
      "closed. rank -1: any that is free. wants: options that rank 0's must not differ from.";
  m.def(
      "try_ranks",
      [](const std::string& address, const std::string& token_file, std::int32_t rank, std::int32_t ranks,
         const std::string& host, double patience) {
        RankTrial trial;
        {
          const ReleasedGil released;
          RankOptions where;
          where.rank_address = address;
          where.rank_token_file = token_file;
          where.rank_patience = patience;
          trial = try_ranks(where, rank, ranks, host);
        }
        nb::dict result;
        result["hosts"] = trial.hosts;
        result["small_seconds"] = trial.small_seconds;
        result["large_seconds"] = trial.large_seconds;
        return result;
      },
      "address"_a, "token_file"_a, "rank"_a, "ranks"_a, "host"_a, "patience"_a = 60.0,
      nb::sig("def try_ranks(address: str, token_file: str, rank: int, ranks: int, host: str, patience: float = 60.0) "
              "-> dict[str, typing.Any]"),
      "Meets as ranks of an engine do, says `host` of this one, measures and parts.");
  m.def("serve_rank", &run_rank<KeptWeights>, "model"_a, "weights"_a, "config"_a, "rank"_a = -1,
        "wants"_a = std::map<std::string, std::string>(), doc);
  m.def("serve_rank", &run_rank<ModelFile>, "model"_a, "weights"_a, "config"_a, "rank"_a = -1,
        "wants"_a = std::map<std::string, std::string>(), doc);
}

}  // namespace pagedcore::bindings
