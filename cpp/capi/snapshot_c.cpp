// Snapshots: the parts of an EngineSnapshot by the names of its list, whatever they are.
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/field_text.hpp"
#include "capi/engine_handle.hpp"
#include "capi/record.hpp"
#include "capi/status.hpp"

using namespace pagedcore;
using capi::guarded;
using capi::require;

namespace {

template <class T>
struct Entry {
  std::string_view name;
  T value;
};

template <class T>
pc_record record_of(const T& values) {
  pc_record record;
  each_field(values,
             [&](const auto& owner, const auto& f) { record.values.emplace_back(f.name, to_text(owner.*f.member)); });
  return record;
}

template <class T>
concept Listed = std::is_class_v<T>;

/// The part of this name, of those of one kind.
template <class T>
const T& find(const std::vector<Entry<T>>& parts, const char* name) {
  require(name, "name");
  std::string known;
  for (const Entry<T>& part : parts) {
    if (part.name == name) return part.value;
    known.append(known.empty() ? "" : ", ").append(part.name);
  }
  throw InvalidArgument(str("argument 'name' is '", std::string_view(name).substr(0, 64),
                            "'; what a snapshot has of that kind: ", known));
}

}  // namespace

/// Keeps what C reads. Nothing of it moves once it is built.
struct pc_snapshot {
  explicit pc_snapshot(EngineSnapshot taken) : snapshot(std::move(taken)) {
    each_field(snapshot, [&](const auto& owner, const auto& f) { add(f.name, owner.*f.member); });
  }

  template <class T>
  void add(const char* name, const T& value) {
    values.values.emplace_back(name, to_text(value));
  }
  void add(const char* name, const std::vector<std::uint8_t>& list) { bytes.push_back({name, &list}); }
  void add(const char* name, const std::vector<std::uint32_t>& list) { numbers.push_back({name, &list}); }
  template <Listed T>
  void add(const char* name, const std::vector<T>& list) {
    std::vector<pc_record> made;
    made.reserve(list.size());
    for (const T& item : list) made.push_back(record_of(item));
    records.push_back({name, std::move(made)});
  }

  EngineSnapshot snapshot;
  pc_record values;
  std::vector<Entry<const std::vector<std::uint8_t>*>> bytes;
  std::vector<Entry<const std::vector<std::uint32_t>*>> numbers;
  std::vector<Entry<std::vector<pc_record>>> records;
};

pc_status pc_engine_snapshot(const pc_engine* engine, const pc_options* limits, pc_snapshot** snapshot) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(snapshot, "snapshot");
    *snapshot = new pc_snapshot(engine->engine.snapshot(capi::snapshot_limits(limits)));
  });
}

pc_status pc_snapshot_values(const pc_snapshot* snapshot, const pc_record** values) noexcept {
  return guarded([&] {
    require(snapshot, "snapshot");
    require(values, "values");
    *values = &snapshot->values;
  });
}

pc_status pc_snapshot_bytes(const pc_snapshot* snapshot, const char* name, const uint8_t** bytes,
                            size_t* count) noexcept {
  return guarded([&] {
    require(snapshot, "snapshot");
    require(bytes, "bytes");
    require(count, "count");
    const std::vector<std::uint8_t>& list = *find(snapshot->bytes, name);
    *bytes = list.data();
    *count = list.size();
  });
}

pc_status pc_snapshot_numbers(const pc_snapshot* snapshot, const char* name, const uint32_t** numbers,
                              size_t* count) noexcept {
  return guarded([&] {
    require(snapshot, "snapshot");
    require(numbers, "numbers");
    require(count, "count");
    const std::vector<std::uint32_t>& list = *find(snapshot->numbers, name);
    *numbers = list.data();
    *count = list.size();
  });
}

pc_status pc_snapshot_count(const pc_snapshot* snapshot, const char* name, size_t* count) noexcept {
  return guarded([&] {
    require(snapshot, "snapshot");
    require(count, "count");
    *count = find(snapshot->records, name).size();
  });
}

pc_status pc_snapshot_record(const pc_snapshot* snapshot, const char* name, size_t index,
                             const pc_record** record) noexcept {
  return guarded([&] {
    require(snapshot, "snapshot");
    require(record, "record");
    const std::vector<pc_record>& list = find(snapshot->records, name);
    if (index >= list.size())
      throw InvalidArgument(str("argument 'index' is ", index, "; there are ", list.size(), ' ', name));
    *record = &list[index];
  });
}

void pc_snapshot_free(pc_snapshot* snapshot) noexcept { delete snapshot; }
