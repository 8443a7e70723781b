// The exceptions that pagedcore throws. A message names the value, the limit it met and the remedy.
#pragma once

#include <stdexcept>
#include <string>

#include "pagedcore/export.hpp"

namespace pagedcore {

/// Base of every exception thrown by pagedcore.
class PAGEDCORE_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~Error() override;
};

/// The caller passed something outside its documented range. Nothing has changed.
class PAGEDCORE_API InvalidArgument : public Error {
 public:
  using Error::Error;
  ~InvalidArgument() override;
};

/// Memory for the call could not be allocated. Nothing has changed.
class PAGEDCORE_API OutOfMemory : public Error {
 public:
  using Error::Error;
  ~OutOfMemory() override;
};

/// Too many requests wait: the same call may succeed later. Nothing has changed.
class PAGEDCORE_API Overloaded : public Error {
 public:
  using Error::Error;
  ~Overloaded() override;
};

/// A model, tensor type, device or instruction set that this build does not serve.
class PAGEDCORE_API Unsupported : public Error {
 public:
  using Error::Error;
  ~Unsupported() override;
};

/// A file or a buffer contradicts itself, or an internal invariant no longer holds.
class PAGEDCORE_API Corrupt : public Error {
 public:
  using Error::Error;
  ~Corrupt() override;
};

/// The object was closed, aborted, poisoned, or is used in a forked child.
class PAGEDCORE_API Aborted : public Error {
 public:
  using Error::Error;
  ~Aborted() override;
};

/// The operating system refused to open, map, read or write.
class PAGEDCORE_API Io : public Error {
 public:
  using Error::Error;
  ~Io() override;
};

}  // namespace pagedcore
