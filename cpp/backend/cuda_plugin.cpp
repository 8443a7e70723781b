// Opens the CUDA plugin on first use of the device; from then on it stays.
#include "backend/cuda_plugin.hpp"

#include <dlfcn.h>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/version.hpp"

namespace pagedcore {
namespace {

/// Beside the library (or program) that this function is part of.
std::string default_path() {
  Dl_info info{};
  std::string path;
  if (dladdr(reinterpret_cast<const void*>(&default_path), &info) != 0 && info.dli_fname != nullptr) {
    path = info.dli_fname;
  }
  const std::size_t slash = path.rfind('/');
  return (slash == std::string::npos ? std::string() : path.substr(0, slash + 1)) + kCudaPluginFile;
}

std::string path_of(const std::string& plugin) { return plugin.empty() ? default_path() : plugin; }

const CudaPlugin& open_plugin(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    throw Unsupported(str("the CUDA backend is not available: ", why != nullptr ? why : "dlopen failed",
                          "; install pagedcore-cuda13 of version ", PAGEDCORE_VERSION,
                          " (README, CUDA), or use device cpu"));
  }
  auto* entry = reinterpret_cast<CudaPluginEntry*>(dlsym(library, kCudaPluginEntry));
  const CudaPlugin* plugin = entry != nullptr ? entry() : nullptr;
  if (plugin == nullptr) {
    throw Unsupported(str("the CUDA backend ", path, " has no ", kCudaPluginEntry,
                          ", so it belongs to another version of pagedcore; this is ", PAGEDCORE_VERSION));
  }
  if (std::string(plugin->version) != PAGEDCORE_VERSION) {
    throw Unsupported(str("the CUDA backend ", path, " is of pagedcore ", plugin->version, "; this is ",
                          PAGEDCORE_VERSION, ": install both from one build"));
  }
  return *plugin;
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return open_plugin(path_of(options.plugin)).make_backend(options);
}

CudaStatus cuda_status(const std::string& plugin) {
  CudaStatus status;
  status.plugin = path_of(plugin);
  try {
    const CudaPlugin& opened = open_plugin(status.plugin);
    status.plugin_version = opened.version;
    opened.query(status);
  } catch (const Error& missing) {
    status.problem = missing.what();
  }
  return status;
}

DeviceId parse_device(const std::string& text) {
  if (text == "cpu") return {DeviceKind::cpu, 0};
  if (text == "cuda") return {DeviceKind::cuda, 0};
  constexpr std::size_t prefix = 5;
  if (text.starts_with("cuda:") && text.size() > prefix && text.size() <= prefix + 4 &&
      text.find_first_not_of("0123456789", prefix) == std::string::npos) {
    return {DeviceKind::cuda, std::stoi(text.substr(prefix))};
  }
  throw InvalidArgument(str("device '", text, "': use cpu, cuda or cuda:<index>"));
}

}  // namespace pagedcore
