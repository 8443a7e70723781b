#include "engine/kv_identity.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "base/checksum.hpp"
#include "base/sha256.hpp"
#include "base/text.hpp"
#include "pagedcore/version.hpp"

namespace pagedcore {
namespace {

/// Where the bytes of KV change though nothing else of an identity does, this number goes up.
constexpr int kLayoutVersion = 1;

std::string hex(const Digest& digest) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (const std::byte b : digest) {
    text += digits[std::to_integer<std::size_t>(b) >> 4];
    text += digits[std::to_integer<std::size_t>(b) & 15];
  }
  return text;
}

/// "cpu, amx, bf16, native weights" of "..., 2 threads": how many there are changes no bits.
std::string numerics_of(const Backend& backend) {
  std::string text = backend.describe();
  const std::size_t comma = text.rfind(", ");
  if (comma != std::string::npos && text.ends_with(" threads")) text.resize(comma);
  return text;
}

/// The sum of a tensor, in pieces: 256 bits, at the speed of memory. Against accidents; who may change the weights that
/// an engine loads needs no collision.
std::string sum_of(const HostTensor& tensor) {
  Sha256Stream hash;
  const auto add = [&](const auto& value) { hash.add(std::as_bytes(std::span(&value, 1))); };
  add(tensor.dtype);
  add(tensor.rank);
  add(tensor.shape);
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  std::vector<std::byte> piece;
  for (std::size_t at = 0; at < tensor.size_bytes(); at += kPiece) {
    const std::size_t size = std::min(kPiece, tensor.size_bytes() - at);
    std::span<const std::byte> bytes;
    if (tensor.source == nullptr) {
      bytes = tensor.data.subspan(at, size);
    } else {
      piece.resize(size);
      read_bytes(tensor, at, piece);
      bytes = piece;
    }
    add(checksum_lanes(bytes));
  }
  return hex(hash.finish());
}

}  // namespace

HostTensor HashedWeights::get(std::string_view name) const {
  const HostTensor tensor = source_.get(name);
  {
    const std::lock_guard lock(mutex_);
    if (tensors_.find(name) != tensors_.end()) return tensor;
  }
  std::string sum = sum_of(tensor);
  const std::lock_guard lock(mutex_);
  tensors_.emplace(name, std::move(sum));
  return tensor;
}

std::string HashedWeights::digest() const {
  Sha256Stream hash;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, sum] : tensors_) {
    const std::string line = str(name, '=', sum, '\n');
    hash.add(std::as_bytes(std::span(line)));
  }
  return hex(hash.finish());
}

store::Identity kv_identity(const ModelDescription& model, std::string_view weights, const Backend& backend,
                            const KvStorage& kv) {
  const KvShape& shape = kv.shape();
  std::string text =
      str("pagedcore ", version(), ", layout ", kLayoutVersion, '\n', numerics_of(backend), "\nKV ",
          info(shape.dtype).name, ", ", shape.num_layers, " layers x ", shape.num_kv_heads, " heads x ", shape.head_dim,
          ", blocks of ", shape.block_size, " tokens, ", kv.block_bytes(), " bytes\nweights ", weights, '\n');
  for (const auto& [name, value] : model.to_text()) text.append(name).append("=").append(value).append("\n");
  return store::identity_of(std::move(text));
}

}  // namespace pagedcore
