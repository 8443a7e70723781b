#!/usr/bin/env bash
# Stands in for compute-sanitizer where a GPU is emulated: emulated_sanitizer.sh --tool NAME --error-exitcode N PROGRAM ARGUMENT...
# Each tool is another order of the emulated threads.
set -euo pipefail
case "$2" in
  memcheck) order=ascending ;;
  racecheck) order=random:7 ;;
  initcheck) order=descending ;;
  synccheck) order=others-first ;;
  *) echo "unknown tool $2" >&2; exit 2 ;;
esac
code=$4
shift 4
PAGEDCORE_CUDA_EMU=$order "$@" || exit "$code"
