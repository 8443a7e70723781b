# Flags that every target shares, and pagedcore_room(): one object library for one folder of cpp/.

add_library(pagedcore_flags INTERFACE)
target_include_directories(pagedcore_flags INTERFACE
  "${PROJECT_SOURCE_DIR}/cpp/include" "${PROJECT_BINARY_DIR}/include" "${PROJECT_SOURCE_DIR}/cpp")
target_compile_features(pagedcore_flags INTERFACE cxx_std_20)
target_link_libraries(pagedcore_flags INTERFACE Threads::Threads)
if(PAGEDCORE_WERROR)
  set(werror -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC bugs 105651 (string concatenation) and 105593 (AVX-512 intrinsics): false alarms in its own headers.
    list(APPEND werror -Wno-error=restrict -Wno-error=maybe-uninitialized)
  endif()
endif()
# Same request, same bits: the compiler may not fuse or reorder floating-point operations on its own.
target_compile_options(pagedcore_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
  -ffp-contract=off ${werror})
if(PAGEDCORE_SANITIZE)
  target_compile_options(pagedcore_flags INTERFACE -fsanitize=${PAGEDCORE_SANITIZE} -fno-omit-frame-pointer)
  if(PAGEDCORE_SANITIZE MATCHES "undefined")
    target_compile_options(pagedcore_flags INTERFACE -fno-sanitize-recover=all)
  endif()
  target_link_options(pagedcore_flags INTERFACE -fsanitize=${PAGEDCORE_SANITIZE})
endif()

configure_file("${PROJECT_SOURCE_DIR}/cpp/include/pagedcore/version.hpp.in"
               "${PROJECT_BINARY_DIR}/include/pagedcore/version.hpp" @ONLY)

# pagedcore_room(name SOURCES... ): object library pagedcore_<name>, part of libpagedcore.
function(pagedcore_room name)
  add_library(pagedcore_${name} OBJECT ${ARGN})
  target_link_libraries(pagedcore_${name} PUBLIC pagedcore_flags)
  set_property(GLOBAL APPEND PROPERTY PAGEDCORE_ROOMS pagedcore_${name})
endfunction()

# pagedcore_test(name [ONE_THREAD] ROOMS... SOURCES...): a doctest program that sees the rooms' internals. ONE_THREAD says that
# it never runs two threads, so that ThreadSanitizer has nothing to find: only PAGEDCORE_LONG_TESTS runs it under that.
function(pagedcore_test name)
  cmake_parse_arguments(ARG "ONE_THREAD" "" "ROOMS;SOURCES" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES})
  target_link_libraries(test_${name} PRIVATE pagedcore_flags pagedcore_test_main doctest::doctest)
  foreach(room IN LISTS ARG_ROOMS)
    target_link_libraries(test_${name} PRIVATE pagedcore_${room})
  endforeach()
  if(ARG_ONE_THREAD AND PAGEDCORE_SANITIZE STREQUAL "thread" AND NOT PAGEDCORE_LONG_TESTS)
    set_target_properties(test_${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  else()
    add_test(NAME ${name} COMMAND test_${name})
  endif()
endfunction()
