// Several stores on one directory, and several threads in one store.
#include <atomic>
#include <thread>

#include "chains.hpp"

using namespace chains;

// rule: store.writers-keep-apart
TEST_CASE("two engines of one model share what they write") {
  const Directory directory;
  BlockStore one(config(directory, 4 << 20)), two(config(directory, 4 << 20));
  const Chain a(1, 5), b(2, 5);
  for (std::size_t i = 0; i < 5; ++i) {
    REQUIRE(a.write(one, i));
    REQUIRE(b.write(two, i));
  }
  CHECK(directory.segments().size() == 2);
  CHECK(a.read(two, 0) == 0);
  two.refresh();
  one.refresh();
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(a.read(two, i) == 1);
    CHECK(b.read(one, i) == 1);
  }
  const Chain more(3, 2);  // into a segment that the other has looked at
  REQUIRE(more.write(one, 0));
  REQUIRE(more.write(one, 1));
  two.refresh();
  CHECK(two.find_chain(more.root, more.tokens) == 8);
}

TEST_CASE("engines of two models share a directory and its limit, and find nothing of each other") {
  const Directory directory;
  BlockStore one(config(directory, 128 << 10)), two(config(directory, 128 << 10, "other"));
  const Chain chain(1, 1);
  REQUIRE(chain.write(one, 0));
  two.refresh();
  CHECK(chain.read(two, 0) == 0);
  for (std::uint32_t i = 0; i < 200; ++i) {
    REQUIRE(Chain(10 + i, 1, kFormat, "other").write(two, 0));
    REQUIRE(Chain(10 + i).write(one, 0));
    std::uint64_t bytes = 0;
    for (const auto& segment : directory.segments()) bytes += std::filesystem::file_size(segment);
    REQUIRE(bytes <= (128 << 10) + (16 << 10));  // a block of the other since the last look
  }
}

TEST_CASE("what another engine removes is not there any more, and a file that goes while it is read is read") {
  const Directory directory;
  BlockStore one(config(directory)), two(config(directory));
  const Chain chain(1, 2);
  REQUIRE(chain.write(one, 0));
  two.refresh();
  CHECK(chain.read(two, 0) == 1);
  std::filesystem::remove(directory.segments().front());
  CHECK(chain.read(two, 0) == 1);  // its descriptor is open
  two.refresh();
  CHECK(chain.read(two, 0) == 0);
  CHECK(two.counts().evicted == 1);
  std::filesystem::remove_all(directory.path());
  one.refresh();
  static_cast<void>(chain.write(one, 1));  // whatever becomes of it, nothing is thrown
  CHECK(chain.read(one, 0) == 0);
}

TEST_CASE("readers, a writer and those who look, all at once") {
  const Directory directory;
  BlockStore store(config(directory, 96 << 10)), other(config(directory, 96 << 10));
  std::atomic<bool> ends{false};
  std::atomic<int> wrong{0}, found{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t i = static_cast<std::uint32_t>(t); !ends; i = (i + 7) % 300) {
        const Chain chain(i, 2);
        for (std::size_t block = 0; block < 2; ++block) {
          const int result = chain.read(t == 0 ? store : other, block);
          wrong += result < 0;
          found += result > 0;
        }
        static_cast<void>(store.find_chain(chain.root, chain.tokens));
      }
    });
  }
  threads.emplace_back([&] {
    while (!ends) {
      store.refresh();
      other.refresh();
      static_cast<void>(store.counts());
      static_cast<void>(store.last_error());
    }
  });
  threads.emplace_back([&] {
    for (std::uint32_t i = 299; !ends; i = (i + 298) % 300) {
      const Chain chain(i, 2);
      chain.write(other, 0);
      chain.write(other, 1);
    }
  });
  for (std::uint32_t i = 0; i < 300; ++i) {
    const Chain chain(i, 2);
    chain.write(store, 0);
    chain.write(store, 1);
  }
  ends = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(found > 0);
}
