#include "capi/status.hpp"

#include <pthread.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/version.hpp"

namespace pagedcore::capi {
namespace {

/// The message of each thread's last error: under a key of the thread library, since the first touch of a thread-local
/// string may end the process where memory is short. A thread's message goes with the thread.
class LastError {
 public:
  LastError() noexcept : has_key_(pthread_key_create(&key_, [](void* text) { std::free(text); }) == 0) {}

  void set(const char* message) noexcept {
    if (!has_key_) return;
    char* const before = static_cast<char*>(pthread_getspecific(key_));
    char* const text = strdup(message);
    if (text == nullptr && before != nullptr) {
      *before = '\0';  // better no reason than a wrong one
    } else if (text != nullptr && pthread_setspecific(key_, text) == 0) {
      std::free(before);
    } else {
      std::free(text);
    }
  }
  const char* get() const noexcept {
    const void* text = has_key_ ? pthread_getspecific(key_) : nullptr;
    return text != nullptr ? static_cast<const char*>(text) : "";
  }

 private:
  pthread_key_t key_{};
  bool has_key_;
};

LastError& last_error() noexcept {
  static LastError error;
  return error;
}

pc_status remember(pc_status status, const char* message) noexcept {
  last_error().set(message);
  return status;
}

}  // namespace

pc_status status_of_current_exception() noexcept {
  try {
    throw;
  } catch (const InvalidArgument& e) {
    return remember(PC_INVALID_ARGUMENT, e.what());
  } catch (const OutOfMemory& e) {
    return remember(PC_OUT_OF_MEMORY, e.what());
  } catch (const Overloaded& e) {
    return remember(PC_OVERLOADED, e.what());
  } catch (const Unsupported& e) {
    return remember(PC_UNSUPPORTED, e.what());
  } catch (const Corrupt& e) {
    return remember(PC_CORRUPT, e.what());
  } catch (const Aborted& e) {
    return remember(PC_ABORTED, e.what());
  } catch (const Io& e) {
    return remember(PC_IO, e.what());
  } catch (const std::bad_alloc&) {
    return remember(PC_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return remember(PC_INTERNAL, e.what());
  } catch (...) {
    return remember(PC_INTERNAL, "an exception of unknown type");
  }
}

std::string number_text(double value) {
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

void require(const void* pointer, const char* name) {
  if (pointer == nullptr) throw InvalidArgument(str("argument '", name, "' is null"));
}

}  // namespace pagedcore::capi

const char* pc_status_name(pc_status status) noexcept {
  switch (status) {
    case PC_OK:
      return "PC_OK";
    case PC_INVALID_ARGUMENT:
      return "PC_INVALID_ARGUMENT";
    case PC_OUT_OF_MEMORY:
      return "PC_OUT_OF_MEMORY";
    case PC_UNSUPPORTED:
      return "PC_UNSUPPORTED";
    case PC_CORRUPT:
      return "PC_CORRUPT";
    case PC_ABORTED:
      return "PC_ABORTED";
    case PC_IO:
      return "PC_IO";
    case PC_INTERNAL:
      return "PC_INTERNAL";
    case PC_OVERLOADED:
      return "PC_OVERLOADED";
  }
  return "unknown pc_status";
}

const char* pc_last_error(void) noexcept { return pagedcore::capi::last_error().get(); }

const char* pc_version(void) noexcept { return pagedcore::version(); }
