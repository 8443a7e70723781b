// A rank above 0 that is a process.
#include <atomic>
#include <memory>
#include <thread>

#include "base/exception_memory.hpp"
#include "base/text.hpp"
#include "engine/engine_ranks.hpp"
#include "engine/kv_identity.hpp"
#include "engine/memory_plan.hpp"
#include "engine/rank_talk.hpp"
#include "engine/step_message.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/options.hpp"
#include "pagedcore/rank_process.hpp"

namespace pagedcore {
namespace {

using ranks::Readiness;

/// Its part of the model, which outlives groups.
struct Loaded {
  EngineRank parts;
  std::unique_ptr<RankRunner> runner;
  std::string arithmetic;
  ModelRank which;
  ranks::Texts options;
};

std::unique_ptr<Loaded> load(const ModelRank& which, const ModelDescription& model, const WeightSource& weights,
                             const EngineConfig& own, const ranks::Texts& options) {
  EngineConfig config = ranks::with_options(own, options);
  config.tensor_parallel = which.size;
  validate(config);
  auto loaded = std::make_unique<Loaded>();
  loaded->which = which;
  loaded->options = options;
  EngineRank& parts = loaded->parts;
  parts.backend = make_backend(config);
  const MemoryPlan plan = plan_memory(model, config, *parts.backend, available_memory(*parts.backend), &weights);
  load_rank(parts, which, model, weights, config, plan);
  loaded->runner = std::make_unique<RankRunner>(*parts.backend, *parts.model, *parts.kv, parts.swap.get());
  loaded->arithmetic = arithmetic_of(*parts.backend);
  return loaded;
}

class Worker {
 public:
  Worker(const ModelDescription& model, const WeightSource& weights, const EngineConfig& config, const RankPlace& place)
      : model_(model), weights_(weights), config_(config), member_(ranks::member_of(config, fingerprint())) {
    member_.rank = place.rank;
    for (const auto& [name, value] : place.wants) {
      EngineConfig read;
      set_option(read, name, value);
      member_.wants.emplace_back(name, get_option(read, name));
    }
  }

  void serve() {
    while (true) {
      const std::unique_ptr<comm::Communicator> group = ranks::join(member_);
      member_.rank = group->rank();  // where any was free, that one from now on
      try {
        get_ready(*group);
        while (step(*group)) {
        }
        return;
      } catch (const comm::LostPeer& e) {
        if (e.rank() == 0) throw;
      } catch (const GivenUp&) {
      }
    }
  }

 private:
  struct GivenUp {};  // a step, or the group: all meet again

  std::string fingerprint() const { return ranks::fingerprint(model_, weights_); }

  void get_ready(comm::Communicator& group) {
    const auto [word, bytes] = ear_.hear(group);
    if (word != ranks::Word::setup) throw Corrupt("rank 0 said no options before its first step");
    ranks::Setup setup = ranks::setup_of(bytes);
    const ModelRank which{group.rank(), group.size()};
    const std::uint64_t had = loaded_ != nullptr && loaded_->options == setup.options ? cache_ : 0;
    if (had == 0) loaded_.reset();
    Readiness own;
    std::atomic<bool> over{had != 0};
    std::thread loader;
    if (had == 0)
      loader = std::thread([&] {
        take_exception_memory();
        try {
          loaded_ = load(which, model_, weights_, config_, setup.options);
          own.state = Readiness::State::ready;
        } catch (...) {
          own = ranks::failed_with_current_exception();
        }
        over.store(true);
      });
    struct Joined {
      std::thread& thread;
      ~Joined() {
        if (thread.joinable()) thread.join();
      }
    };
    std::vector<Readiness> said;
    {
      const Joined joined{loader};
      const auto how_far = [&] {
        if (!over.load()) return Readiness{};
        if (loaded_ == nullptr) return own;
        return Readiness{Readiness::State::ready, 0, had, 0, loaded_->arithmetic};
      };
      ranks::agree(group, how_far, said);
    }
    for (std::size_t rank = 0; rank < said.size(); ++rank)
      if (said[rank].state == Readiness::State::failed) ranks::throw_error(said[rank], static_cast<int>(rank));
    cache_ = setup.cache;
    loaded_->parts.model->speak_through(group);
    reader_ = StepReader();
  }

  /// False when rank 0 has no more.
  bool step(comm::Communicator& group) {
    const auto [word, bytes] = hear(group);
    if (word == ranks::Word::end) return false;
    if (word != ranks::Word::step) throw Corrupt("rank 0 said its options again");
    RankRunner& runner = *loaded_->runner;
    try {
      const RankStep& step = reader_.read(bytes);
      const auto nobody = [](std::int64_t, const Tensor&) {};
      runner.run(step, nobody, nobody);
      loaded_->parts.backend->synchronize();
      report_.resize(ranks::report_size(step));
      ranks::write_report(runner, report_);
      send_.assign(static_cast<std::size_t>(group.size()), {});
      receive_.assign(static_cast<std::size_t>(group.size()), {});
      send_[0] = report_;
      group.all_to_all(send_, receive_);
    } catch (const comm::LostPeer&) {
      throw;
    } catch (const Aborted&) {
      throw GivenUp();
    } catch (const std::bad_alloc&) {
      group.abort(ranks::kLacksMemory);
      throw GivenUp();
    } catch (const OutOfMemory& e) {
      group.abort(str(ranks::kLacksMemory, ": ", e.what()));
      throw GivenUp();
    } catch (const std::exception& e) {
      group.abort(e.what());
      throw;
    }
    return true;
  }

  std::pair<ranks::Word, std::span<const std::byte>> hear(comm::Communicator& group) {
    try {
      return ear_.hear(group);
    } catch (const comm::LostPeer&) {
      throw;
    } catch (const Aborted&) {
      throw GivenUp();
    }
  }

  const ModelDescription& model_;
  const WeightSource& weights_;
  const EngineConfig& config_;
  comm::Member member_;
  std::unique_ptr<Loaded> loaded_;
  std::uint64_t cache_ = 0;  // Setup::cache that loaded_ belongs to
  ranks::Ear ear_;
  StepReader reader_;
  std::vector<std::byte> report_;
  std::vector<std::span<const std::byte>> send_;
  std::vector<std::span<std::byte>> receive_;
};

}  // namespace

void serve_rank(const ModelDescription& model, const WeightSource& weights, const EngineConfig& config,
                const RankPlace& place) {
  model.validate();
  if (config.ranks.rank_address.empty() || config.ranks.rank_token_file.empty())
    throw InvalidArgument("a rank that is a process needs rank_address, where rank 0 listens, and rank_token_file");
  if (place.rank == 0) throw InvalidArgument("rank 0 is the engine itself; ranks that come to it are 1 and up");
  Worker(model, weights, config, place).serve();
}

}  // namespace pagedcore
