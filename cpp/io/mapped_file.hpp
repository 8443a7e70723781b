// A whole file in memory, read-only, by mmap.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace pagedcore::io {

class MappedFile {
 public:
  /// Throws Io when the file is missing, unreadable, empty or not a regular file. The size is that at the time of
  /// opening: a file that another process shortens later is read past its end, which the kernel answers with SIGBUS.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace pagedcore::io
