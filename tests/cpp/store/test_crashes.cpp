// A writer that is killed at any point: what it leaves is a store whose blocks verify, and that can be written to.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "chains.hpp"

using namespace chains;

namespace {

constexpr BlockFormat kLarge{4, 1, 300'000};  // a write of it takes long enough to be hit

}  // namespace

// rule: store.verified-or-absent
TEST_CASE("kill -9 at random points of writing: verified or absent") {
  const char* const asked = std::getenv("PAGEDCORE_STORE_KILLS");
  const int kills = asked != nullptr ? std::atoi(asked) : 25;
  const Directory directory;
  std::mt19937 random(11);
  const StoreConfig c = config(directory, 64 << 20, "model", kLarge);
  int found = 0, partial = 0;
  for (int run = 0; run < kills; ++run) {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // writes for ever
      BlockStore store(c);
      for (std::uint32_t i = 0;; ++i) {
        const Chain chain(static_cast<std::uint32_t>(run) * 10'000 + i, 3, kLarge);
        for (std::size_t block = 0; block < 3; ++block) {
          static_cast<void>(!::write(ready[1], "x", 1));  // one more begins
          chain.write(store, block);
        }
      }
    }
    // Some blocks are waited for, however slow the machine is; then a time that ends anywhere in one.
    for (auto blocks = random() % 8 + 1; blocks > 0; --blocks) {
      char byte = 0;
      REQUIRE(::read(ready[0], &byte, 1) == 1);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 1000));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    ::close(ready[0]);
    ::close(ready[1]);
    BlockStore store(c);
    std::uint32_t missing = 0;
    for (std::uint32_t i = 0; missing == 0; ++i) {
      const Chain chain(static_cast<std::uint32_t>(run) * 10'000 + i, 3, kLarge);
      for (std::size_t block = 0; block < 3; ++block) {
        const int result = chain.read(store, block);
        REQUIRE(result >= 0);
        found += result;
        missing += result == 0;
      }
      partial += missing > 0 && missing < 3;
    }
    CHECK(store.counts().errors == 0);  // absent is not even looked at
    CHECK(Chain(999'999, 1, kLarge).write(store, 0));
  }
  CHECK(found > kills);
  MESSAGE(kills << " kills, " << found << " blocks found, " << partial << " chains cut");
}
