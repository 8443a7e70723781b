#include "pagedcore/rank_trial.hpp"

#include <algorithm>
#include <chrono>

#include "base/text.hpp"
#include "comm/bytes.hpp"
#include "engine/rank_talk.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::size_t kRecord = 1024;  // of what a rank says of itself
constexpr std::size_t kMostText = kRecord - 24;

/// Everybody's record, by rank.
std::vector<std::byte> gather(comm::Communicator& group, std::span<const std::byte> own) {
  std::vector<std::byte> all(own.size() * static_cast<std::size_t>(group.size()));
  std::vector<std::span<std::byte>> receive;
  for (std::size_t at = 0; at < all.size(); at += own.size()) receive.push_back(std::span(all).subspan(at, own.size()));
  group.all_gather(own, receive);
  return all;
}

double median_seconds(comm::Communicator& group, std::size_t bytes, int times) {
  const std::vector<std::byte> own(bytes);
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    gather(group, own);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::ranges::nth_element(seconds, seconds.begin() + times / 2);
  return seconds[static_cast<std::size_t>(times / 2)];
}

}  // namespace

RankTrial try_ranks(const RankOptions& where, std::int32_t rank, std::int32_t ranks, const std::string& host) {
  if (ranks < 2 || rank < 0 || rank >= ranks)
    throw InvalidArgument(str("rank ", rank, " of ", ranks, " ranks: name 2 ranks or more, and one below that"));
  if (host.size() > kMostText)
    throw InvalidArgument(str("what a rank says of its host has ", host.size(), " bytes; at most ", kMostText));
  EngineConfig config;
  config.ranks = where;
  config.tensor_parallel = ranks;
  comm::Member member = ranks::member_of(config, "none: the hosts are tried");
  member.rank = rank;
  member.ranks = ranks;
  const auto group = ranks::join(member);
  std::vector<std::byte> own;
  comm::ByteWriter(own).text(host);
  own.resize(kRecord);
  const std::vector<std::byte> said = gather(*group, own);
  RankTrial trial;
  for (std::size_t at = 0; at < said.size(); at += kRecord)
    trial.hosts.push_back(
        comm::ByteReader(std::span<const std::byte>(said).subspan(at, kRecord), "what a rank says of its host").text());
  trial.small_seconds = median_seconds(*group, 64, 101);
  trial.large_seconds = median_seconds(*group, std::size_t{1} << 20, 11);
  group->barrier();
  return trial;
}

}  // namespace pagedcore
