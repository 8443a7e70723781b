// From exceptions to status codes with a message. Nothing is thrown across the C ABI.
#pragma once

#include <string>

#include "base/exception_memory.hpp"
#include "pagedcore/pagedcore.h"

namespace pagedcore::capi {

/// Call inside a catch block: the code of the exception in flight; its message becomes this thread's last error.
pc_status status_of_current_exception() noexcept;

/// The shortest digits that read back as the same number, whatever the locale.
std::string number_text(double value);

/// Throws InvalidArgument when `pointer` is null.
void require(const void* pointer, const char* name);

/// Runs `body` and turns what it throws into a status.
template <class Body>
pc_status guarded(const Body& body) noexcept {
  take_exception_memory_once();
  try {
    body();
    return PC_OK;
  } catch (...) {
    return status_of_current_exception();
  }
}

}  // namespace pagedcore::capi
