// C++ exceptions become the classes of pagedcore/errors.py: defined there, since they also derive from built-in ones.
#include <exception>

#include "bindings/bindings.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::bindings {
namespace {

/// Held for as long as the process lives: at its end nothing can be imported any more, and streams that are left over
/// are told that their engine is closed.
struct ErrorClasses {
  nb::handle error, invalid_argument, out_of_memory, overloaded, unsupported, corrupt, aborted, io;
};
ErrorClasses classes;

nb::handle error_class(const char* name) {
  nb::object type = nb::module_::import_("pagedcore.errors").attr(name);
  return type.release();
}

/// A message may quote bytes of a broken file: what is not UTF-8 is replaced, so that it cannot hide the error.
void raise(nb::handle type, const Error& error) {
  const std::string_view what = error.what();
  const nb::object message =
      nb::steal(PyUnicode_DecodeUTF8(what.data(), static_cast<Py_ssize_t>(what.size()), "replace"));
  PyErr_SetObject(type.ptr(), message.ptr());
}

void translate(const std::exception_ptr& error, void*) {
  try {
    std::rethrow_exception(error);
  } catch (const InvalidArgument& e) {
    raise(classes.invalid_argument, e);
  } catch (const OutOfMemory& e) {
    raise(classes.out_of_memory, e);
  } catch (const Overloaded& e) {
    raise(classes.overloaded, e);
  } catch (const Unsupported& e) {
    raise(classes.unsupported, e);
  } catch (const Corrupt& e) {
    raise(classes.corrupt, e);
  } catch (const Aborted& e) {
    raise(classes.aborted, e);
  } catch (const Io& e) {
    raise(classes.io, e);
  } catch (const Error& e) {
    raise(classes.error, e);
  }
}

}  // namespace

void bind_errors(nb::module_&) {
  // An installation without the Python half fails at import.
  classes = {
      error_class("Error"),       error_class("InvalidArgument"), error_class("OutOfMemory"), error_class("Overloaded"),
      error_class("Unsupported"), error_class("Corrupt"),         error_class("Aborted"),     error_class("Io")};
  nb::register_exception_translator(translate);
}

}  // namespace pagedcore::bindings
