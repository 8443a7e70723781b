#!/usr/bin/env bash
# What a machine with a GPU can show of the CUDA backend, in parts of at most 8 minutes, the most telling first:
#   bash tests/cuda/on_device.sh build|kernels|sanitizer|engine|sweep [RESULTS]
#   build      the plugin and the tests for this machine's GPU (4 minutes)
#   kernels    the kernels' tests, natively; the self-test of all operations (5)
#   sanitizer  the same tests under compute-sanitizer: memcheck, racecheck, initcheck, synccheck (8)
#   engine     the end-to-end tests of the engine (4)
#   sweep      what operations take, against torch where that is installed; steps with CUDA graphs and without (4)
# Each part writes RESULTS/PART.txt, all that was printed, and RESULTS/PART.jsonl, one object for each of its steps. A part that
# is run again goes on where it stopped: steps that passed are not repeated. It ends with 0 when all have passed, with 1 when
# one failed, and with 3 when its time (PAGEDCORE_PART_SECONDS, 480) was up before the last.
# Nothing is downloaded. What was built elsewhere (build/device) is taken where there is no nvcc.
# PAGEDCORE_EMULATED=1 runs all of it on the emulated device, to test this script and what it calls; build/release is used then.
set -uo pipefail
cd "$(dirname "$0")/../.."

part=${1:-} results=${2:-build/on_device}
limit=${PAGEDCORE_PART_SECONDS:-480}
emulated=${PAGEDCORE_EMULATED:-}
build=${PAGEDCORE_DEVICE_BUILD:-build/device}
kind=device
[ -z "$emulated" ] || { build=${PAGEDCORE_DEVICE_BUILD:-build/release} kind=cuda; }
case "$part" in
  build | kernels | sanitizer | engine | sweep) ;;
  *) sed -n '2,14s/^# \?//p' "$0" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}
[ ! -x .venv/bin/python ] || python=.venv/bin/python
mkdir -p "$results"
log=$results/$part.txt record=$results/$part.jsonl
touch "$log" "$record"
status=0

step() {  # NAME COMMAND...: within what is left of the part's time
  local name=$1 begin=$SECONDS left=$((limit - SECONDS)) code outcome
  shift
  if grep -qF "{\"step\": \"$name\", \"outcome\": \"passed\"" "$record"; then return 0; fi
  if [ $left -lt 5 ]; then
    echo "== $part: the time is up before $name; run the part again"
    exit 3
  fi
  printf '\n== %s: %s\n' "$part" "$name" | tee -a "$log"
  timeout -k 5 $left "$@" 2>&1 | tee -a "$log"
  code=${PIPESTATUS[0]}
  case $code in
    0) outcome=passed ;;
    124 | 137) outcome=unfinished ;;
    *) outcome=failed status=1 ;;
  esac
  printf '{"step": "%s", "outcome": "%s", "code": %d, "seconds": %d}\n' "$name" "$outcome" $code $((SECONDS - begin)) >> "$record"
  if [ $outcome = unfinished ]; then
    echo "== $part: the time is up in $name; run the part again"
    exit 3
  fi
}
skip() {  # NAME WHY
  printf '\n== %s: %s left out: %s\n' "$part" "$1" "$2" | tee -a "$log"
  printf '{"step": "%s", "outcome": "left out", "why": "%s"}\n' "$1" "$2" >> "$record"
}
program() { find "$build/tests" -name "test_${kind}_$1" -type f -perm -u+x 2>/dev/null | head -1; }
has() { command -v "$1" > /dev/null; }
kernel_tests="rows matmul attention rope_cache paged_attention_2023 sampling"
plugin() { find "$build" -path "*${emulated:+/package}/libpagedcore_cuda.so" -type f | head -1; }
report() { "$build/tests/cuda/test_device_report" "$(plugin)" "$@"; }  # of public calls: the same program for either device
export -f plugin report
export build emulated

part_build() {
  local jobs
  jobs=$(nproc)
  if [ -n "$emulated" ]; then
    step configure cmake --preset release -DPAGEDCORE_CUDA=ON
    step programs cmake --build "$build" -j "$jobs" --target test_cuda_rows test_cuda_matmul test_cuda_attention \
      test_cuda_rope_cache test_cuda_paged_attention_2023 test_cuda_sampling test_cuda_end_to_end cuda_emu_package_plugin \
      test_device_report
    return
  fi
  step card nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv
  if ! has nvcc; then
    [ -n "$(program matmul)" ] || { skip programs "no nvcc, and no $build from elsewhere"; status=1; return; }
    skip programs "no nvcc: $build is taken as it is"
    return
  fi
  local capability
  capability=${PAGEDCORE_CUDA_ARCHITECTURES:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)-real}
  step configure cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DPAGEDCORE_CUDA=ON \
    -DPAGEDCORE_CUDA_ARCHITECTURES="$capability"
  step programs cmake --build "$build" -j "$jobs" --target pagedcore_cuda device_tests
}

test_step() {  # STEP TEST BEFORE...: the program of a test, after the words of a tool
  local name=$1 found
  found=$(program "$2")
  shift 2
  if [ -z "$found" ]; then
    skip "$name" "its program is not in $build: run the part build"
    status=1
    return
  fi
  step "$name" "$@" "$found"
}

part_kernels() {
  local name
  for name in $kernel_tests; do test_step "$name" "$name"; done
  step selftest bash -c 'report selftest'
}

part_sanitizer() {
  local tool name sanitizer=${PAGEDCORE_COMPUTE_SANITIZER:-compute-sanitizer}
  [ -z "$emulated" ] || sanitizer=${PAGEDCORE_COMPUTE_SANITIZER:-tests/cuda/emulated_sanitizer.sh}
  if ! has "$sanitizer"; then
    skip compute-sanitizer "it is not on the PATH"
    status=1
    return
  fi
  for tool in memcheck racecheck initcheck synccheck; do
    for name in $kernel_tests; do
      test_step "$tool $name" "$name" "$sanitizer" --tool "$tool" --error-exitcode 9
    done
  done
}

part_engine() { test_step end_to_end end_to_end; }

part_sweep() {
  local rows
  step rates bash -c "report rates ${emulated:+quick}"
  for rows in 0 64; do step "steps, graph_rows $rows" bash -c "report steps $rows"; done
  if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    step torch "$python" tests/cuda/against_torch.py
  else
    skip torch "no torch that sees a GPU in $python"
  fi
}

"part_$part"
echo "== $part: $([ $status = 0 ] && echo passed || echo failed); $log, $record"
exit $status
