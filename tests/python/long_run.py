"""Whether everything runs, or the slice that every change is tested with: `tests/run.sh long` sets the variable."""

from __future__ import annotations

import os

LONG_RUN = os.environ.get("PAGEDCORE_LONG_TESTS") == "1"
