// What the files of this folder share. Each file binds one area of the public API and contains no logic of its own.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string_view.h>

#include "bindings/casters.hpp"
#include "bindings/gil.hpp"
#include "bindings/ids.hpp"

namespace pagedcore {
class KvCacheManager;
}

namespace pagedcore::bindings {

namespace nb = nanobind;
using namespace nb::literals;

/// A scheduler's cache, to look at: nothing here changes it.
struct KvCacheView {
  const KvCacheManager* cache = nullptr;
};

void bind_errors(nb::module_& m);
void bind_options(nb::module_& m);
void bind_tensors(nb::module_& m);
void bind_recoded(nb::module_& m);
void bind_models(nb::module_& m);
void bind_sampling(nb::module_& m);
void bind_kv_cache(nb::module_& m);
void bind_scheduler(nb::module_& m);
void bind_engine(nb::module_& m);
void bind_devices(nb::module_& m);
void bind_simulation(nb::module_& m);
/// Calls of all functions and methods that are bound so far which do not fit are refused in the words of the caller
/// (pagedcore/arguments.py), not in those of nanobind.
void explain_arguments(nb::module_& m);

}  // namespace pagedcore::bindings
