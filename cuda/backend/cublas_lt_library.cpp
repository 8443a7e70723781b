#include "backend/cublas_lt_library.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <type_traits>
#include <vector>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda::lt {
namespace {

constexpr const char* kVariable = "PAGEDCORE_CUBLASLT";
constexpr std::size_t kOldest = 120000;  // those of CUDA 11 have another soname and other attributes

std::string version_text(std::size_t version) {
  return str(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

std::string remedy() {
  return str(
      "install it (pip install nvidia-cublas for CUDA 13, nvidia-cublas-cu12 for 12) and name its folder in "
      "LD_LIBRARY_PATH or its path in ",
      kVariable, ", or leave cublas_lt off");
}

struct Close {
  void operator()(void* library) const { dlclose(library); }
};
/// The library, and the name that it was found by.
struct Opened {
  std::unique_ptr<void, Close> library;
  std::string name;
};

Opened open_any() {
  std::vector<std::string> names{"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
  if (const char* named = std::getenv(kVariable); named != nullptr && *named != '\0') names = {named};
  std::string tried;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return {{library, {}}, name};
    const char* why = dlerror();
    tried += str(tried.empty() ? "" : "; ", why != nullptr ? why : name.c_str());
  }
  throw Unsupported(str("cublas_lt: cuBLASLt cannot be opened (", tried, "); ", remedy()));
}

void* symbol(const Opened& opened, const char* name) {
  const std::string whole = str("cublasLt", name);
  if (void* found = dlsym(opened.library.get(), whole.c_str())) return found;
  throw Unsupported(str("cublas_lt: ", opened.name, " has no function ", whole, "; ", remedy()));
}

}  // namespace

std::string Library::version() const { return version_text(GetVersion()); }

Library open_library() {
  Opened opened = open_any();
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol(opened, name));
  };
  Library l{};
  find(l.GetVersion, "GetVersion");
  if (const std::size_t version = l.GetVersion(); version < kOldest)
    throw Unsupported(str("cublas_lt: ", opened.name, " is cuBLASLt ", version_text(version), ", older than ",
                          version_text(kOldest), "; ", remedy()));
  find(l.GetStatusName, "GetStatusName");
  find(l.Create, "Create");
  find(l.Destroy, "Destroy");
  find(l.MatmulDescCreate, "MatmulDescCreate");
  find(l.MatmulDescDestroy, "MatmulDescDestroy");
  find(l.MatmulDescSetAttribute, "MatmulDescSetAttribute");
  find(l.MatrixLayoutCreate, "MatrixLayoutCreate");
  find(l.MatrixLayoutDestroy, "MatrixLayoutDestroy");
  find(l.MatmulPreferenceCreate, "MatmulPreferenceCreate");
  find(l.MatmulPreferenceDestroy, "MatmulPreferenceDestroy");
  find(l.MatmulPreferenceSetAttribute, "MatmulPreferenceSetAttribute");
  find(l.MatmulAlgoGetHeuristic, "MatmulAlgoGetHeuristic");
  find(l.Matmul, "Matmul");
  static_cast<void>(opened.library.release());  // it stays
  return l;
}

}  // namespace pagedcore::cuda::lt
