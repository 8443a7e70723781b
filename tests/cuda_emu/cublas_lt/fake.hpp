// The fake library as a test has it: opened, set back, and where the backend looks for it.
#pragma once

#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cstdlib>

#include "fake_cublas_lt.hpp"

namespace cuda_test {

/// While one lives, PAGEDCORE_CUBLASLT names `library`, and its enqueued products run on `runtime`.
class FakeScope {
 public:
  FakeScope(const char* library, const cuda_emu::Hooks* runtime) : library_(dlopen(library, RTLD_NOW | RTLD_LOCAL)) {
    REQUIRE(library_ != nullptr);
    auto* find = reinterpret_cast<fake_lt::State* (*)()>(dlsym(library_, "fake_cublas_lt_state"));
    REQUIRE((find != nullptr));
    state_ = find();
    *state_ = {};
    state_->runtime = runtime;
    setenv("PAGEDCORE_CUBLASLT", library, 1);
  }
  /// Nothing was wrong, and nothing is left.
  ~FakeScope() {
    unsetenv("PAGEDCORE_CUBLASLT");
    CHECK(state_->fault == "");
    CHECK(state_->objects == 0);
    dlclose(library_);
  }
  FakeScope(const FakeScope&) = delete;
  FakeScope& operator=(const FakeScope&) = delete;

  fake_lt::State* operator->() const { return state_; }

 private:
  void* library_;
  fake_lt::State* state_;
};

}  // namespace cuda_test
