// A matcher that other Python code made, as a Constraint: functions and matchers come as capsules, which only code that
// knows addresses can make.
#include "pagedcore/constraint.hpp"

#include <memory>
#include <string>

#include "bindings/bindings.hpp"
#include "bindings/engine_handle.hpp"

namespace pagedcore::bindings {
namespace {

constexpr const char* kTable = "pagedcore.constraint_table";
constexpr const char* kMatcher = "pagedcore.matcher";

/// What a capsule of functions points to.
struct TableMemory {
  ConstraintTable table;
  void* shared;  // by the matchers; null: nothing
  void (*free_shared)(void* shared);
};

struct SharedTable {
  ConstraintTable table;
  std::shared_ptr<const void> shared;
};

/// What a capsule points to, which is now ours: it is renamed, so that nobody takes it twice.
void* taken(nb::handle capsule, const char* name, const char* used) {
  void* pointer = PyCapsule_IsValid(capsule.ptr(), name) != 0 ? PyCapsule_GetPointer(capsule.ptr(), name) : nullptr;
  if (pointer == nullptr) throw nb::type_error((std::string("not a capsule named ") + name).c_str());
  if (PyCapsule_SetName(capsule.ptr(), used) != 0) throw nb::python_error();
  return pointer;
}

/// Freed from the last to the first.
struct Stack {
  std::shared_ptr<const void> beneath, own;
};

void construct_table(SharedTable* self, nb::handle capsule, const SharedTable* beneath) {
  const auto* given = static_cast<const TableMemory*>(taken(capsule, kTable, "pagedcore.constraint_table, taken"));
  std::shared_ptr<const void> shared;
  if (given->shared != nullptr && given->free_shared != nullptr)
    shared = std::shared_ptr<void>(given->shared, given->free_shared);
  if (beneath != nullptr) shared = std::make_shared<const Stack>(Stack{beneath->shared, std::move(shared)});
  new (self) SharedTable{given->table, std::move(shared)};
}

void construct(ConstraintHandle* self, const SharedTable& table, nb::handle capsule, std::size_t bytes) {
  void* matcher = taken(capsule, kMatcher, "pagedcore.matcher, taken");
  new (self) ConstraintHandle{std::make_shared<Constraint>(table.table, matcher, bytes, table.shared)};
}

}  // namespace

void bind_constraint(nb::module_& m) {
  nb::class_<SharedTable>(m, "ConstraintTable", "The functions of one kind of matcher.")
      .def(
          "__init__", &construct_table, "functions"_a, "beneath"_a.none() = nb::none(),
          nb::sig("def __init__(self, functions: object, beneath: ConstraintTable | None = None) -> None"),
          "functions: a capsule named 'pagedcore.constraint_table', of seven pointers, which are copied: the functions "
          "of ConstraintTable in constraint.hpp, in order; what all matchers refer to, which is the table's from now "
          "on, or null; and the function that frees it. beneath: a table whose shared part is freed after that.");
  nb::class_<ConstraintHandle>(m, "Constraint", "A matcher at its beginning: what outputs of requests are held to.")
      .def(
          "__init__", &construct, "table"_a, "matcher"_a, "bytes"_a = 0,
          nb::sig("def __init__(self, table: ConstraintTable, matcher: object, bytes: int = 0) -> None"),
          "matcher: a capsule named 'pagedcore.matcher', which is the constraint's from now on. bytes: of host memory, "
          "that a sample's copy of it may come to hold.");
}

}  // namespace pagedcore::bindings
