// The directory of a store: opened once, and everything in it reached relative to that. Other users' files, symbolic
// links, FIFOs and devices are not touched, and nothing here waits for anybody.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pagedcore::store {

/// A descriptor that is closed with it.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) noexcept : fd_(fd) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept;

 private:
  int fd_;
};

struct FileInfo {
  std::string name;
  std::uint64_t bytes = 0;
  double used = 0.0;  // seconds since the epoch when it was last written or read from
};

class SegmentFiles {
 public:
  /// Makes the directory (mode 0700) where there is none; its parent must be there. Throws Io for what is no directory,
  /// and for one of another user or that others may write to.
  explicit SegmentFiles(const std::string& directory);

  const std::string& directory() const noexcept { return directory_; }
  /// All segment files of this user, of whichever identity. Empty where the directory cannot be read any more.
  std::vector<FileInfo> list() const;
  /// A regular file of this user. None, and `why`, where it is anything else or cannot be opened.
  Descriptor open(const std::string& name, bool writable, std::string* why = nullptr) const;
  /// A new file of mode 0600, locked. None, with the reason, where it cannot be made.
  Descriptor create(const std::string& name, std::string& why) const;
  /// Takes the lock that a writer holds on its segment; false where another process or store has it.
  static bool lock(const Descriptor& file) noexcept;
  /// False where it cannot be removed, or is being written by somebody.
  bool remove(const std::string& name) const;
  bool exists(const std::string& name) const;

 private:
  std::string directory_;
  Descriptor fd_;
};

/// As open(2) says it, with the path.
std::string system_error(std::string_view path, std::string_view what, int error);

}  // namespace pagedcore::store
