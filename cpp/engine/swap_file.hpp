// The file tier of the swap space.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace pagedcore {

/// Random access to the bytes of one file, from several threads at once. Tests put in one that fails.
class SwapFile {
 public:
  virtual ~SwapFile() = default;
  /// All bytes, or Io with the reason: a full or failing disk, a file that ends too early.
  virtual void write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual void read(std::uint64_t offset, std::span<std::byte> bytes) = 0;
};

/// Creates `path`, which must not exist, and removes its name at once: the file is this object's alone and is gone with
/// the process, however that ends. Throws Io.
std::unique_ptr<SwapFile> make_swap_file(const std::string& path);

}  // namespace pagedcore
