#include "engine/rank_talk.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <set>
#include <thread>

#include "base/sha256.hpp"
#include "base/text.hpp"
#include "comm/bytes.hpp"
#include "comm/shared_memory.hpp"
#include "comm/tcp.hpp"
#include "pagedcore/devices.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/options.hpp"

namespace pagedcore::ranks {
namespace {

constexpr std::size_t kMostPiece = std::size_t{1} << 20;
constexpr std::size_t kRecord = 2048;  // of a Readiness
constexpr std::size_t kMostText = kRecord - 32;
constexpr std::chrono::milliseconds kPause{10};  // between two questions to those who load

/// Options of one process, not of the group.
bool is_own(std::string_view name) {
  constexpr std::string_view own[] = {"threads",     "swap_file",       "trace_file",    "rank_address",
                                      "kv_store",    "rank_token_file", "rank_deadline", "rank_patience",
                                      "max_waiting", "request_memory",  "kv_store_size", "kv_transfer"};
  return std::ranges::find(own, name) != std::end(own);
}

/// Notes which tensors are asked for.
class AskedWeights final : public WeightSource {
 public:
  explicit AskedWeights(const WeightSource& source) : source_(source) {}
  bool has(std::string_view name) const override { return note(name, source_.has(name)); }
  HostTensor get(std::string_view name) const override { return source_.get(name); }
  std::optional<DType> type_of(std::string_view name) const override {
    note(name, source_.has(name));
    return source_.type_of(name);
  }
  const std::set<std::string, std::less<>>& names() const noexcept { return names_; }

 private:
  bool note(std::string_view name, bool there) const {
    if (there) names_.emplace(name);
    return there;
  }
  const WeightSource& source_;
  mutable std::set<std::string, std::less<>> names_;
};

void add_piece(Sha256Stream& hash, const HostTensor& tensor, std::size_t at, std::size_t size) {
  if (tensor.source == nullptr) return hash.add(tensor.data.subspan(at, size));
  std::vector<std::byte> piece(size);
  read_bytes(tensor, at, piece);
  hash.add(piece);
}

void add_texts(comm::ByteWriter& writer, const Texts& texts) {
  writer.number(texts.size());
  for (const auto& [name, value] : texts) {
    writer.text(name);
    writer.text(value);
  }
}

}  // namespace

std::string fingerprint(const ModelDescription& model, const WeightSource& weights) {
  Sha256Stream hash;
  const auto add = [&](std::string_view text) {
    hash.add(std::as_bytes(std::span(text)));
    hash.add(std::as_bytes(std::span("\n", 1)));
  };
  for (const auto& [name, value] : model.to_text()) {
    add(name);
    add(value);
  }
  const AskedWeights asked(weights);
  CpuOptions quick;
  quick.threads = 1;
  static_cast<void>(plan_model_memory(model, *make_cpu_backend(quick), 16, 1, 1, &asked));
  constexpr std::size_t kPiece = 4096;  // from the begin, the middle and the end
  for (const std::string& name : asked.names()) {
    const HostTensor tensor = weights.get(name);
    add(name);
    add(info(tensor.dtype).name);
    hash.add(std::as_bytes(std::span(&tensor.shape, 1)));
    const std::size_t bytes = tensor.size_bytes(), size = std::min(bytes, kPiece);
    for (const std::size_t at : {std::size_t{0}, (bytes - size) / 2, bytes - size}) add_piece(hash, tensor, at, size);
  }
  std::string text = str(model.architecture, ", ", model.num_layers, " layers, ");
  const Digest digest = hash.finish();
  for (std::size_t i = 0; i < 8; ++i) {
    constexpr std::string_view digits = "0123456789abcdef";
    text += digits[std::to_integer<std::size_t>(digest[i]) >> 4];
    text += digits[std::to_integer<std::size_t>(digest[i]) & 15];
  }
  return text;
}

comm::Member member_of(const EngineConfig& config, const std::string& model) {
  const auto milliseconds = [](double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000.0));
  };
  comm::Member member;
  member.address = config.ranks.rank_address;
  member.token = comm::load_token(config.ranks.rank_token_file);
  member.alike = {{"model", model}};
  member.patience = milliseconds(config.ranks.rank_patience);
  member.limits.deadline = milliseconds(config.ranks.rank_deadline);
  if (comm::Address(member.address).local && config.tensor_parallel > usable_cpus()) member.limits.spin = {};
  return member;
}

std::unique_ptr<comm::Communicator> join(const comm::Member& member) {
  if (comm::Address(member.address).local) return comm::join_shared_memory(member);
  return comm::join_tcp(member);
}

Texts shared_options(const EngineConfig& config) {
  Texts texts;
  for (const OptionInfo& option : options_of<EngineConfig>())
    if (!is_own(option.name)) texts.emplace_back(option.name, get_option(config, option.name));
  return texts;
}

EngineConfig with_options(EngineConfig own, const Texts& options) {
  for (const auto& [name, value] : options)
    if (!is_own(name)) set_option(own, name, value);
  return own;
}

Readiness failed_with_current_exception() noexcept {
  Readiness failed{Readiness::State::failed, 0, 0, 0, {}};
  try {
    try {
      throw;
    } catch (const InvalidArgument& e) {
      failed.error = 1, failed.text = e.what();
    } catch (const Unsupported& e) {
      failed.error = 2, failed.text = e.what();
    } catch (const Corrupt& e) {
      failed.error = 3, failed.text = e.what();
    } catch (const Io& e) {
      failed.error = 4, failed.text = e.what();
    } catch (const OutOfMemory& e) {
      failed.error = 5, failed.text = e.what();
    } catch (const std::bad_alloc&) {
      failed.error = 5, failed.text = "there is not enough memory for its part of the model";
    } catch (const std::exception& e) {
      failed.text = e.what();
    }
  } catch (...) {  // no memory for the words
  }
  return failed;
}

void throw_error(const Readiness& failed, int rank) {
  const std::string what = str("rank ", rank, ": ", failed.text);
  switch (failed.error) {
    case 1:
      throw InvalidArgument(what);
    case 2:
      throw Unsupported(what);
    case 3:
      throw Corrupt(what);
    case 4:
      throw Io(what);
    case 5:
      throw OutOfMemory(what);
    default:
      throw Aborted(what);
  }
}

void agree(comm::Communicator& group, const std::function<Readiness()>& own, std::vector<Readiness>& said) {
  const auto ranks = static_cast<std::size_t>(group.size());
  std::vector<std::byte> mine(kRecord), all(kRecord * ranks);
  std::vector<std::span<std::byte>> receive;
  for (std::size_t r = 0; r < ranks; ++r) receive.push_back(std::span(all).subspan(r * kRecord, kRecord));
  while (true) {
    const Readiness now = own();
    std::vector<std::byte> bytes;
    comm::ByteWriter writer(bytes);
    writer.fixed(now.state);
    writer.fixed(now.error);
    writer.fixed(now.cache);
    writer.fixed<std::uint64_t>(static_cast<std::uint64_t>(getpid()));
    writer.text(std::string_view(now.text).substr(0, kMostText));
    std::ranges::fill(mine, std::byte{0});
    std::ranges::copy(bytes, mine.begin());
    group.all_gather(mine, receive);
    said.clear();
    bool over = true, failed = false;
    for (const auto& record : receive) {
      comm::ByteReader reader(record, "how far a rank is");
      Readiness& its = said.emplace_back();
      its.state = reader.fixed<Readiness::State>();
      its.error = reader.fixed<std::uint8_t>();
      its.cache = reader.fixed<std::uint64_t>();
      its.process = reader.fixed<std::uint64_t>();
      its.text = reader.text();
      over = over && its.state == Readiness::State::ready;
      failed = failed || its.state == Readiness::State::failed;
    }
    if (over || failed) return;
    std::this_thread::sleep_for(kPause);
  }
}

void Mouth::say(comm::Communicator& group, Word word, std::span<const std::byte> bytes) {
  bytes_.clear();
  comm::ByteWriter writer(bytes_);
  if (bytes.size() < kMostPiece) {
    writer.fixed(word);
    writer.raw(bytes);
    group.broadcast(bytes_, 0);
    return;
  }
  writer.fixed(Word::long_one);
  writer.fixed(word);
  writer.fixed<std::uint64_t>(bytes.size());
  group.broadcast(bytes_, 0);
  for (std::size_t at = 0; at < bytes.size(); at += kMostPiece) {
    bytes_.assign(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                  bytes.begin() + static_cast<std::ptrdiff_t>(std::min(at + kMostPiece, bytes.size())));
    group.broadcast(bytes_, 0);
  }
}

std::pair<Word, std::span<const std::byte>> Ear::hear(comm::Communicator& group) {
  constexpr std::size_t kMostWord = std::size_t{1} << 32;
  if (bytes_.size() < kMostPiece) bytes_.resize(kMostPiece);
  const std::size_t said = group.broadcast(std::span(bytes_).first(kMostPiece), 0, comm::Patience::idle);
  comm::ByteReader reader(std::span<const std::byte>(bytes_).first(said), "what rank 0 says");
  const auto word = reader.fixed<Word>();
  if (word < Word::setup || word > Word::long_one)
    throw Corrupt(str("rank 0 said a word of kind ", static_cast<int>(word), ", which there is not"));
  if (word != Word::long_one) return {word, reader.raw(reader.left())};
  const auto kind = reader.fixed<Word>();
  const auto size = reader.fixed<std::uint64_t>();
  reader.end();
  if (size > kMostWord) throw Corrupt(str("rank 0 announced ", size, " bytes; it never says more than ", kMostWord));
  std::size_t at = 0;
  while (at < size) {  // no more is made room for than has come
    bytes_.resize(std::max(bytes_.size(), at + kMostPiece));
    const std::size_t most = std::min<std::size_t>(kMostPiece, static_cast<std::size_t>(size) - at);
    if (group.broadcast(std::span(bytes_).subspan(at, most), 0) != most)
      throw Corrupt(str("rank 0 said less than the ", size, " bytes that it announced"));
    at += most;
  }
  return {kind, std::span(bytes_).first(at)};
}

std::vector<std::byte> to_bytes(const Setup& setup) {
  std::vector<std::byte> bytes;
  comm::ByteWriter writer(bytes);
  writer.fixed(setup.cache);
  add_texts(writer, setup.options);
  return bytes;
}

Setup setup_of(std::span<const std::byte> bytes) {
  comm::ByteReader reader(bytes, "the options of rank 0");
  Setup setup;
  setup.cache = reader.fixed<std::uint64_t>();
  for (std::size_t n = reader.count(2); n > 0; --n) {
    std::string name = reader.text();
    setup.options.emplace_back(std::move(name), reader.text());
  }
  reader.end();
  return setup;
}

namespace {
using Counts = std::array<std::uint64_t, 5>;
}

std::size_t report_size(const RankStep& step) noexcept {
  const std::size_t moves = step.swap_outs.size() + step.swap_ins.size();
  return 1 + (moves > 0 ? sizeof(Counts) + moves : 0);
}

void write_report(const RankRunner& runner, std::span<std::byte> report) {
  report[0] = std::byte{1};
  if (report.size() == 1) return;
  const SwapCounters& c = runner.swap_store()->counters();
  const Counts counts{c.bytes_out, c.bytes_in, c.file_bytes_out, c.file_bytes_in, c.errors};
  std::memcpy(report.data() + 1, counts.data(), sizeof counts);
  const auto lost = std::as_bytes(runner.lost());
  std::ranges::copy(lost, report.begin() + 1 + sizeof counts);
}

void read_report(std::span<const std::byte> report, std::span<std::uint8_t> lost, SwapCounters& counters) {
  if (report.size() == 1) return;
  Counts counts;
  std::memcpy(counts.data(), report.data() + 1, sizeof counts);
  counters.bytes_out = counts[0];
  counters.bytes_in = counts[1];
  counters.file_bytes_out = counts[2];
  counters.file_bytes_in = counts[3];
  counters.errors = counts[4];
  const auto flags = report.subspan(1 + sizeof counts);
  for (std::size_t i = 0; i < std::min(lost.size(), flags.size()); ++i)
    lost[i] = static_cast<std::uint8_t>(lost[i] | std::to_integer<std::uint8_t>(flags[i]));
}

}  // namespace pagedcore::ranks
