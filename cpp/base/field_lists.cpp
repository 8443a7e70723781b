#include "base/field_lists.hpp"

#include <numeric>

namespace pagedcore {
namespace {

/// Levenshtein's distance: insertions, removals and replacements that make one of the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0u);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j + 1] + 1, row[j] + 1, replaced});
    }
  }
  return row.back();
}

}  // namespace

std::string to_text(const OutOfRange& p) {
  const bool is_interval = p.range.starts_with('[') || p.range.starts_with('(');
  return str(p.name, " = ", p.value, " is out of range: it must ", is_interval ? "lie in " : "be ",
             p.range.empty() ? "finite" : p.range, p.zero != nullptr ? str(", or be left out for ", p.zero) : "",
             p.hint != nullptr ? str("; ", p.hint) : "");
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& names) {
  const auto nearest = std::min_element(
      names.begin(), names.end(), [&](const auto& a, const auto& b) { return distance(name, a) < distance(name, b); });
  const bool is_near = nearest != names.end() && distance(name, *nearest) < std::max(name.size(), nearest->size());
  return is_near ? *nearest : "";
}

void unknown_field(std::string_view what, std::string_view name, const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& known : names) all.append(all.empty() ? "" : ", ").append(known);
  const std::string nearest = nearest_name(name, names);
  throw InvalidArgument(str(what, " has no '", name.substr(0, 64), "'; ",
                            nearest.empty() ? "it has " : str("did you mean '", nearest, "'? It has "), all));
}

}  // namespace pagedcore
