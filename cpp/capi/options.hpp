// Options of one kind behind one opaque handle.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <variant>

#include "pagedcore/constraint.hpp"
#include "pagedcore/options.hpp"
#include "pagedcore/pagedcore.h"

struct pc_options {
  std::variant<pagedcore::EngineConfig, pagedcore::SamplingRequest, pagedcore::BeamSearchRequest,
               pagedcore::EmbeddingRequest, pagedcore::SnapshotLimits>
      values;
  std::shared_ptr<const pagedcore::Constraint> constraint = nullptr;  // of sampling and of a beam search
};

namespace pagedcore::capi {

/// The configuration that a caller gave, or the defaults for null. Throws InvalidArgument for options of another kind.
EngineConfig engine_config(const pc_options* options);
/// Likewise of a request, and of a snapshot.
EngineRequest engine_request(std::span<const TokenId> prompt, const pc_options* options);
SnapshotLimits snapshot_limits(const pc_options* options);
/// `count` tokens, none of which is read. Throws InvalidArgument for a null pointer that is not empty, and for more
/// than `most`.
std::span<const TokenId> tokens_of(const int32_t* tokens, size_t count, const char* name, size_t most);
/// At most `capacity` bytes of the text, the last of them 0; its whole length to *length.
void give_text(std::string_view text, char* buffer, size_t capacity, size_t* length);

}  // namespace pagedcore::capi
