// Chains of blocks whose bytes follow from their keys, and a directory for them.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "store/block_store.hpp"

namespace chains {

using namespace pagedcore;
using namespace pagedcore::store;

constexpr BlockFormat kFormat{4, 1, 1000};  // odd enough: no multiple of the checksum's 32 bytes

class Directory {
 public:
  Directory() {
    static std::mt19937_64 random(std::random_device{}());
    path_ = std::filesystem::temp_directory_path() / ("pagedcore-store-" + std::to_string(random()));
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string path() const { return path_.string(); }
  std::vector<std::filesystem::path> segments() const {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      if (entry.path().extension() == ".kv") found.push_back(entry.path());
    return found;
  }

 private:
  std::filesystem::path path_;
};

inline StoreConfig config(const Directory& directory, std::uint64_t size = 1 << 20, const char* identity = "model",
                          BlockFormat format = kFormat) {
  return {directory.path(), size, identity_of(identity), format, std::vector<std::uint32_t>(format.groups)};
}

struct Chain {
  explicit Chain(std::uint32_t seed, std::size_t blocks = 1, BlockFormat the_format = kFormat,
                 const char* identity = "model")
      : format(the_format) {
    for (std::size_t i = 0; i < blocks * format.block_size; ++i)
      tokens.push_back(static_cast<TokenId>(seed * 1000 + i));
    root = root_key(identity_of(identity).digest, {seed});
    keys = chain_keys(root, tokens, format.block_size);
  }
  std::span<const TokenId> of(std::size_t i) const {
    return std::span(tokens).subspan(i * format.block_size, format.block_size);
  }
  std::vector<std::byte> bytes(std::size_t i, std::uint32_t group = 0) const {
    std::vector<std::byte> made(format.block_bytes);
    std::uint64_t state = 0;
    std::memcpy(&state, keys[i].data(), sizeof(state));
    for (std::byte& b : made) b = static_cast<std::byte>((state = state * 6364136223846793005u + 2 * group + 1) >> 56);
    return made;
  }
  bool write(BlockStore& store, std::size_t i, std::uint32_t group = 0) const {
    return store.write(keys[i], group, of(i), bytes(i, group));
  }
  /// 1: there, and what was written; 0: not there; -1: something else.
  int read(BlockStore& store, std::size_t i, std::uint32_t group = 0) const {
    std::vector<std::byte> out(format.block_bytes);
    if (!store.read(keys[i], group, of(i), out)) return 0;
    return out == bytes(i, group) ? 1 : -1;
  }

  BlockFormat format;
  BlockKey root{};
  std::vector<TokenId> tokens;
  std::vector<BlockKey> keys;
};

}  // namespace chains
