#!/usr/bin/env bash
# tests/fuzz/bound_api.py on a native module that was built under AddressSanitizer:
#   cmake --preset asan -DPAGEDCORE_BUILD_PYTHON=ON -DPython_EXECUTABLE=PYTHON && cmake --build --preset asan --target _core
#   bash tests/fuzz/under_asan.sh PYTHON build/asan [ARGUMENT OF bound_api.py...]
# PYTHON has numpy, hypothesis and what pagedcore needs. Needs GCC, whose run-time libraries are loaded before Python.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
python=$1
build=$(cd "$2" && pwd)
shift 2

package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
cp -rs "$repository/python/pagedcore" "$package/"
ln -sf "$build"/python/pagedcore/_core*.so "$package/pagedcore/"

# Leaks: the interpreter keeps what it has to the end. An allocation that is too large is an error to be told, not an end.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libstdc++.so.6)" PYTHONPATH=$package \
  "$python" -P "$repository/tests/fuzz/bound_api.py" "$@"
