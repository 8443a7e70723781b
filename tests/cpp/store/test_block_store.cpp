// A store in a directory: what comes back, what is not believed, what goes first, and what is refused.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "chains.hpp"
#include "pagedcore/error.hpp"

using namespace chains;

namespace {

std::vector<char> content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::filesystem::path& path, const std::vector<char>& content) {
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

}  // namespace

// rule: store.key-is-all-that-matters
TEST_CASE("a key depends on the identity, the adapter, the salt and every token before") {
  const Digest identity = identity_of("a").digest;
  const std::vector<TokenId> tokens{1, 2, 3, 4, 5, 6, 7, 8};
  std::set<BlockKey> keys;
  const auto add = [&](const BlockKey& root, std::span<const TokenId> of) {
    for (const BlockKey& key : chain_keys(root, of, 4)) keys.insert(key);
  };
  add(root_key(identity, {}), tokens);
  add(root_key(identity, {1}), tokens);
  add(root_key(identity, {0, "adapter"}), tokens);
  add(root_key(identity_of("b").digest, {}), tokens);
  std::vector<TokenId> other = tokens;
  other[0] = 9;
  add(root_key(identity, {}), other);
  CHECK(keys.size() == 10);
  add(root_key(identity, {}), tokens);
  CHECK(keys.size() == 10);
  // The chain's second block alone is another one.
  CHECK(next_key(root_key(identity, {}), std::span(tokens).subspan(4)) !=
        chain_keys(root_key(identity, {}), tokens, 4)[1]);
}

TEST_CASE("blocks come back as they were written, also after a restart, in few files") {
  const Directory directory;
  const Chain chain(1, 40);
  for (std::size_t run = 0; run < 4; ++run) {
    BlockStore store(config(directory, 4 << 20));
    for (std::size_t i = 0; i < 10 * run; ++i) CHECK(chain.read(store, i) == 1);
    CHECK(store.find_chain(chain.root, chain.tokens) == 40 * run);
    for (std::size_t i = 10 * run; i < 10 * run + 10; ++i) {
      CHECK(chain.read(store, i) == 0);
      CHECK(chain.write(store, i));
      CHECK(chain.write(store, i));  // it is there
      CHECK(chain.read(store, i) == 1);
    }
    CHECK(store.counts().blocks == 10 * run + 10);
    CHECK(store.counts().errors == 0);
    CHECK(store.counts().bytes_written == 10 * 1000);
  }
  CHECK(directory.segments().size() == 1);
  struct stat status {};
  REQUIRE(::stat(directory.path().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);
  for (const auto& segment : directory.segments()) {
    REQUIRE(::stat(segment.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
  }
}

// rule: store.verified-or-absent
TEST_CASE("a changed byte anywhere in a file: the block is what was written, or it is not there") {
  const Directory directory;
  const Chain chain(2, 3);
  {
    BlockStore store(config(directory));
    for (std::size_t i = 0; i < 3; ++i) REQUIRE(chain.write(store, i));
  }
  const auto path = directory.segments().front();
  const std::vector<char> good = content_of(path);
  REQUIRE(good.size() > 3000);
  std::size_t lost = 0, tried = 0;
  // Every region: the head and headers byte by byte, the blocks in steps.
  for (std::size_t at = 0; at < good.size(); at += at < 5000 ? 1 : 37) {
    std::vector<char> bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x40);
    write_file(path, bad);
    BlockStore store(config(directory));
    ++tried;
    int found = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const int result = chain.read(store, i);
      if (result < 0) FAIL("byte " << at << " changed, and block " << i << " came back as something else");
      found += result;
    }
    lost += found < 3;
  }
  CHECK(tried > 4000);
  CHECK(lost > 4000);                                           // most bytes matter
  for (std::size_t size = 0; size < good.size(); size += 61) {  // cut off
    write_file(path, {good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)});
    BlockStore store(config(directory));
    for (std::size_t i = 0; i < 3; ++i) CHECK(chain.read(store, i) >= 0);
  }
}

TEST_CASE("a damaged block is forgotten, counted, and can be written again") {
  const Directory directory;
  const Chain chain(3, 2);
  BlockStore store(config(directory));
  REQUIRE(chain.write(store, 0));
  REQUIRE(chain.write(store, 1));
  const auto path = directory.segments().front();
  std::vector<char> content = content_of(path);
  content[content.size() - 5] = static_cast<char>(content[content.size() - 5] + 1);
  write_file(path, content);
  CHECK(chain.read(store, 0) == 1);
  CHECK(chain.read(store, 1) == 0);
  CHECK(store.counts().errors == 1);
  CHECK(store.last_error().find("other bytes") != std::string::npos);
  CHECK(store.find_chain(chain.root, chain.tokens) == 4);
  CHECK(chain.write(store, 1));
  CHECK(chain.read(store, 1) == 1);
}

TEST_CASE("the same key with other tokens is not believed") {
  const Directory directory;
  const Chain chain(4, 2);
  BlockStore store(config(directory));
  REQUIRE(chain.write(store, 0));
  std::vector<std::byte> out(kFormat.block_bytes);
  CHECK_FALSE(store.read(chain.keys[0], 0, chain.of(1), out));
}

// rule: store.least-recent-goes
TEST_CASE("the size is a limit, and what was used last stays") {
  const Directory directory;
  BlockStore store(config(directory, 256 << 10));
  const Chain hot(5, 4);
  for (std::size_t i = 0; i < 4; ++i) REQUIRE(hot.write(store, i));
  const auto bytes = [&] {
    std::uint64_t sum = 0;
    for (const auto& segment : directory.segments()) sum += std::filesystem::file_size(segment);
    return sum;
  };
  for (std::uint32_t i = 0; i < 600; ++i) {
    const Chain cold(100 + i);
    REQUIRE(cold.write(store, 0));
    CHECK(cold.read(store, 0) == 1);
    if (i % 10 == 0) ::usleep(3000);  // times of files have a granularity
    REQUIRE(bytes() <= 256 << 10);
  }
  CHECK(store.counts().evicted > 0);
  CHECK(store.counts().errors == 0);
  CHECK(store.counts().blocks < 604);
  CHECK(Chain(100).read(store, 0) == 0);
  CHECK(Chain(699).read(store, 0) == 1);
}

TEST_CASE("a segment that is read from outlives those that are not") {
  const Directory directory;
  const Chain hot(6, 1);
  {
    BlockStore store(config(directory, 64 << 10));
    REQUIRE(hot.write(store, 0));
  }
  BlockStore store(config(directory, 64 << 10));
  const auto first = directory.segments().front();
  for (std::uint32_t i = 0; i < 120; ++i) {
    const Chain cold(100 + i);
    REQUIRE(cold.write(store, 0));
    // Told at most once a second, so a test says it itself: what a read does, without the wait.
    CHECK(hot.read(store, 0) == 1);
    ::utimensat(AT_FDCWD, first.c_str(), nullptr, 0);
  }
  CHECK(hot.read(store, 0) == 1);
  CHECK(Chain(100).read(store, 0) == 0);
}

TEST_CASE("what is no block of ours is not touched, and nothing waits") {
  const Directory directory;
  const Chain chain(7, 1);
  {
    BlockStore made(config(directory));
    CHECK(chain.write(made, 0));
  }
  const std::filesystem::path path = directory.path();
  const std::string name = directory.segments().front().filename().string();
  const std::string prefix = name.substr(0, 17);
  REQUIRE(::mkfifo((path / (prefix + "fifo.kv")).c_str(), 0600) == 0);
  std::filesystem::create_symlink("/etc/passwd", path / (prefix + "link.kv"));
  std::filesystem::create_directory(path / (prefix + "dir.kv"));
  write_file(path / (prefix + "text.kv"), {'n', 'o'});
  write_file(path / (prefix + "long.kv"), std::vector<char>(9000, 'x'));
  BlockStore store(config(directory));
  CHECK(chain.read(store, 0) == 1);
  CHECK(chain.write(store, 0));
  CHECK(std::filesystem::exists(path / (prefix + "fifo.kv")));
}

TEST_CASE("directories that cannot be used are refused, with what to do") {
  const Directory directory;
  const auto refusal = [&](const StoreConfig& c) {
    try {
      BlockStore store(c);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  std::filesystem::create_directory(directory.path());
  StoreConfig c = config(directory);
  c.directory = directory.path() + "/none/here";
  CHECK(refusal(c).find("its parent") == std::string::npos);
  CHECK(refusal(c).find("cannot be made") != std::string::npos);
  c.directory = directory.path() + "/file";
  write_file(c.directory, {'x'});
  CHECK(refusal(c).find("is no directory") != std::string::npos);
  c.directory = directory.path() + "/fifo";
  REQUIRE(::mkfifo(c.directory.c_str(), 0600) == 0);
  CHECK(refusal(c).find("is no directory") != std::string::npos);
  c.directory = directory.path() + "/open";
  std::filesystem::create_directory(c.directory);
  ::chmod(c.directory.c_str(), 0777);
  CHECK(refusal(c).find("others may write to it") != std::string::npos);
  if (::geteuid() == 0) {  // only root can give a directory away
    ::chmod(c.directory.c_str(), 0700);
    REQUIRE(::chown(c.directory.c_str(), 12345, 12345) == 0);
    CHECK(refusal(c).find("belongs to user 12345") != std::string::npos);
  }
  CHECK(refusal(config(directory, 100)).find("kv_store_size = 100 bytes holds no block") != std::string::npos);
}

TEST_CASE("a limit on file sizes, as a full disk: told once for a while, and reading goes on") {
  const Directory directory;
  BlockStore store(config(directory));
  const Chain before(8, 1), after(9, 50);
  REQUIRE(before.write(store, 0));
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  sigset_t blocked, old;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);  // as the engine's threads have it
  const rlimit small{std::filesystem::file_size(directory.segments().front()) + 1500, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  int written = 0;
  for (std::size_t i = 0; i < 50; ++i) written += after.write(store, i);
  const StoreCounts counts = store.counts();
  const std::string error = store.last_error();
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  const timespec now{};
  sigtimedwait(&blocked, nullptr, &now);  // takes the pending signal
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  CHECK(written == 1);
  CHECK(counts.errors == 1);  // then it is not tried for a second
  CHECK(error.find("File too large") != std::string::npos);
  CHECK(before.read(store, 0) == 1);
  CHECK(after.read(store, 0) == 1);
  CHECK(after.read(store, 1) == 0);
}

// rule: store.windows-need-their-blocks
TEST_CASE("a chain of several groups is as long as what its windows reach is there") {
  const Directory directory;
  const BlockFormat format{4, 2, 200};
  StoreConfig c = config(directory, 1 << 20, "model", format);
  c.windows = {0, 8};
  BlockStore store(c);
  const Chain chain(10, 6, format);
  const auto length = [&] { return store.find_chain(chain.root, chain.tokens); };
  for (std::size_t i = 0; i < 6; ++i) REQUIRE(chain.write(store, i, 0));
  CHECK(length() == 0);
  REQUIRE(chain.write(store, 0, 1));
  CHECK(length() == 4);
  REQUIRE(chain.write(store, 5, 1));
  CHECK(length() == 4);  // at 24 the window of 8 reaches from 17: block 4 is missing
  REQUIRE(chain.write(store, 4, 1));
  CHECK(length() == 24);
}
