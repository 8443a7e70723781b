// Ids are distinct types in C++ and plain integers in Python.
#pragma once

#include <nanobind/nanobind.h>

#include <type_traits>

#include "pagedcore/types.hpp"

namespace nanobind::detail {

template <class Id>
struct id_caster {
  using Raw = std::underlying_type_t<Id>;
  NB_TYPE_CASTER(Id, const_name("int"))

  bool from_python(handle source, uint32_t flags, cleanup_list* cleanup) noexcept {
    make_caster<Raw> number;
    if (!number.from_python(source, flags, cleanup)) return false;
    value = Id{number.value};
    return true;
  }
  static handle from_cpp(Id id, rv_policy policy, cleanup_list* cleanup) noexcept {
    return make_caster<Raw>::from_cpp(pagedcore::raw(id), policy, cleanup);
  }
};

template <>
struct type_caster<pagedcore::BlockId> : id_caster<pagedcore::BlockId> {};
template <>
struct type_caster<pagedcore::SequenceId> : id_caster<pagedcore::SequenceId> {};
template <>
struct type_caster<pagedcore::RequestId> : id_caster<pagedcore::RequestId> {};
template <>
struct type_caster<pagedcore::PrefixId> : id_caster<pagedcore::PrefixId> {};
template <>
struct type_caster<pagedcore::QueueId> : id_caster<pagedcore::QueueId> {};
template <>
struct type_caster<pagedcore::SwapSlot> : id_caster<pagedcore::SwapSlot> {};
template <>
struct type_caster<pagedcore::StepId> : id_caster<pagedcore::StepId> {};

}  // namespace nanobind::detail
