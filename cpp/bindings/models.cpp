#include <deque>
#include <string>
#include <utility>

#include "bindings/host_tensors.hpp"
#include "bindings/records.hpp"
#include "bindings/weights.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore::bindings {
namespace {

void bind_description(nb::module_& m) {
  using D = ModelDescription;
  Record<D>(m, "ModelDescription", "A decoder-only transformer, complete: the forward pass asks nothing else.")
      .python()
      .def("validate", &D::validate, "Raises InvalidArgument naming the first field that contradicts the rest.")
      .def("to_text", &D::to_text)
      .def_static("from_text", &D::from_text, "text"_a);
}

void bind_weight_map(nb::module_& m) {
  nb::class_<KeptWeights>(m, "WeightMap", "Weights in host memory, by canonical name; keeps their buffers alive.")
      .def(nb::init<>())
      .def(
          "add",
          [](KeptWeights& self, std::string name, std::string_view dtype, const std::vector<std::int64_t>& shape,
             TensorBytes buffer) {
            const HostTensor tensor = host_tensor(dtype, shape, buffer);
            self.buffers.push_back(std::move(buffer));
            self.map.add(std::move(name), tensor);
          },
          "name"_a, "dtype"_a, "shape"_a, "buffer"_a.noconvert())
      .def("names",
           [](const KeptWeights& self) {
             std::vector<std::string> names;
             for (const auto& [name, tensor] : self.map.tensors()) names.push_back(name);
             return names;
           })
      .def(
          "tensor",
          [](nb::handle_t<KeptWeights> self, std::string_view name) {
            return to_python(nb::cast<const KeptWeights&>(self).map.get(name), self);
          },
          "name"_a, "(dtype, shape, memoryview).")
      .def("__contains__", [](const KeptWeights& self, std::string_view name) { return self.map.has(name); })
      .def("__len__", [](const KeptWeights& self) { return self.map.size(); });
}

void bind_model_file(nb::module_& m) {
  nb::class_<ModelFile>(m, "ModelFile", "A model container or a plain safetensors file. mmap: see InputFile.")
      .def(
          "__init__", [](ModelFile* self, const FilePath& path, bool mmap) { new (self) ModelFile(path.bytes, mmap); },
          "path"_a, "mmap"_a = false, release_gil())
      .def("names", &ModelFile::names)
      .def_prop_ro("metadata", [](const ModelFile& self) { return self.metadata(); })
      .def("description", &ModelFile::description, "Raises Corrupt for a plain safetensors file.")
      .def(
          "tensor",
          [](nb::handle_t<ModelFile> self, std::string_view name) {
            return to_python(nb::cast<const ModelFile&>(self).get(name), self);
          },
          "name"_a, "(dtype, shape, memoryview): read into memory of its own, or mapped, which keeps the file open.")
      .def(
          "stored",
          [](nb::handle_t<ModelFile> self, std::string_view name) {
            return stored_tuple(nb::cast<const ModelFile&>(self).get(name), self);
          },
          "name"_a, "(dtype, shape, FileBytes): not read yet.")
      .def("__contains__", [](const ModelFile& self, std::string_view name) { return self.has(name); })
      .def("__len__", [](const ModelFile& self) { return self.names().size(); });
  m.def(
      "save_model",
      [](const FilePath& path, const ModelDescription& description, const KeptWeights& weights,
         const std::map<std::string, std::string>& metadata) {
        const WeightMap snapshot = weights.map;  // another thread may add to the original meanwhile
        ReleasedGil released;
        save_model(path.bytes, description, snapshot, metadata);
      },
      "path"_a, "description"_a, "weights"_a, "metadata"_a = nb::dict(), "Writes a container, atomically.");
}

}  // namespace

void bind_models(nb::module_& m) {
  bind_description(m);
  bind_weight_map(m);
  bind_model_file(m);
}

}  // namespace pagedcore::bindings
