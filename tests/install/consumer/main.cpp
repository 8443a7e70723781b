// Uses what it was linked with: the version, a block pool with copy-on-write, an exception across the library's border.
#include <cstdio>
#include <cstring>
#include <pagedcore/error.hpp>
#include <pagedcore/kv_cache.hpp>
#include <pagedcore/version.hpp>
#include <vector>

namespace pc = pagedcore;

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  ++failures;
}

}  // namespace

int main() {
  expect(std::strcmp(pc::version(), EXPECTED_VERSION) == 0, "the loaded library has the expected version");
  expect(std::strcmp(PAGEDCORE_VERSION, EXPECTED_VERSION) == 0, "the headers have the expected version");

  pc::KvCacheConfig config;
  config.num_blocks = 4;
  config.block_size = 16;
  pc::KvCacheManager cache(config);
  const pc::SequenceId parent{1}, child{2};
  std::vector<pc::BlockCopy> copies;

  cache.create(parent, 0, {});
  cache.append(parent, 20, copies);
  expect(copies.empty() && cache.counts().used == 2, "20 tokens take two blocks and no copy");

  cache.fork(parent, child, 20);
  expect(cache.counts().used == 2 && cache.counts().shared == 2, "a fork shares both blocks");
  cache.append(child, 21, copies);
  expect(copies.size() == 1 && copies[0].num_tokens == 4, "the write copies the 4 filled slots of the last block");

  bool caught = false;
  try {
    cache.append(parent, 1000, copies);
  } catch (const pc::OutOfMemory&) {
    caught = true;
  }
  expect(caught, "OutOfMemory is caught by its type");

  cache.free(parent, pc::StepId{0});
  cache.free(child, pc::StepId{0});
  cache.check();
  expect(cache.available() == 4, "all blocks are back");
  return failures == 0 ? 0 : 1;
}
