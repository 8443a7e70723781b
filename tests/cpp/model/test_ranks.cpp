// Ranks that share a model give the bits of one process, whatever their number.
#include <doctest/doctest.h>

#include <cstring>
#include <thread>

#include "comm/threads.hpp"
#include "model/leaves.hpp"
#include "model/shard.hpp"
#include "pagedcore/error.hpp"
#include "runner.hpp"

using namespace tiny;

namespace {

/// The heads of the default model, in a small one: 9 query heads over 3 KV heads.
TinyModel nine_heads() {
  ModelDescription d = base_description();
  d.vocab_size = 2100;
  d.tied_embeddings = true;
  d.attention.num_heads = 9;
  d.attention.num_kv_heads = 3;
  d.mlp.intermediate_size = 160;
  return {d, false, false, 21};
}

/// The ranks of a model, a thread each.
class Ranks {
 public:
  Ranks(const TinyModel& tiny, const CpuOptions& options, const std::vector<std::vector<TokenId>>& sequences, int size)
      : group_(comm::make_thread_group(size)) {
    for (int rank = 0; rank < size; ++rank) {
      ranks_.push_back(std::make_unique<Runner>(tiny, options, sequences, 128, 8, ModelRank{rank, size}));
      ranks_.back()->model.speak_through(*group_[static_cast<std::size_t>(rank)]);
    }
  }

  void step(const std::vector<Chunk>& chunks, bool last_only = false) {
    std::vector<std::thread> threads;
    for (auto& rank : ranks_) threads.emplace_back([&] { rank->step(chunks, last_only); });
    for (std::thread& thread : threads) thread.join();
  }

  const Runner& operator[](std::size_t rank) const { return *ranks_[rank]; }

 private:
  std::vector<std::unique_ptr<comm::Communicator>> group_;
  std::vector<std::unique_ptr<Runner>> ranks_;
};

using Logits = std::vector<std::vector<std::vector<float>>>;

bool same_bits(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t s = 0; s < a.size(); ++s)
    for (std::size_t p = 0; p < a[s].size(); ++p)
      if (a[s][p].size() != b[s][p].size() ||
          (!a[s][p].empty() &&  // memcmp takes no null pointer
           std::memcmp(a[s][p].data(), b[s][p].data(), a[s][p].size() * sizeof(float)) != 0))
        return false;
  return true;
}

struct Family {
  const char* name;
  TinyModel (*make)();
};

constexpr Family kFamilies[] = {{"nine_heads", nine_heads},
                                {"llama", llama},
                                {"biased", biased},
                                {"qwen2", qwen2},
                                {"qwen3", qwen3},
                                {"gpt", gpt},
                                {"gemma", gemma},
                                {"gemma3", gemma3},
                                {"olmo2", olmo2},
                                {"opt", opt},
                                {"bloom", bloom},
                                {"cohere", cohere},
                                {"olmo", olmo},
                                {"odd", odd},
                                {"open_llama", open_llama},
                                {"mixture", mixture}};

}  // namespace

// rule: model.ranks-show-in-no-bit
TEST_CASE("any number of ranks up to that of the query heads gives the bits of one, in every family") {
  for (const Family& family : kFamilies) {
    const TinyModel tiny = family.make();
    const std::vector<std::vector<TokenId>> sequences{random_tokens(37, tiny.d.vocab_size, 11),
                                                      random_tokens(1, tiny.d.vocab_size, 12),
                                                      random_tokens(22, tiny.d.vocab_size, 13)};
    for (const std::string& isa : cpu_isas()) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        Runner one(tiny, {1, dtype, isa}, sequences);
        one.step({{0, 37}, {1, 1}, {2, 22}});
        const int most = isa == cpu_isas().back() ? tiny.d.attention.num_heads : 3;
        for (int size = 2; size <= most; ++size) {
          CAPTURE(family.name);
          CAPTURE(isa);
          CAPTURE(info(dtype).name);
          CAPTURE(size);
          Ranks ranks(tiny, {1, dtype, isa}, sequences, size);
          ranks.step({{0, 20}, {2, 22}});
          ranks.step({{0, 16}, {1, 1}});
          ranks.step({{0, 1}});  // fewer rows than ranks
          CHECK(same_bits(ranks[0].logits, one.logits));
          CHECK(ranks[1].logits[0][0].empty());
        }
      }
    }
  }
}

TEST_CASE("ranks of several threads each, uneven ones, give the bits of one") {
  const TinyModel tiny = nine_heads();
  const std::vector<std::vector<TokenId>> sequences{random_tokens(40, tiny.d.vocab_size, 5)};
  Runner one(tiny, {1, DType::bf16}, sequences);
  one.step({{0, 40}}, true);
  Ranks ranks(tiny, {2, DType::bf16}, sequences, 4);
  ranks.step({{0, 40}}, true);
  CHECK(same_bits(ranks[0].logits, one.logits));
}

TEST_CASE("a rank holds what its plan says, and all of them the model once but for what each needs") {
  const TinyModel tiny = nine_heads();
  const auto backend = make_cpu_backend({1, DType::f32});
  const Model whole(tiny.d, tiny.weights, *backend, 64, 8);
  std::size_t weights = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const Model part(tiny.d, tiny.weights, *backend, 64, 8, {rank, 4});
    const ModelMemory plan = plan_model_memory(tiny.d, *backend, 16, 64, 8, &tiny.weights, {rank, 4});
    CHECK(part.weight_bytes() == plan.weights);
    CHECK(part.activation_bytes() == plan.activations);
    CHECK(backend->kv_block_bytes(part.kv_shape(16)) == plan.kv_block);
    CHECK(part.weight_bytes() < whole.weight_bytes() / 2);
    weights += part.weight_bytes();
  }
  CHECK(static_cast<double>(weights) < 1.15 * static_cast<double>(whole.weight_bytes()));
}

TEST_CASE("ranks share heads, KV heads and the vocabulary as they must") {
  ModelDescription d = base_description();
  d.attention.num_heads = 9;
  d.attention.num_kv_heads = 3;
  d.vocab_size = 49152;
  std::int64_t heads = 0, owned = 0, tokens = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const Shard shard = shard_of(d, {rank, 4});
    CHECK(shard.heads.first == heads);
    CHECK(shard.owned_kv_heads.first >= shard.kv_heads.first);
    CHECK(shard.kv_heads.first == shard.heads.first / 3);
    CHECK(shard.kv_heads.end == (shard.heads.end + 2) / 3);
    CHECK(shard.vocab.first == tokens);
    CHECK(shard.vocab.first % 1024 == 0);
    heads = shard.heads.end;
    tokens = shard.vocab.end;
    owned += shard.owned_kv_heads.size();
  }
  CHECK(heads == 9);
  CHECK(owned == 3);
  CHECK(tokens == d.vocab_size);
}

TEST_CASE("more ranks than query heads are refused by the numbers") {
  const TinyModel tiny = llama();
  const auto backend = make_cpu_backend({1, DType::f32});
  CHECK_THROWS_WITH_AS(Model(tiny.d, tiny.weights, *backend, 64, 8, {0, 5}),
                       "tensor_parallel = 5 exceeds the 4 query heads of the model, of which each rank has one at "
                       "least; use at most 4",
                       InvalidArgument);
  CHECK_THROWS_AS(validate_ranks(tiny.d, 0), InvalidArgument);
  CHECK_THROWS_AS(validate_ranks(tiny.d, -1), InvalidArgument);
}
