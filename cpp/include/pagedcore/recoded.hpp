// Matrices that a checkpoint holds in another form than the one in which weights are packed: their bytes are made when
// they are read, piece by piece. While a matrix is being read what it is made from is in memory, and gone afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// Elements of `bytes` each, in any order of rows and columns: element (r, c) begins at byte first + r * row_step +
/// c * column_step.
struct Picks {
  std::int64_t rows = 0, columns = 0;
  std::int64_t bytes = 0;
  std::int64_t first = 0, row_step = 0, column_step = 0;
};
/// The elements, row after row. `from` must outlive it. Throws InvalidArgument where one lies outside.
PAGEDCORE_API std::unique_ptr<ByteSource> pick(const HostTensor& from, const Picks& picks);

/// Blocks of DType::mxfp4 from the numbers, 16 bytes a block in which byte j holds numbers 2 j and 2 j + 1, and the
/// exponents, a byte each. Both must outlive it. Throws InvalidArgument where their sizes do not fit, and, when read,
/// Corrupt, which names `name`, for an exponent that stands for NaN (255).
PAGEDCORE_API std::unique_ptr<ByteSource> mxfp4_blocks(const HostTensor& numbers, const HostTensor& exponents,
                                                       const std::string& name);

/// Codes in words of 32 bits or in bytes. Word or byte (i, j) is number i * row_step + j * column_step of the tensor;
/// where a word holds several codes, these are of consecutive columns (rows, if along_rows), and i or j counts words.
struct CodePlaces {
  HostTensor from;
  std::int32_t bits = 8;  // 2 or 4 in words; 8 in bytes or words
  bool words = false;
  bool along_rows = false;
  std::int64_t row_step = 0, column_step = 0;
  std::vector<std::int32_t> order;  // of the codes in a word: where the i-th is; empty: in order
};

/// Numbers that are those of a scale and a code: scale * (code - zero), or scale * number.
struct CodedMatrix {
  enum class Codes : std::uint8_t { integer, e4m3, table };
  std::string name;  // for errors
  std::int64_t rows = 0, columns = 0;
  Codes kind = Codes::integer;
  bool is_signed = false;  // codes of 8 bits are i8
  CodePlaces codes;
  std::vector<float> table;                        // of the codes, 2^bits
  std::int64_t group_rows = 1, group_columns = 1;  // that share a scale
  std::vector<std::int32_t> groups;  // for each column, which group of columns it is in; empty: by group_columns
  HostTensor scales;                 // f32, f16 or bf16; (i, j) of groups is element i * scale_row_step + j * its other
  std::int64_t scale_row_step = 0, scale_column_step = 0;
  double scale_factor = 1.0;
  CodePlaces zeros;              // of groups of columns, one for each row; of no bytes: zero_offset is the zero
  std::int32_t zero_offset = 0;  // added to each zero
};
/// Its bytes as `dtype`: f32, each number rounded once, or int4_g32, int4_g128, int8_g128 or f8_g128, exactly, where
/// groups consist of whole blocks of it. All that it is made from must outlive it. Throws InvalidArgument for parts
/// that do not fit each other, and, when read, Corrupt, which names `name`, for an e4m3 NaN and a scale that is not
/// finite.
PAGEDCORE_API std::unique_ptr<ByteSource> recode(CodedMatrix matrix, DType dtype);

}  // namespace pagedcore
