#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "capi/options.hpp"
#include "capi/status.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore::capi {
namespace {

/// There are no more token ids: those of the largest vocabulary.
constexpr size_t kMostElements = kMostExtent;

/// What describes the options of one kind, as C sees it. Made once, never destroyed: pc_option_info points into it.
struct Description {
  explicit Description(const std::vector<OptionInfo>& list) : options(list) {
    for (OptionInfo& option : options) {
      if (!option.zero.empty()) {
        if (option.default_value == "0" || option.default_value.empty()) option.default_value = "none";
        option.doc += " none: " + option.zero + '.';
      }
      if (!option.hint.empty()) option.doc += ' ' + option.hint + '.';
      std::string& words = choices.emplace_back();
      for (const std::string& word : option.choices) words.append(words.empty() ? "" : ",").append(word);
    }
  }
  std::vector<OptionInfo> options;
  std::vector<std::string> choices;
};

const Description& description(const pc_options& options) {
  return std::visit(
      []<class T>(const T&) -> const Description& {
        static const Description& made = *new Description(options_of<T>());
        return made;
      },
      options.values);
}

template <class Number>
void set_number(pc_options* options, const char* name, Number value) {
  require(options, "options");
  require(name, "name");
  std::array<char, 32> text;
  const char* end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  std::visit([&](auto& values) { set_option(values, name, std::string_view(text.data(), end)); }, options->values);
}

template <class T>
T values_of_kind(const pc_options* options, const char* kind) {
  if (options == nullptr) return {};
  const T* values = std::get_if<T>(&options->values);
  if (values == nullptr) throw InvalidArgument(str("argument 'options' is of another kind; make it with ", kind));
  return *values;
}

template <class T>
void require_array(const T* elements, size_t count, const char* name, size_t most) {
  if (count > 0) require(elements, name);
  if (count > most) throw InvalidArgument(str("argument '", name, "' has ", count, " elements; ", most, " at most"));
}

}  // namespace

std::span<const TokenId> tokens_of(const int32_t* tokens, size_t count, const char* name, size_t most) {
  require_array(tokens, count, name, most);
  return {tokens, count};
}

void give_text(std::string_view text, char* buffer, size_t capacity, size_t* length) {
  if (capacity > 0) {
    require(buffer, "buffer");
    const size_t shown = std::min(text.size(), capacity - 1);
    std::memcpy(buffer, text.data(), shown);
    buffer[shown] = '\0';
  }
  *length = text.size();
}

EngineConfig engine_config(const pc_options* options) {
  return values_of_kind<EngineConfig>(options, "PC_OPTIONS_ENGINE");
}

SnapshotLimits snapshot_limits(const pc_options* options) {
  return values_of_kind<SnapshotLimits>(options, "PC_OPTIONS_SNAPSHOT");
}

EngineRequest engine_request(std::span<const TokenId> prompt, const pc_options* options) {
  EngineRequest request;
  request.prompt.assign(prompt.begin(), prompt.end());
  if (options == nullptr) return request;
  request.constraint = options->constraint;
  if (const auto* sampling = std::get_if<SamplingRequest>(&options->values)) {
    request.sampling = sampling->sampling;
    request.options = sampling->options;
    request.stream = sampling->stream;
  } else if (const auto* search = std::get_if<BeamSearchRequest>(&options->values)) {
    request.beam = search->beam;
    request.options = search->options;
    request.stream = search->stream;
  } else if (const auto* embedding = std::get_if<EmbeddingRequest>(&options->values)) {
    request.embedding = embedding->embedding;
    request.options = embedding->options;
  } else {
    throw InvalidArgument(
        "argument 'options' is of another kind; make it with PC_OPTIONS_SAMPLING, PC_OPTIONS_BEAM_SEARCH or "
        "PC_OPTIONS_EMBEDDING");
  }
  return request;
}

}  // namespace pagedcore::capi

using namespace pagedcore;
using capi::guarded;
using capi::require;

pc_status pc_options_new(pc_options_kind kind, pc_options** options) noexcept {
  return guarded([&] {
    require(options, "options");
    switch (static_cast<int>(kind)) {  // a C caller may pass anything
      case PC_OPTIONS_ENGINE:
        *options = new pc_options{EngineConfig{}};
        return;
      case PC_OPTIONS_SAMPLING:
        *options = new pc_options{SamplingRequest{}};
        return;
      case PC_OPTIONS_BEAM_SEARCH:
        *options = new pc_options{BeamSearchRequest{}};
        return;
      case PC_OPTIONS_EMBEDDING:
        *options = new pc_options{EmbeddingRequest{}};
        return;
      case PC_OPTIONS_SNAPSHOT:
        *options = new pc_options{SnapshotLimits{}};
        return;
    }
    throw InvalidArgument(str("argument 'kind' is ", static_cast<int>(kind),
                              "; use PC_OPTIONS_ENGINE, PC_OPTIONS_SAMPLING, PC_OPTIONS_BEAM_SEARCH, "
                              "PC_OPTIONS_EMBEDDING or PC_OPTIONS_SNAPSHOT"));
  });
}

pc_status pc_options_copy(const pc_options* options, pc_options** copy) noexcept {
  return guarded([&] {
    require(options, "options");
    require(copy, "copy");
    *copy = new pc_options(*options);
  });
}

void pc_options_free(pc_options* options) noexcept { delete options; }

pc_status pc_options_set(pc_options* options, const char* name, const char* text) noexcept {
  return guarded([&] {
    require(options, "options");
    require(name, "name");
    require(text, "text");
    std::visit([&](auto& values) { set_option(values, name, std::string_view(text)); }, options->values);
  });
}

pc_status pc_options_set_integer(pc_options* options, const char* name, int64_t value) noexcept {
  return guarded([&] { capi::set_number(options, name, value); });
}

pc_status pc_options_set_real(pc_options* options, const char* name, double value) noexcept {
  return guarded([&] {
    // A whole number as its digits: its shortest text may be 1e+05, which no count is.
    if (value == std::trunc(value) && std::fabs(value) < 0x1p63) {
      capi::set_number(options, name, static_cast<int64_t>(value));
    } else {
      capi::set_number(options, name, value);
    }
  });
}

pc_status pc_options_set_tokens(pc_options* options, const char* name, const int32_t* tokens, size_t count) noexcept {
  return guarded([&] {
    require(options, "options");
    require(name, "name");
    const auto list = capi::tokens_of(tokens, count, "tokens", capi::kMostElements);
    std::visit([&](auto& values) { set_option(values, name, list); }, options->values);
  });
}

pc_status pc_options_set_biases(pc_options* options, const char* name, const pc_token_bias* biases,
                                size_t count) noexcept {
  return guarded([&] {
    require(options, "options");
    require(name, "name");
    capi::require_array(biases, count, "biases", capi::kMostElements);
    std::vector<std::pair<TokenId, float>> list;
    list.reserve(count);
    for (size_t i = 0; i < count; ++i) list.emplace_back(biases[i].token, biases[i].bias);
    std::visit([&](auto& values) { set_option(values, name, std::span<const std::pair<TokenId, float>>(list)); },
               options->values);
  });
}

pc_status pc_options_set_constraint(pc_options* options, const pc_constraint_table* table, void* matcher,
                                    size_t bytes) noexcept {
  return guarded([&] {
    require(options, "options");
    if (table == nullptr) {
      if (matcher != nullptr) throw InvalidArgument("argument 'table' is null, and 'matcher' is not: pass both");
      options->constraint.reset();
      return;
    }
    if (!std::holds_alternative<SamplingRequest>(options->values) &&
        !std::holds_alternative<BeamSearchRequest>(options->values))
      throw InvalidArgument(
          "argument 'options' is of another kind; make it with PC_OPTIONS_SAMPLING or PC_OPTIONS_BEAM_SEARCH");
    if (table->struct_size < sizeof(pc_constraint_table))
      throw InvalidArgument(str("pc_constraint_table.struct_size is ", table->struct_size, "; set it to ",
                                sizeof(pc_constraint_table), ", sizeof(pc_constraint_table)"));
    const ConstraintTable functions{table->compute_mask, table->consume_token, table->error, table->clone, table->free};
    options->constraint = std::make_shared<const Constraint>(functions, matcher, bytes);
  });
}

pc_status pc_options_get(const pc_options* options, const char* name, char* buffer, size_t capacity,
                         size_t* length) noexcept {
  return guarded([&] {
    require(options, "options");
    require(name, "name");
    require(length, "length");
    capi::give_text(std::visit([&](const auto& values) { return get_option(values, name); }, options->values), buffer,
                    capacity, length);
  });
}

pc_status pc_options_count(const pc_options* options, size_t* count) noexcept {
  return guarded([&] {
    require(options, "options");
    require(count, "count");
    *count = capi::description(*options).options.size();
  });
}

pc_status pc_options_describe(const pc_options* options, size_t index, pc_option_info* info) noexcept {
  return guarded([&] {
    require(options, "options");
    require(info, "info");
    const capi::Description& all = capi::description(*options);
    if (index >= all.options.size())
      throw InvalidArgument(str("argument 'index' is ", index, "; there are ", all.options.size(), " options"));
    if (info->struct_size < sizeof(size_t))
      throw InvalidArgument("pc_option_info.struct_size is less than its own; set it to sizeof(pc_option_info)");
    const OptionInfo& option = all.options[index];
    // A program of an older header asked for fewer members, of a newer one for more than there are.
    constexpr size_t member = sizeof(size_t);  // all are of one size: what fits in part is left alone
    const pc_option_info whole = {std::min(info->struct_size / member * member, sizeof(pc_option_info)),
                                  option.name.c_str(),
                                  option.type.c_str(),
                                  option.default_value.c_str(),
                                  option.limits.c_str(),
                                  all.choices[index].c_str(),
                                  option.doc.c_str()};
    std::memcpy(info, &whole, whole.struct_size);
  });
}
