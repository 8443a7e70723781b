"""From the start of a process to the first token, and the memory it holds then.

python bench/start_up.py [--model PATH] [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

_CHILD = """
import json, sys, time
from pagedcore import LLM
imported = time.perf_counter()
llm = LLM(sys.argv[1] or None, kv_cache_memory="64MiB")
loaded = time.perf_counter()
next(llm.stream("The capital of France is"))
first = time.perf_counter()
rss = int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
plan = llm.memory_plan()
print(json.dumps({"load": loaded - imported, "prefill": first - loaded, "rss": rss,
                  "overhead": rss - plan.weights - plan.kv_cache}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    runs = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-c", _CHILD, arguments.model], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        line = child.stdout.readline()
        seconds = time.perf_counter() - start
        if child.wait() != 0 or not line:
            raise SystemExit("the run failed; see above")
        runs.append({"total": seconds, **json.loads(line)})
    best = min(runs, key=lambda run: run["total"])
    print(f"process start to first token {best['total']:7.3f} s  (best of {len(runs)})")
    print(f"  loading                    {best['load']:7.3f} s")
    print(f"  first token                {best['prefill']:7.3f} s")
    print(f"resident memory              {best['rss'] / 2**20:7.1f} MiB")
    print(f"  besides weights and KV     {best['overhead'] / 2**20:7.1f} MiB")


if __name__ == "__main__":
    main()
