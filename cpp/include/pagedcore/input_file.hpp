// A model file that is open for reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "pagedcore/export.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// A regular file, read by pread wherever bytes are wanted. A file that is shortened or written to meanwhile is one Io
/// error. Immutable; any thread may read.
class PAGEDCORE_API InputFile final : public ByteSource {
 public:
  /// Throws Io when the file is missing, unreadable, empty or not a regular file (a pipe, a device, a directory).
  /// `mmap`: maps the file, so that its bytes are used where they lie. That trusts everybody who may write to it: where
  /// a mapped file is shortened, reading it ends the process (SIGBUS).
  explicit InputFile(const std::string& path, bool mmap = false);
  ~InputFile() override;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::uint64_t size() const noexcept;  // when it was opened
  void read(std::uint64_t offset, std::span<std::byte> out) const override;
  /// `length` bytes from `offset` on as a u8 tensor, which needs this file alive. Throws InvalidArgument when they lie
  /// outside the file.
  HostTensor part(std::uint64_t offset, std::uint64_t length) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore
