// Weights that are made of what files hold when they are read.
#include "pagedcore/recoded.hpp"

#include <nanobind/stl/pair.h>

#include <memory>
#include <utility>

#include "bindings/host_tensors.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::bindings {
namespace {

using Steps = std::pair<std::int64_t, std::int64_t>;

/// A source, and what it reads.
struct Made {
  std::unique_ptr<ByteSource> source;
  std::vector<TensorBytes> kept;
};

FileBytes made_bytes(std::unique_ptr<ByteSource> source, std::size_t length, std::vector<TensorBytes> kept) {
  auto made = std::make_unique<Made>(Made{std::move(source), std::move(kept)});
  FileBytes bytes;
  bytes.bytes.dtype = DType::u8;
  bytes.bytes.shape[0] = static_cast<std::int64_t>(length);
  bytes.bytes.rank = 1;
  bytes.bytes.source = made->source.get();
  bytes.bytes.length = length;
  bytes.owner = nb::capsule(made.get(), [](void* p) noexcept { delete static_cast<Made*>(p); });
  static_cast<void>(made.release());
  return bytes;
}

HostTensor bytes_in(const TensorBytes& buffer) {
  if (const auto* file = std::get_if<FileBytes>(&buffer)) return file->bytes;
  const auto& host = std::get<HostBuffer>(buffer);
  HostTensor tensor{DType::u8, {static_cast<std::int64_t>(host.nbytes())}, 1};
  tensor.data = {static_cast<const std::byte*>(host.data()), host.nbytes()};
  return tensor;
}

struct KeptPlaces {
  CodePlaces places;
  TensorBytes buffer;
};

struct KeptMatrix {
  CodedMatrix matrix;
  std::vector<TensorBytes> kept;
};

CodedMatrix::Codes kind_of(std::string_view name) {
  if (name == "integer") return CodedMatrix::Codes::integer;
  if (name == "e4m3") return CodedMatrix::Codes::e4m3;
  if (name == "table") return CodedMatrix::Codes::table;
  throw InvalidArgument("codes are integer, e4m3 or table, not '" + std::string(name) + "'");
}

void bind_places(nb::module_& m) {
  nb::class_<KeptPlaces>(m, "CodePlaces", "Codes in bytes or words of 32 bits; see pagedcore/recoded.hpp.")
      .def(
          "__init__",
          [](KeptPlaces* self, const TensorBytes& buffer, std::int32_t bits, bool words, bool along_rows, Steps steps,
             std::vector<std::int32_t> order) {
            new (self) KeptPlaces{
                {bytes_in(buffer), bits, words, along_rows, steps.first, steps.second, std::move(order)}, buffer};
          },
          "buffer"_a, "bits"_a, "words"_a, "along_rows"_a, "steps"_a, "order"_a = std::vector<std::int32_t>{});
}

}  // namespace

void bind_recoded(nb::module_& m) {
  bind_places(m);
  nb::class_<KeptMatrix>(m, "CodedMatrix", "Numbers of a scale and a code; see pagedcore/recoded.hpp.")
      .def(
          "__init__",
          [](KeptMatrix* self, const std::string& name, Steps shape, std::string_view kind, const KeptPlaces& codes) {
            new (self) KeptMatrix;
            self->matrix.name = name;
            self->matrix.rows = shape.first;
            self->matrix.columns = shape.second;
            self->matrix.kind = kind_of(kind);
            self->matrix.codes = codes.places;
            self->kept.push_back(codes.buffer);
          },
          "name"_a, "shape"_a, "kind"_a, "codes"_a)
      .def_prop_rw(
          "is_signed", [](const KeptMatrix& self) { return self.matrix.is_signed; },
          [](KeptMatrix& self, bool value) { self.matrix.is_signed = value; })
      .def(
          "set_scales",
          [](KeptMatrix& self, std::string_view dtype, const std::vector<std::int64_t>& shape,
             const TensorBytes& buffer, Steps steps, Steps group, double factor) {
            self.matrix.scales = host_tensor(dtype, shape, buffer);
            self.matrix.scale_row_step = steps.first;
            self.matrix.scale_column_step = steps.second;
            self.matrix.group_rows = group.first;
            self.matrix.group_columns = group.second;
            self.matrix.scale_factor = factor;
            self.kept.push_back(buffer);
          },
          "dtype"_a, "shape"_a, "buffer"_a, "steps"_a, "group"_a, "factor"_a = 1.0)
      .def(
          "set_zeros",
          [](KeptMatrix& self, const KeptPlaces& zeros, std::int32_t offset) {
            self.matrix.zeros = zeros.places;
            self.matrix.zero_offset = offset;
            self.kept.push_back(zeros.buffer);
          },
          "zeros"_a, "offset"_a = 0)
      .def(
          "set_zero", [](KeptMatrix& self, std::int32_t zero) { self.matrix.zero_offset = zero; }, "zero"_a,
          "The same for all.")
      .def(
          "set_groups",
          [](KeptMatrix& self, std::vector<std::int32_t> groups) { self.matrix.groups = std::move(groups); },
          "groups"_a, "For each column, its group.")
      .def(
          "set_table", [](KeptMatrix& self, std::vector<float> table) { self.matrix.table = std::move(table); },
          "table"_a)
      .def(
          "recoded",
          [](const KeptMatrix& self, std::string_view dtype) {
            const DType to = dtype_from_name(dtype);
            std::unique_ptr<ByteSource> source = recode(self.matrix, to);
            return made_bytes(std::move(source), bytes_of(to, self.matrix.rows * self.matrix.columns), self.kept);
          },
          "dtype"_a, "Its bytes in a type, made when they are read.");
  m.def(
      "pick",
      [](const TensorBytes& from, Steps shape, std::int64_t bytes, std::int64_t first, Steps steps) {
        const Picks picks{shape.first, shape.second, bytes, first, steps.first, steps.second};
        std::unique_ptr<ByteSource> source = pick(bytes_in(from), picks);
        return made_bytes(std::move(source), static_cast<std::size_t>(shape.first * shape.second * bytes), {from});
      },
      "buffer"_a, "shape"_a, "bytes"_a, "first"_a, "steps"_a,
      "Elements of so many bytes, row after row: (r, c) begins at first + r * steps[0] + c * steps[1].");
  m.def(
      "mxfp4_blocks",
      [](const TensorBytes& numbers, const TensorBytes& exponents, const std::string& name) {
        std::unique_ptr<ByteSource> source = mxfp4_blocks(bytes_in(numbers), bytes_in(exponents), name);
        return made_bytes(std::move(source), bytes_in(exponents).size_bytes() * 17, {numbers, exponents});
      },
      "numbers"_a, "exponents"_a, "name"_a, "Blocks of mxfp4 from 16 bytes of numbers and an exponent each.");
}

}  // namespace pagedcore::bindings
