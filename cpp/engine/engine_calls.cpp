// The side of EngineLoop that any thread may call: checks, and messages to the engine thread.
#include <algorithm>
#include <exception>
#include <system_error>
#include <utility>

#include "base/field_lists.hpp"
#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "engine/engine_loop.hpp"
#include "engine/request_memory.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::size_t kMostNameBytes = 256;

void check_tokens(const std::vector<TokenId>& prompt, std::int32_t vocab_size) {
  const auto bad = std::find_if(prompt.begin(), prompt.end(), [&](TokenId t) { return t < 0 || t >= vocab_size; });
  if (bad != prompt.end()) {
    throw InvalidArgument(
        str("prompt token ", bad - prompt.begin(), " is ", *bad, ", but the vocabulary is [0, ", vocab_size, ")"));
  }
}

/// How many tokens each sample may have: what was asked for, cut where the context ends.
std::uint32_t output_limit(std::size_t prompt, std::uint32_t max_tokens, std::uint32_t max_context) {
  const bool fits = max_tokens == 0 ? prompt <= max_context : prompt < max_context;
  if (!fits) {
    throw InvalidArgument(str("a prompt of ", prompt, " tokens leaves no room to generate: a context holds at most ",
                              max_context, " tokens, prompt and output together; shorten the prompt to ",
                              max_context - 1, " tokens or fewer, or raise max_context and the KV cache"));
  }
  return static_cast<std::uint32_t>(std::min<std::size_t>(max_tokens, max_context - prompt));
}

/// What a text may have that only its embedding is made of.
void check_text(std::size_t prompt, std::uint32_t max_context) {
  if (prompt > max_context)
    throw InvalidArgument(str("a text of ", prompt, " tokens is too long to embed: the model takes at most ",
                              max_context, "; shorten it"));
}

}  // namespace

ModelTraits traits_of(const ModelDescription& d) noexcept {
  const std::vector<std::int32_t>& dense = d.embedding.dense_sizes;
  const std::int32_t size = dense.empty() ? d.hidden_size : dense.back();
  return {d.head, d.attention.bidirectional, d.embedding.pooling, static_cast<std::uint32_t>(d.hidden_size),
          static_cast<std::uint32_t>(size)};
}

EngineLoop::EngineLoop(const RequestLimits& limits, Scheduler scheduler, std::unique_ptr<RequestTable> requests,
                       std::unique_ptr<Executor> executor, std::optional<TraceWriter> trace, PrefixPlaces places,
                       std::unique_ptr<Timeline> timeline)
    : limits_(limits),
      mailbox_({limits.max_cache_events, limits.request_memory, limits.max_waiting}),
      scheduler_(std::move(scheduler)),
      requests_(std::move(requests)),
      executor_(std::move(executor)),
      trace_(std::move(trace)),
      beyond_{std::move(places.identity), places.format},
      history_(std::move(timeline)) {
  if (places.store)
    beyond_.traffic = std::make_unique<StoreTraffic>(std::move(places.store), [this] { mailbox_.nudge(); });
  publish();
  const SignalsBlocked blocked;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    throw OutOfMemory(str("the engine's thread could not be started: ", error.what(),
                          "; check the limits on threads and memory of this process"));
  }
}

EngineLoop::~EngineLoop() { close(); }

/// Whether the model can do what is asked of it.
void EngineLoop::check_kind(const EngineRequest& request) const {
  const ModelTraits& model = limits_.model;
  if (!request.embedding) {
    const bool reads_only = !request.beam && request.sampling.max_tokens == 0 && !request.sampling.prompt_logprobs;
    if (!model.generates && !(reads_only && !model.is_bidirectional))
      throw InvalidArgument(
          "the model makes embeddings only: it has no head that gives tokens or their log-probabilities, and can "
          "neither generate, score nor keep prefixes of texts whose tokens see those behind them; ask for an "
          "embedding");
    return;
  }
  if (request.beam || request.constraint)
    throw InvalidArgument(
        "a request that asks for an embedding generates nothing: it takes no beam search or constraint");
  const EmbeddingParams& p = *request.embedding;
  check_ranges(p, "embedding parameter");
  if (p.dimensions > model.embedding_size)
    throw InvalidArgument(str("dimensions = ", p.dimensions, ", but an embedding of this model has ",
                              model.embedding_size, "; ask for at most that many, or leave it out"));
  if (pooling_of(request) == Pooling::cls && !model.is_bidirectional)
    throw InvalidArgument(
        "pooling = 'cls' takes the row of the first token, which in this model sees no other: use 'last' or 'mean'");
  if (model.is_bidirectional && !request.options.prefix.empty())
    throw InvalidArgument(
        "the model's tokens see those behind them, so no prefix can be computed before: leave it out");
}

Pooling EngineLoop::pooling_of(const EngineRequest& request) const noexcept {
  const Pooling asked = request.embedding->pooling;
  return asked == Pooling::automatic ? limits_.model.pooling : asked;
}

/// What the scheduler is told of a request, which has passed every check.
SchedulerRequest EngineLoop::checked(const EngineRequest& request) const {
  fork_guard_.check();
  check_ranges(request.options, "request option");
  if (const std::size_t size = request.options.request_id.size(); size > kMostNameBytes)
    throw InvalidArgument(str("request_id has ", size, " bytes; it may have ", kMostNameBytes));
  check_kind(request);
  SchedulerRequest s;
  if (request.embedding) {
    // All rows of which something is wanted are computed, cached or not: as if they were scored.
    s.prompt_logprobs = pooling_of(request) != Pooling::last && !limits_.model.is_bidirectional;
    s.is_whole = limits_.model.is_bidirectional;
  } else if (request.beam) {
    pagedcore::validate(*request.beam, limits_.vocab_size);
    s.beam_width = request.beam->beam_width;
  } else {
    pagedcore::validate(request.sampling, limits_.vocab_size);
    s.num_samples = request.sampling.n;
    s.prompt_logprobs = request.sampling.prompt_logprobs.has_value();
    s.first_scored = request.sampling.prompt_logprob_start;
  }
  check_tokens(request.prompt, limits_.vocab_size);
  if (request.embedding) {
    check_text(request.prompt.size(), limits_.max_context);
    s.max_tokens = 0;
  } else {
    const std::uint32_t max_tokens = request.beam ? request.beam->max_tokens : request.sampling.max_tokens;
    s.max_tokens = output_limit(request.prompt.size(), max_tokens, limits_.max_context);
    s.is_open_ended = !request.beam && max_tokens == kNoTokenLimit;
  }
  s.salt = request.options.salt;
  s.priority = request.options.priority;
  s.tenant = request.options.tenant;
  s.prompt = request.prompt;
  scheduler_.validate(s);
  const RequestBytes bytes = bytes_of(request, s.max_tokens);
  if (bytes.total() > limits_.request_memory) throw InvalidArgument(refusal(bytes, limits_.request_memory));
  return s;
}

RequestBytes EngineLoop::bytes_of(const EngineRequest& request, std::uint32_t max_tokens) const {
  const KvCacheConfig& cache = scheduler_.cache().config();
  const std::uint64_t tokens = std::uint64_t{request.prompt.size()} + max_tokens;
  const std::uint64_t blocks =
      (tokens + cache.block_size - 1) / cache.block_size * scheduler_.cache().num_layer_groups();
  RequestBytes bytes = pagedcore::bytes_of(request, max_tokens, limits_.vocab_size, static_cast<std::uint32_t>(blocks));
  // The sum of its rows, and the embedding as it is made and told.
  if (request.embedding)
    bytes.fixed +=
        limits_.model.hidden_size * (sizeof(double) + sizeof(float)) + 2 * sizeof(float) * limits_.model.embedding_size;
  return bytes;
}

SubmitCommand EngineLoop::command_of(EngineRequest&& request, std::unique_lock<std::mutex>& naming) const {
  SubmitCommand command;
  command.scheduling = checked(request);
  if (!request.options.prefix.empty()) {
    if (!naming.owns_lock()) naming.lock();
    command.scheduling.prefix = prefixes_.named_by(request);
  }
  command.scheduling.stored_tokens = stored_tokens(command.scheduling);
  if (request.beam) request.beam->max_tokens = command.scheduling.max_tokens;  // cut where the context ends
  const std::uint64_t bytes = bytes_of(request, command.scheduling.max_tokens).total();
  const std::optional<Pooling> pooling = request.embedding ? std::optional(pooling_of(request)) : std::nullopt;
  command.request = std::make_unique<RequestState>(std::move(request));
  if (pooling)
    command.request->pooled.emplace(*pooling, command.request->request.prompt.size(), limits_.model.hidden_size);
  command.request->bytes = bytes;
  command.request->max_tokens = command.scheduling.max_tokens;
  return command;
}

RequestId EngineLoop::submit(EngineRequest request) {
  std::unique_lock naming(naming_, std::defer_lock);
  std::vector<SubmitCommand> commands;
  commands.push_back(command_of(std::move(request), naming));
  return mailbox_.submit(std::move(commands)).front();
}

std::vector<RequestId> EngineLoop::submit_all(std::vector<EngineRequest> requests) {
  std::unique_lock naming(naming_, std::defer_lock);
  std::vector<SubmitCommand> commands;
  commands.reserve(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    try {
      commands.push_back(command_of(std::move(requests[i]), naming));
    } catch (const InvalidArgument& error) {
      if (requests.size() == 1) throw;
      throw InvalidArgument(str("request ", i, ": ", error.what()));
    }
  }
  return mailbox_.submit(std::move(commands));
}

void EngineLoop::validate(const EngineRequest& request) const {
  static_cast<void>(checked(request));
  static_cast<void>(mailbox_.busy());  // throws when closed or failed
}

void EngineLoop::abort(RequestId id) {
  fork_guard_.check();
  mailbox_.post(AbortCommand{id});
}

void EngineLoop::abort(std::string_view request_id) {
  fork_guard_.check();
  if (const std::optional<RequestId> id = mailbox_.named(request_id)) mailbox_.post(AbortCommand{*id});
}

std::vector<EngineOutput> EngineLoop::wait(double timeout, QueueId queue) {
  fork_guard_.check();
  return mailbox_.wait(timeout, queue);
}

QueueId EngineLoop::open_queue() {
  fork_guard_.check();
  return mailbox_.open_queue();
}

void EngineLoop::close_queue(QueueId queue) noexcept {
  if (!fork_guard_.in_child()) mailbox_.close_queue(queue);
}

int EngineLoop::output_fd(QueueId queue) {
  fork_guard_.check();
  return mailbox_.output_fd(queue);
}

void EngineLoop::on_output(std::function<void()> callback, QueueId queue) {
  fork_guard_.check();
  mailbox_.on_output(std::move(callback), queue);
}

std::vector<RequestId> EngineLoop::drain(double timeout) {
  fork_guard_.check();
  return mailbox_.drain(timeout);
}

void EngineLoop::pause() {
  fork_guard_.check();
  mailbox_.pause();
}

void EngineLoop::resume() {
  fork_guard_.check();
  mailbox_.resume();
}

bool EngineLoop::busy() const {
  fork_guard_.check();
  return mailbox_.busy();
}

EngineStats EngineLoop::stats() const {
  fork_guard_.check();
  return mailbox_.stats();
}

void EngineLoop::clear_prefix_cache() {
  fork_guard_.check();
  mailbox_.post(ClearPrefixCacheCommand{});
}

RequestId EngineLoop::register_prefix(const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt,
                                      bool shared, QueueId queue) {
  if (name.empty()) throw InvalidArgument("the name of a prefix is empty; requests name it, so give it one");
  EngineRequest request;
  request.prompt = std::move(tokens);
  request.options.salt = salt;
  request.queue = queue;
  request.sampling.max_tokens = 0;
  std::unique_lock naming(naming_, std::defer_lock);
  SubmitCommand command = command_of(std::move(request), naming);
  command.shared = shared;
  naming.lock();
  const PrefixId id = prefixes_.add(name, {.salt = salt, .shared = shared, .tokens = command.request->request.prompt});
  command.request->pins = id;
  try {
    std::vector<SubmitCommand> commands;
    commands.push_back(std::move(command));
    return mailbox_.submit(std::move(commands)).front();
  } catch (...) {
    prefixes_.forget(id);
    throw;
  }
}

void EngineLoop::release_prefix(const std::string& name, std::uint64_t salt) {
  fork_guard_.check();
  const std::lock_guard lock(naming_);
  const PrefixId id = prefixes_.owned(name, salt);
  mailbox_.post(ReleasePrefixCommand{id});
  prefixes_.forget(id);
}

std::vector<CacheEvent> EngineLoop::cache_events(double timeout) {
  fork_guard_.check();
  return mailbox_.take_events(timeout);
}

EngineSnapshot EngineLoop::snapshot(const SnapshotLimits& limits) {
  fork_guard_.check();
  check_ranges(limits, "snapshot limit");
  SnapshotCommand command;
  command.limits = limits;
  std::future<EngineSnapshot> picture = command.picture.get_future();
  mailbox_.post(std::move(command));
  try {
    return picture.get();
  } catch (const std::future_error&) {    // the command was dropped
    static_cast<void>(mailbox_.stats());  // throws, and says why
    throw Aborted("the engine ended before it came to a snapshot");
  }
}

void EngineLoop::force_preemption(std::uint32_t period, PreemptionMode mode) {
  fork_guard_.check();
  mailbox_.post(ForcePreemptionCommand{period, mode});
}

void EngineLoop::close() noexcept {
  if (fork_guard_.in_child()) return;
  mailbox_.close();
  const std::lock_guard lock(closing_);  // whoever closes second waits until it is done
  if (!thread_.joinable()) return;
  thread_.join();
  {
    const std::lock_guard asked(beyond_.mutex);
    beyond_.traffic.reset();
  }
  executor_.reset();
  requests_.reset();
  trace_.reset();
  history_ = StepHistory();
}

}  // namespace pagedcore
