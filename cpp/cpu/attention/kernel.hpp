// What the driver asks of an instruction set. Plain data only: sources compiled for one instruction set include this.
#pragma once

#include <stdint.h>

#include "cpu/kv/tiles.hpp"

namespace pagedcore::cpu::attention_detail {

constexpr int kContextPiece = 64;  // tokens between two updates of the online softmax
constexpr int kPieceTiles = kContextPiece / kTileTokens;
constexpr int kTileRows = 16;  // of a matrix tile

/// Query rows against one piece of context, [position, position + kContextPiece), of which tiles [first_tile,
/// end_tile) are given. Rows are (token, query head of the KV head) pairs; each sees positions [begin[row],
/// end[row]).
struct PieceTask {
  const char* k[kPieceTiles];       // K tile of each 16 tokens
  const char* v[kPieceTiles];       // V tile; tokens that no row sees hold finite values
  const char* next_k[kPieceTiles];  // prefetched while this piece is computed
  const char* next_v[kPieceTiles];
  int position;
  int first_tile;
  int end_tile;

  const char* const* q;  // [rows], key_dim elements each: f32, or bf16 for bf16_dot and bf16_tile
  const int* begin;
  const int* end;
  int rows;
  int key_dim;    // head_dim rounded up to whole steps; the rest is zero in q and K
  int value_dim;  // head_dim rounded up to whole vectors: the width of V tiles and of acc

  float scale;          // scores, then multiplied by log2(e): the softmax works in base 2
  float softcap;        // times log2(e); 0: none
  float inv_softcap;    // scale / softcap, times 2 log2(e)
  const float* slopes;  // [rows] of ALiBi, times log2(e); or none

  float* m;    // [rows] running maximum
  float* l;    // [rows] running sum of exponentials
  float* acc;  // [rows][value_dim] running sum of exponential * V
};

using AttendPiece = void (*)(const PieceTask&);

/// Makes tiles that kernels read of tiles of int8 codes, K [dim][16 tokens] or V [16 tokens][dim]: each number is its
/// code times the scale of its token, rounded to the tile's type. Tiles are 64-byte aligned, codes need not be.
struct WidenTile {
  void (*k)(const char* codes, const float* scales, int dim, char* tile);
  void (*v)(const char* codes, const float* scales, int dim, char* tile);
};

struct AttentionKernels {
  AttendPiece f32;       // f32 tiles, f32 queries
  AttendPiece bf16;      // bf16 tiles widened to f32, f32 queries
  AttendPiece bf16_dot;  // bf16 tiles, queries and probabilities through a bf16 dot-product instruction; may be null
  /// The same through matrix tiles: key_dim a multiple of 16; query rows packed one after another, they and the state
  /// readable and writable up to a multiple of kTileRows. Between tile_begin(rows) and tile_end(). May be null.
  AttendPiece bf16_tile;
  void (*tile_begin)(int rows);
  void (*tile_end)();

  /// Rotates `heads` consecutive heads of one row: dimension i of the first `num_frequencies` with i + num_frequencies.
  void (*rotate)(const float* in, float* out, int heads, int head_dim, int num_frequencies, const float* cos,
                 const float* sin);
  /// f32 to bf16, to nearest even; NaN stays NaN.
  void (*narrow)(const float* in, uint16_t* out, int count);
  WidenTile widen_f32, widen_bf16;
};

extern const AttentionKernels kPortableKernels;
extern const AttentionKernels kAvx2Kernels;
extern const AttentionKernels kAvx512Kernels;
extern const AttentionKernels kAvx512Bf16Kernels;
extern const AttentionKernels kAmxKernels;

}  // namespace pagedcore::cpu::attention_detail
