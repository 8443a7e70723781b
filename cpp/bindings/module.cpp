// The module pagedcore._core: the public C++ API as Python classes, names and meanings unchanged.
#include "bindings/bindings.hpp"
#include "pagedcore/version.hpp"

NB_MODULE(_core, m) {
  using namespace pagedcore::bindings;
  nanobind::set_leak_warnings(false);  // what daemon threads hold at exit is no leak, and stderr belongs to the host
  m.doc() = "The native library: what include/pagedcore/*.hpp documents, under the same names.";
  m.def("version", &pagedcore::version, "major.minor.patch of the native library.");
  bind_errors(m);
  bind_options(m);
  bind_tensors(m);
  bind_recoded(m);
  bind_models(m);
  bind_sampling(m);
  bind_kv_cache(m);
  bind_scheduler(m);
  bind_engine(m);
  bind_devices(m);
  bind_simulation(m);
  explain_arguments(m);  // last: of all of them
}
