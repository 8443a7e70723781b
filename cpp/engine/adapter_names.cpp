#include "engine/adapter_names.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::int64_t kHashedAtOnce = 1 << 14;  // elements
constexpr std::size_t kMostShown = 20;

void add_text(Sha256Stream& hash, std::string_view text) { hash.add(std::as_bytes(std::span(text))); }
template <class T>
void add_raw(Sha256Stream& hash, const T& value) {
  hash.add(std::as_bytes(std::span(&value, 1)));
}

void add_tensor(Sha256Stream& hash, const HostTensor& tensor) {
  add_raw(hash, tensor.rows());
  add_raw(hash, tensor.cols());
  std::vector<float> numbers;
  for (std::int64_t first = 0; first < tensor.count(); first += kHashedAtOnce) {
    numbers.resize(static_cast<std::size_t>(std::min(kHashedAtOnce, tensor.count() - first)));
    to_f32(tensor, first, numbers);
    hash.add(std::as_bytes(std::span(numbers)));
  }
}

}  // namespace

std::uint64_t Adapter::root(std::uint64_t salt) const noexcept {
  Sha256Stream hash;
  add_text(hash, "pagedcore adapter root 1\n");
  add_raw(hash, digest);
  add_raw(hash, salt);
  const Digest folded = hash.finish();
  std::uint64_t root = 0;
  std::memcpy(&root, folded.data(), sizeof root);
  return root;
}

Digest digest_of(const AdapterWeights& weights) {
  std::vector<const AdapterMatrix*> matrices;
  for (const AdapterMatrix& matrix : weights.matrices) matrices.push_back(&matrix);
  std::ranges::sort(matrices, {}, &AdapterMatrix::name);
  Sha256Stream hash;
  add_text(hash, "pagedcore adapter 1\n");
  for (const AdapterMatrix* matrix : matrices) {
    add_raw(hash, std::uint64_t{matrix->name.size()});
    add_text(hash, matrix->name);
    add_raw(hash, matrix->scale);
    add_tensor(hash, matrix->down);
    add_tensor(hash, matrix->up);
  }
  return hash.finish();
}

std::shared_ptr<const Adapter> AdapterNames::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.state == Entry::State::named && entry.adapter->name == name) return entry.adapter;
  refuse_unknown(name);
}

void AdapterNames::refuse_unknown(const std::string& name) const {
  std::vector<std::string_view> known;
  for (const Entry& entry : entries_)
    if (entry.state == Entry::State::named) known.push_back(entry.adapter->name);
  std::ranges::sort(known);
  std::string names;
  for (std::size_t i = 0; i < std::min(known.size(), kMostShown); ++i)
    names.append(i == 0 ? "" : ", ").append(known[i]);
  if (known.size() > kMostShown) names += str(" and ", known.size() - kMostShown, " more");
  throw InvalidArgument(str("adapter '", name, "' is not loaded (loaded: ", known.empty() ? "none" : names,
                            "): load it first, or name none"));
}

std::vector<std::string> AdapterNames::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const Entry& entry : entries_)
    if (entry.state == Entry::State::named) names.push_back(entry.adapter->name);
  std::ranges::sort(names);
  return names;
}

std::shared_ptr<const Adapter> AdapterNames::reserve(const std::string& name, const Digest& digest) {
  if (name.empty()) throw InvalidArgument("the name of an adapter is empty; requests name it, so give it one");
  const std::lock_guard lock(mutex_);
  std::vector<bool> taken(slots_);
  for (const Entry& entry : entries_) {
    if (entry.state != Entry::State::leaving && entry.adapter->name == name)
      throw InvalidArgument(str("adapter '", name, "' is loaded; unload it first or choose another name"));
    taken[static_cast<std::size_t>(entry.adapter->slot)] = true;
  }
  const auto free = std::ranges::find(taken, false);
  if (free == taken.end())
    throw InvalidArgument(str("adapter '", name, "' finds no room: max_adapters = ", slots_, ", and ", entries_.size(),
                              " are loaded, or unloaded and still in use; unload one, or raise max_adapters"));
  auto adapter =
      std::make_shared<const Adapter>(Adapter{name, static_cast<std::int32_t>(free - taken.begin()), digest});
  entries_.push_back({adapter, Entry::State::loading});
  return adapter;
}

void AdapterNames::publish(const std::shared_ptr<const Adapter>& adapter) {
  const std::lock_guard lock(mutex_);
  std::ranges::find(entries_, adapter, &Entry::adapter)->state = Entry::State::named;
}

void AdapterNames::cancel(const std::shared_ptr<const Adapter>& adapter) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.adapter == adapter; });
}

void AdapterNames::remove(const std::string& name, bool drain) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(
      entries_, [&](const Entry& entry) { return entry.state == Entry::State::named && entry.adapter->name == name; });
  if (found == entries_.end()) refuse_unknown(name);
  const auto users = found->adapter.use_count() - 1;  // nobody becomes one without the lock, or another one's
  if (users > 0 && !drain)
    throw InvalidArgument(
        str("adapter '", name, "' is in use by ", users,
            " requests and registered prefixes; wait for them and release these, or unload it with drain: they then "
            "go on with it"));
  found->state = Entry::State::leaving;
}

std::vector<std::int32_t> AdapterNames::collect() {
  const std::lock_guard lock(mutex_);
  std::vector<std::int32_t> slots;
  std::erase_if(entries_, [&](const Entry& entry) {
    if (entry.state != Entry::State::leaving || entry.adapter.use_count() > 1) return false;
    slots.push_back(entry.adapter->slot);
    return true;
  });
  return slots;
}

}  // namespace pagedcore
