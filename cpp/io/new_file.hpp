// A file that appears under its name complete or not at all.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace pagedcore::io {

/// Writes to a temporary file beside `path`; commit() makes it durable and renames it over `path`. Without a commit the
/// temporary file goes and `path` is what it was. A link is replaced, not followed; a device, a FIFO, a socket or a
/// directory is refused. Every function throws Io.
class NewFile {
 public:
  explicit NewFile(std::string path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace pagedcore::io
