// One function per reader. Each returns whether the input was accepted; anything but pagedcore::Error escapes.
#pragma once

#include <cstddef>
#include <span>

namespace pagedcore::fuzz {

/// A safetensors file or container. Reads every tensor's bytes and the description.
bool safetensors(std::span<const std::byte> input);
/// JSON text of any nesting up to a limit.
bool json(std::span<const std::byte> input);
/// ModelDescription::from_text of "key=value" lines. What is accepted must survive to_text and back.
bool description(std::span<const std::byte> input);

}  // namespace pagedcore::fuzz
