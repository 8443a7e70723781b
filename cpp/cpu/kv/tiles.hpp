// Numbers that the KV storage and the kernels that read it share. Plain data only: sources compiled for one instruction
// set include this.
#pragma once

namespace pagedcore::cpu {

constexpr int kGroup = 16;  // tokens of a tile: one per lane of a score vector
constexpr int kMaxHeadDim = 256;

}  // namespace pagedcore::cpu
