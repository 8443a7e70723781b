// C++ exceptions become the classes of pagedcore/errors.py: defined there, since they also derive from built-in ones.
#include <exception>

#include "bindings/bindings.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::bindings {
namespace {

nb::object error_class(const char* name) { return nb::module_::import_("pagedcore.errors").attr(name); }

/// A message may quote bytes of a broken file: what is not UTF-8 is replaced, so that it cannot hide the error.
void raise(const char* name, const Error& error) {
  const std::string_view what = error.what();
  const nb::object message =
      nb::steal(PyUnicode_DecodeUTF8(what.data(), static_cast<Py_ssize_t>(what.size()), "replace"));
  PyErr_SetObject(error_class(name).ptr(), message.ptr());
}

void translate(const std::exception_ptr& error, void*) {
  try {
    std::rethrow_exception(error);
  } catch (const InvalidArgument& e) {
    raise("InvalidArgument", e);
  } catch (const OutOfMemory& e) {
    raise("OutOfMemory", e);
  } catch (const Unsupported& e) {
    raise("Unsupported", e);
  } catch (const Corrupt& e) {
    raise("Corrupt", e);
  } catch (const Aborted& e) {
    raise("Aborted", e);
  } catch (const Io& e) {
    raise("Io", e);
  } catch (const Error& e) {
    raise("Error", e);
  }
}

}  // namespace

void bind_errors(nb::module_&) {
  error_class("Error");  // an installation without the Python half fails at import
  nb::register_exception_translator(translate);
}

}  // namespace pagedcore::bindings
