#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

#include "base/text.hpp"
#include "capi/record.hpp"
#include "capi/status.hpp"
#include "pagedcore/error.hpp"

namespace {

using namespace pagedcore;
using capi::guarded;
using capi::require;

const std::string& value_of(const pc_record* record, const char* name) {
  require(record, "record");
  require(name, "name");
  std::string known;
  for (const auto& [key, text] : record->values) {
    if (key == name) return text;
    known.append(known.empty() ? "" : ", ").append(key);
  }
  throw InvalidArgument(str("the record has no value '", std::string_view(name).substr(0, 64), "'; it has ", known));
}

}  // namespace

size_t pc_record_count(const pc_record* record) noexcept { return record == nullptr ? 0 : record->values.size(); }

const char* pc_record_name(const pc_record* record, size_t index) noexcept {
  return index < pc_record_count(record) ? record->values[index].first.c_str() : nullptr;
}

pc_status pc_record_text(const pc_record* record, const char* name, const char** text) noexcept {
  return guarded([&] {
    require(text, "text");
    *text = value_of(record, name).c_str();
  });
}

pc_status pc_record_number(const pc_record* record, const char* name, double* number) noexcept {
  return guarded([&] {
    require(number, "number");
    const std::string& text = value_of(record, name);
    double value = text == "true" ? 1.0 : 0.0;
    if (text != "true" && text != "false") {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size())
        throw InvalidArgument(str("the record's ", name, " = '", std::string_view(text).substr(0, 64),
                                  "' is no number; read it with pc_record_text()"));
    }
    *number = value;
  });
}

void pc_record_free(pc_record* record) noexcept { delete record; }
