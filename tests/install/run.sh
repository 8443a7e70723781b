#!/usr/bin/env bash
# Builds and runs a foreign project against the installed library:   bash tests/install/run.sh [prefix] [wheel] [cuda]
#   prefix   `cmake --install`, the tree then moved elsewhere
#   wheel    the wheel in a fresh virtual environment, found by pagedcore.get_cmake_dir()
#   cuda     where nvcc is: the wheel that carries the CUDA plugin finds it, and says what else device cuda needs
# prefix and wheel: nothing but the public headers is installed, nothing but pagedcore:: and pc_ is exported.
# Uses the Python of .venv if there is one, else $PYTHON or python3; needs pip and its index for `wheel`.
set -euo pipefail
cd "$(dirname "$0")/../.."

parts=${*:-prefix wheel cuda}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3)}
version=$(cat VERSION)
max_wheel_bytes=5000000
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }

check_headers() {  # INCLUDE_DIR
  diff <(cd "$1" && find . -type f | sort) \
       <({ (cd cpp/include && find . -name '*.hpp' -o -name '*.h'); echo ./pagedcore/version.hpp; } | sort -u) \
    || fail "the installed headers (left) are not the public ones (right)"
}

check_symbols() {  # LIBRARY
  local symbols foreign internal
  symbols=$(nm -DC --defined-only "$1")
  grep -q 'pagedcore::' <<< "$symbols" || fail "$1 exports nothing of pagedcore"
  foreign=$(cut -d' ' -f3- <<< "$symbols" |
    grep -vE '^(typeinfo (name )?for |vtable for )?pagedcore::[A-Za-z_]|^pc_[a-z]' || true)
  [ -z "$foreign" ] || fail "$1 exports foreign symbols:
$foreign"
  internal=$(grep -E 'pagedcore::(kv|cpu|io|capi|bindings|selftest)::' <<< "$symbols" || true)
  [ -z "$internal" ] || fail "$1 exports internal symbols:
$internal"
}

# The linker keeps one copy of a weak function for the whole library: none may come from a source that needs more than
# the baseline instruction set.
check_isa_objects() {  # BUILD_DIR
  local objects symbols weak
  mapfile -t objects < <(find "$1" -regextype posix-extended -regex '.*_(avx2|avx512|avx512bf16|amx|neon)\.cpp\.o')
  if [ ${#objects[@]} -eq 0 ]; then
    [ "$(uname -m)" != x86_64 ] || fail "no objects of one instruction set below $1"
    return
  fi
  symbols=$(nm -AC --defined-only "${objects[@]}")
  weak=$(grep -E ' [Ww] ' <<< "$symbols" || true)
  [ -z "$weak" ] || fail "weak symbols in objects of one instruction set:
$weak"
}

consume() {  # NAME CMAKE_ARGUMENT
  cmake -S tests/install/consumer -B "$tmp/$1" -G Ninja "$2" -DPAGEDCORE_EXPECTED_VERSION="$version" > "$tmp/log" ||
    { cat "$tmp/log"; fail "$1: find_package"; }
  cmake --build "$tmp/$1" > "$tmp/log" || { cat "$tmp/log"; fail "$1: build"; }
  ctest --test-dir "$tmp/$1" --output-on-failure --no-tests=error
}

run_prefix() {
  cmake --preset release > /dev/null
  cmake --build --preset release -j "${JOBS:-$(nproc)}" --target pagedcore
  cmake --install build/release --prefix "$tmp/first" > /dev/null
  mv "$tmp/first" "$tmp/moved"
  check_isa_objects build/release
  check_headers "$tmp/moved/include"
  check_symbols "$(ls "$tmp"/moved/lib*/libpagedcore.so "$tmp"/moved/lib/*/libpagedcore.so 2> /dev/null | head -1)"
  consume prefix -DCMAKE_PREFIX_PATH="$tmp/moved"
}

run_wheel() {
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$tmp/dist" .
  local wheel bytes
  wheel=$(ls "$tmp"/dist/*.whl)
  bytes=$(stat -c %s "$wheel")
  echo "$(basename "$wheel"): $bytes bytes"
  [ "$bytes" -lt $max_wheel_bytes ] || fail "the wheel has $bytes bytes, more than $max_wheel_bytes"

  # Without numpy, tokenizers and huggingface-hub: importing pagedcore must not need them.
  "$python" -m venv "$tmp/venv"
  "$tmp/venv/bin/python" -m pip install --quiet --no-deps "$wheel" nanobind-backend
  local package
  package=$("$tmp/venv/bin/python" -c 'import pathlib, pagedcore; print(pathlib.Path(pagedcore.__file__).parent)')
  [ "$(find "$package" -name 'libpagedcore*' | wc -l)" = 1 ] || fail "the wheel holds the library more than once"
  check_headers "$("$tmp/venv/bin/python" -c 'import pagedcore; print(pagedcore.get_include())')"
  check_symbols "$package"/lib/libpagedcore.so.*
  consume wheel -Dpagedcore_DIR="$("$tmp/venv/bin/python" -c 'import pagedcore; print(pagedcore.get_cmake_dir())')"
}

run_cuda() {
  if ! command -v nvcc > /dev/null; then
    [ "${PAGEDCORE_CUDA:-AUTO}" != ON ] || fail "PAGEDCORE_CUDA=ON, but nvcc is not on the PATH"
    echo "left out: no nvcc"
    return
  fi
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$tmp/cuda" . --config-settings=cmake.define.PAGEDCORE_CUDA=ON
  "$python" -m venv "$tmp/cuda_venv"
  "$tmp/cuda_venv/bin/python" -m pip install --quiet --no-deps "$tmp"/cuda/*.whl nanobind-backend
  local status
  status=$("$tmp/cuda_venv/bin/python" -c 'from pagedcore import _core; s = _core.cuda_status(); print(s.plugin_version, s.problem)')
  echo "device cuda: $status"
  # The plugin was opened; what is missing on a machine without a GPU is the driver.
  [ "${status%% *}" = "$version" ] || fail "the plugin of the wheel was not opened: $status"
}

for part in $parts; do
  case "$part" in
    prefix | wheel | cuda) echo "-- $part"; "run_$part" ;;
    *) echo "unknown part '$part': prefix, wheel or cuda" >&2; exit 2 ;;
  esac
done
echo "consumers passed: $parts"
