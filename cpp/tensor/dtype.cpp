#include <array>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {
namespace {

// In the order of DType. The block formats' sizes follow from their fields, listed in blocks.hpp.
constexpr std::array<DTypeInfo, 26> table{{
    {"f32", 1, 4},         {"bf16", 1, 2},    {"f16", 1, 2},        {"f64", 1, 8},          {"i8", 1, 1},
    {"u8", 1, 1},          {"i16", 1, 2},     {"i32", 1, 4},        {"i64", 1, 8},          {"bool", 1, 1},
    {"f8_e4m3", 1, 1},     {"q4_0", 32, 18},  {"q4_1", 32, 20},     {"q5_0", 32, 22},       {"q5_1", 32, 24},
    {"q8_0", 32, 34},      {"q2_k", 256, 84}, {"q3_k", 256, 110},   {"q4_k", 256, 144},     {"q5_k", 256, 176},
    {"q6_k", 256, 210},    {"mxfp4", 32, 17}, {"int4_g32", 32, 22}, {"int4_g128", 128, 70}, {"int8_g128", 128, 134},
    {"f8_g128", 128, 132},
}};
static_assert(static_cast<std::size_t>(DType::f8_g128) + 1 == table.size());

}  // namespace

const DTypeInfo& info(DType dtype) noexcept { return table[static_cast<std::size_t>(dtype)]; }

DType dtype_from_name(std::string_view name) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == name) return static_cast<DType>(i);
  }
  std::string known;
  for (const DTypeInfo& entry : table) known += str(known.empty() ? "" : ", ", entry.name);
  throw Unsupported(str("element type '", name, "' is unknown; known are: ", known));
}

std::size_t bytes_of(DType dtype, std::int64_t count) {
  const DTypeInfo& type = info(dtype);
  if (count < 0) throw InvalidArgument(str("element count ", count, " is negative"));
  if (count % type.block_elements != 0) {
    throw InvalidArgument(
        str(count, " elements of ", type.name, " are not a whole number of blocks of ", type.block_elements));
  }
  const auto blocks = static_cast<std::uint64_t>(count) / type.block_elements;
  if (blocks > std::numeric_limits<std::size_t>::max() / 2 / type.block_bytes) {
    throw InvalidArgument(str(count, " elements of ", type.name, " do not fit the address space"));
  }
  return static_cast<std::size_t>(blocks) * type.block_bytes;
}

}  // namespace pagedcore
