// A small model in a container, and options that free themselves.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <initializer_list>
#include <string>
#include <utility>

#include "../engine/tiny_model.hpp"
#include "pagedcore/pagedcore.h"

namespace capi_test {

/// A container with a small random model, gone with the object.
class Container {
 public:
  Container() : path_(std::filesystem::temp_directory_path() / ("pagedcore-capi-" + std::to_string(::getpid()))) {
    pagedcore::save_model(path_.string(), model.description, model.weights, {{pagedcore::kEosTokenIds, "2,7"}});
  }
  ~Container() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

  tiny::TinyModel model;

 private:
  std::filesystem::path path_;
};

using Settings = std::initializer_list<std::pair<const char*, const char*>>;

class Options {
 public:
  explicit Options(pc_options_kind kind, Settings settings = {}) {
    REQUIRE(pc_options_new(kind, &handle_) == PC_OK);
    for (const auto& [name, text] : settings) set(name, text);
  }
  ~Options() { pc_options_free(handle_); }
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  void set(const char* name, const char* text) {
    CAPTURE(name);
    CHECK_MESSAGE(pc_options_set(handle_, name, text) == PC_OK, pc_last_error());
  }
  std::string get(const char* name) const {
    char text[256];
    size_t length = 0;
    CHECK(pc_options_get(handle_, name, text, sizeof text, &length) == PC_OK);
    return {text, length};
  }
  operator pc_options*() const { return handle_; }

 private:
  pc_options* handle_ = nullptr;
};

/// Of a small engine.
struct SmallEngine : Options {
  SmallEngine() : Options(PC_OPTIONS_ENGINE, {{"num_blocks", "100"}, {"threads", "1"}, {"dtype", "float32"}}) {}
};

inline bool says(const char* text) { return std::string(pc_last_error()).find(text) != std::string::npos; }

}  // namespace capi_test
