// Ranks that are processes: rank 0 is an engine, each other rank a call of serve_rank(), on this host or another one.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore {

struct EngineConfig;
struct ModelDescription;
class WeightSource;

/// Where ranks that are processes meet. Rank 0 and all others say the same of the first three.
struct RankOptions {
  std::string rank_address;
  std::string rank_token_file;
  double rank_deadline = 10.0;
  double rank_patience = 60.0;

  template <class V>
  static void fields(V&& v) {
    using C = RankOptions;
    v(field("rank_address", &C::rank_address,
            "Ranks above 0 are processes, which come to this address: HOST:PORT over TCP, or unix:/PATH on one host "
            "through shared memory. `threads` are then those of rank 0 alone.")
          .zero_means("ranks are threads of this process"));
    v(field("rank_token_file", &C::rank_token_file,
            "The secret that such ranks prove to have: a file of at least 16 characters that only its owner reads.")
          .path()
          .zero_means("there are none"));
    v(field("rank_deadline", &C::rank_deadline,
            "Seconds after which such a rank that keeps the others waiting, or says nothing, is lost.",
            in(0.1, 86400)));
    v(field("rank_patience", &C::rank_patience,
            "Seconds that ranks wait for one another to come, at the start and when one was lost.", in(0.1, 86400)));
  }
};

/// How often a rank was lost, and which process it was the last time, by its id on its host.
struct RankLosses {
  std::uint64_t count = 0;
  std::uint64_t process = 0;
};

/// Which rank this is, and what its caller knows of the engine's options.
struct RankPlace {
  /// 1 and up; -1: any that is free.
  std::int32_t rank = -1;
  /// Options of the engine that rank 0's must not differ from, by name. All others are taken from rank 0.
  std::vector<std::pair<std::string, std::string>> wants;
};

/// Comes to rank 0 at config.ranks.rank_address, loads its part of the model and runs what rank 0 plans, on this thread
/// and those of its backend, until rank 0's engine is closed; then it returns. When another rank is lost, or a step is
/// given up, it comes again with what it has loaded. Of `config` only the meeting and `threads` count, and swap_file
/// where it is set. Throws InvalidArgument when rank 0 refuses it (another token, version, model, option, or a rank
/// that is there already), Io when nobody listens, LostPeer (Aborted) when rank 0 is lost, Corrupt for what is no
/// message of rank 0's, and what loading throws.
PAGEDCORE_API void serve_rank(const ModelDescription& model, const WeightSource& weights, const EngineConfig& config,
                              const RankPlace& place = {});

}  // namespace pagedcore
