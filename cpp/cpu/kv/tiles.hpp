// Numbers that the KV storage and the kernels that read it share. Plain data only: sources compiled for one instruction
// set include this.
#pragma once

namespace pagedcore::cpu {

constexpr int kLanes = 16;           // of a vector of scores, or of values
constexpr int kTileTokens = kLanes;  // a token per lane
constexpr int kMaxHeadDim = 256;

}  // namespace pagedcore::cpu
