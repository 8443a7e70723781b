// Prefixes from engine to engine as bytes, and what callers ask of a store. Runs on the caller's thread; what touches
// the cache is done by the engine's, between steps, some megabytes at a time.
//
//   [head][header and block]...     the records of a segment (store/block_record.hpp); group 0 without a gap
#include <algorithm>
#include <cstring>
#include <exception>
#include <future>
#include <utility>

#include "base/checksum.hpp"
#include "base/text.hpp"
#include "engine/engine_loop.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::uint64_t kMagic = 0x3158'564b'4445'4750u;  // "PGEDKVX1"
constexpr std::size_t kPiece = std::size_t{8} << 20;      // bytes copied between two steps

struct TransferHead {
  std::uint64_t magic = kMagic;
  Digest identity{};
  Digest adapter{};  // the hash of its content; zeros: none
  std::uint32_t block_size = 0;
  std::uint32_t groups = 0;
  std::uint64_t block_bytes = 0;
  std::uint64_t salt = 0;
  std::uint64_t records = 0;
  std::uint64_t checksum = 0;  // of what comes before
};

std::uint64_t sum_of(const TransferHead& head) noexcept {
  return checksum(std::as_bytes(std::span(&head, 1)).first(offsetof(TransferHead, checksum)));
}

/// A record of what is being imported.
struct Incoming {
  std::uint32_t index = 0;
  std::uint32_t group = 0;
  const std::byte* block = nullptr;
};

struct Prefix {
  std::uint64_t salt = 0;
  std::vector<TokenId> tokens;
  std::vector<Incoming> blocks;
};

/// Everything is looked at before anything changes.
Prefix read_prefix(std::span<const std::byte> bytes, const store::Identity& identity,
                   const store::BlockFormat& format) {
  TransferHead head;
  if (bytes.size() < sizeof(head))
    throw Corrupt(str("an exported prefix has ", sizeof(head), " bytes at least, not ", bytes.size()));
  std::memcpy(&head, bytes.data(), sizeof(head));
  if (head.magic != kMagic || head.checksum != sum_of(head))
    throw Corrupt("these bytes are no exported prefix, or were damaged on their way");
  if (head.identity != identity.digest || head.block_size != format.block_size || head.groups != format.groups ||
      head.block_bytes != format.block_bytes || head.adapter != Digest{})
    throw InvalidArgument(
        str("the prefix comes from an engine of another model, other options (dtype, weights, block_size), another "
            "version or another instruction set, which computes other bytes; this one is ",
            identity.text.substr(0, identity.text.find("\nweights"))));
  const std::size_t header_size = store::header_bytes(format), record = header_size + format.block_bytes;
  const std::size_t rest = bytes.size() - sizeof(head);
  if (rest % record != 0 || rest / record != head.records)
    throw Corrupt(str("the exported prefix has ", head.records, " blocks of ", record, " bytes, of which ", rest,
                      " bytes came: it was cut off"));
  Prefix prefix;
  prefix.salt = head.salt;
  store::BlockKey key = store::root_key(identity.digest, {head.salt});
  store::BlockHeader header;
  std::uint32_t blocks = 0;  // of group 0 so far
  for (std::size_t i = 0; i < head.records; ++i) {
    const auto one = bytes.subspan(sizeof(head) + i * record, record);
    const auto block = one.subspan(header_size);
    bool good = store::read_header(one, format, header) && (blocks > 0 || header.group == 0);
    if (good && header.group == 0) {
      key = store::next_key(key, header.tokens);
      prefix.tokens.insert(prefix.tokens.end(), header.tokens.begin(), header.tokens.end());
      ++blocks;
    }
    good = good && header.key == key && checksum(block) == header.checksum;
    if (!good) throw Corrupt(str("block ", i, " of the exported prefix was damaged on its way"));
    prefix.blocks.push_back({blocks - 1, header.group, block.data()});
  }
  return prefix;
}

}  // namespace

/// What the store could give of a prompt. Only a hint: whether it is read is decided when the request's turn comes.
std::uint32_t EngineLoop::stored_tokens(const SchedulerRequest& request) const {
  if (request.is_whole) return 0;
  const std::lock_guard lock(beyond_.mutex);
  return beyond_.traffic ? beyond_.traffic->find(request.prompt, request.salt) : 0;
}

const store::Identity& EngineLoop::identity_of_prefixes() const {
  fork_guard_.check();
  if (!beyond_.identity)
    throw Unsupported("this engine does not export or import prefixes: make it with kv_transfer = true, or a kv_store");
  return *beyond_.identity;
}

void EngineLoop::act_between_steps(std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)> act) {
  std::future<void> done = act.get_future();
  mailbox_.post(CacheCommand{std::move(act)});
  try {
    done.get();
  } catch (const std::future_error&) {    // the command was dropped
    static_cast<void>(mailbox_.stats());  // throws, and says why
    throw Aborted("the engine ended before it came to the prefix");
  }
}

std::vector<std::byte> EngineLoop::export_prefix(std::span<const TokenId> tokens, std::uint64_t salt) {
  const store::Identity& identity = identity_of_prefixes();
  const store::BlockFormat& format = beyond_.format;
  const std::size_t header_size = store::header_bytes(format), record = header_size + format.block_bytes;
  TransferHead head{.identity = identity.digest,
                    .block_size = format.block_size,
                    .groups = format.groups,
                    .block_bytes = format.block_bytes,
                    .salt = salt};
  std::vector<std::byte> bytes(sizeof(head));
  store::BlockKey key = store::root_key(identity.digest, {salt});
  const std::size_t blocks = tokens.size() / format.block_size;
  const std::size_t step = std::max<std::size_t>(kPiece / (format.block_bytes * format.groups), 1);
  for (std::size_t first = 0; first < blocks; first += step) {
    const std::size_t end = std::min(blocks, first + step);
    std::vector<std::pair<std::size_t, std::uint32_t>> found;  // block, group
    const std::size_t before = bytes.size();
    bytes.resize(before + (end - first) * format.groups * record);
    act_between_steps(std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)>(
        [&](Scheduler& scheduler, Executor& executor, TraceWriter*) {
          const std::vector<BlockId> cached =
              scheduler.cache().cached_blocks(tokens.first(end * format.block_size), salt);
          std::vector<BlockId> ids;
          std::vector<std::byte*> places;
          for (std::size_t at = first * format.groups; at < cached.size(); ++at) {
            if (cached[at] == kNoBlock) continue;
            places.push_back(bytes.data() + before + found.size() * record + header_size);
            ids.push_back(cached[at]);
            found.emplace_back(at / format.groups, static_cast<std::uint32_t>(at % format.groups));
          }
          if (!ids.empty()) executor.get_blocks(ids, places);
        }));
    bytes.resize(before + found.size() * record);
    head.records += found.size();
    std::size_t last = first;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto [block, group] = found[i];
      const auto of_block = tokens.subspan(block * format.block_size, format.block_size);
      if (group == 0) key = store::next_key(key, of_block);
      const auto one = std::span(bytes).subspan(before + i * record, record);
      store::write_header(one.first(header_size), format, key, group, of_block, checksum(one.subspan(header_size)));
      last = block + 1;
    }
    if (last < end) break;  // the cache has no more of it
  }
  if (head.records == 0)
    throw InvalidArgument(str("the prefix cache has no full block of ", format.block_size, " tokens of these ",
                              tokens.size(), " under salt ", salt,
                              ": compute them first, by a request or as a registered prefix"));
  head.checksum = sum_of(head);
  std::memcpy(bytes.data(), &head, sizeof(head));
  return bytes;
}

std::uint32_t EngineLoop::import_prefix(std::span<const std::byte> bytes) {
  const Prefix prefix = read_prefix(bytes, identity_of_prefixes(), beyond_.format);
  const std::size_t step = std::max<std::size_t>(kPiece / beyond_.format.block_bytes, 1),
                    groups = beyond_.format.groups;
  std::size_t cached = 0;
  for (std::size_t first = 0; first < prefix.blocks.size(); first += step) {
    const std::size_t end = std::min(prefix.blocks.size(), first + step);
    act_between_steps(std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)>(
        [&](Scheduler& scheduler, Executor& executor, TraceWriter* trace) {
          const auto piece = std::span(prefix.blocks).subspan(first, end - first);
          const std::size_t blocks = piece.back().index + std::size_t{1};
          const auto tokens = std::span(prefix.tokens).first(blocks * beyond_.format.block_size);
          std::vector<std::uint8_t> offered(blocks * groups);
          for (const Incoming& block : piece) offered[block.index * groups + block.group] = 1;
          std::vector<BlockId> ids;
          std::vector<const std::byte*> sources;
          ids.reserve(piece.size());
          sources.reserve(piece.size());
          const std::vector<BlockId> taken = scheduler.import_prefix(tokens, prefix.salt, offered);
          if (trace != nullptr) trace->import_prefix(tokens, prefix.salt, offered);
          for (const Incoming& block : piece) {
            const std::size_t at = block.index * groups + block.group;
            if (at >= taken.size() || taken[at] == kNoBlock) continue;
            ids.push_back(taken[at]);
            sources.push_back(block.block);
          }
          try {
            if (!ids.empty()) executor.put_blocks(ids, sources);
          } catch (...) {  // they are published and hold nothing: nobody may find them
            scheduler.clear_prefix_cache();
            if (trace != nullptr) trace->clear_prefix_cache();
            throw;
          }
          cached = scheduler.cache().cached_blocks(prefix.tokens, prefix.salt).size() / groups;
        }));
  }
  return static_cast<std::uint32_t>(cached * beyond_.format.block_size);
}

}  // namespace pagedcore
