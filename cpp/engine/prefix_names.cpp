#include "engine/prefix_names.hpp"

#include <algorithm>
#include <ranges>
#include <set>
#include <string_view>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::ptrdiff_t kMostShown = 20;

}  // namespace

PrefixId PrefixNames::add(const std::string& name, Prefix prefix) {
  const auto shared = shared_.find(name);
  const bool is_taken = own_.contains({prefix.salt, name}) ||
                        (shared != shared_.end() && (prefix.shared || shared->second.salt == prefix.salt));
  if (is_taken)
    throw InvalidArgument(str("prefix '", name, "' is registered; release it first or choose another name"));
  prefix.id = PrefixId{last_id_ + 1};
  if (prefix.shared) {
    shared_.emplace(name, std::move(prefix));
  } else {
    const std::uint64_t salt = prefix.salt;
    own_.emplace(std::pair(salt, name), std::move(prefix));
  }
  return PrefixId{++last_id_};
}

const PrefixNames::Prefix* PrefixNames::find(const std::string& name, std::uint64_t salt) const {
  if (const auto own = own_.find({salt, name}); own != own_.end()) return &own->second;
  const auto shared = shared_.find(name);
  return shared != shared_.end() ? &shared->second : nullptr;
}

/// Tells of no other salt's, not even how many there are.
void PrefixNames::refuse_unknown(const std::string& name, std::uint64_t salt) const {
  std::set<std::string_view> known;
  for (auto own = own_.lower_bound({salt, {}}); own != own_.end() && own->first.first == salt; ++own)
    known.insert(own->first.second);
  for (const auto& [shared, prefix] : shared_) known.insert(shared);
  std::string names;
  for (const std::string_view one : known | std::views::take(kMostShown))
    names.append(names.empty() ? "" : ", ") += one;
  if (std::ssize(known) > kMostShown) names += str(" and ", std::ssize(known) - kMostShown, " more");
  throw InvalidArgument(str("prefix '", name, "' is not registered under salt ", salt,
                            " (registered: ", known.empty() ? "none" : names, "): register it first, or name none"));
}

PrefixId PrefixNames::named_by(const EngineRequest& request) const {
  const std::string& name = request.options.prefix;
  const Prefix* prefix = find(name, request.options.salt);
  if (prefix == nullptr) refuse_unknown(name, request.options.salt);
  const auto common = std::ranges::mismatch(prefix->tokens, request.prompt).in1 - prefix->tokens.begin();
  if (common < std::ssize(prefix->tokens)) {
    // Where the two part would tell the tokens of a shared one, one after the other, to whoever tries them.
    const std::string where = prefix->shared ? std::string() : str(" at token ", common, " of ", prefix->tokens.size());
    throw InvalidArgument(
        str("the prompt leaves prefix '", name, "'", where, "; it must begin with all of its tokens"));
  }
  return prefix->id;
}

PrefixId PrefixNames::owned(const std::string& name, std::uint64_t salt) const {
  const Prefix* prefix = find(name, salt);
  if (prefix == nullptr) refuse_unknown(name, salt);
  if (prefix->salt != salt)
    throw InvalidArgument(str("prefix '", name, "' is shared, and was not registered under salt ", salt,
                              ": only who registered it releases it"));
  return prefix->id;
}

void PrefixNames::forget(PrefixId id) noexcept {
  const auto is_it = [&](const auto& entry) { return entry.second.id == id; };
  std::erase_if(own_, is_it);
  std::erase_if(shared_, is_it);
}

}  // namespace pagedcore
