"""What a machine must have to load the CUDA plugin, and what it adds to a process.

    python tests/cuda/check_plugin.py build/release/cpp/libpagedcore_cuda.so      (also a ctest, cuda_plugin_file)

It needs the C and C++ run-times and libpagedcore, so neither the CUDA toolkit's libraries nor the driver's; it exports
its one entry; it is not larger than a download should be. Needs readelf and nm, which come with every compiler.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ENTRY = "pagedcore_cuda_plugin_v2"  # cpp/backend/cuda_plugin.hpp
MAX_BYTES = 40_000_000
NEEDED = re.compile(r"(libpagedcore|libstdc\+\+|libgcc_s|libm|libc|libdl|librt|libpthread|ld-linux[\w-]*)\.so\.[\d.]+")


def problems(needed: list[str], exported: list[str], size: int) -> list[str]:
    found = [
        f"needs {library}, which a machine without CUDA lacks" for library in needed if not NEEDED.fullmatch(library)
    ]
    found += [f"exports {symbol}" for symbol in exported if symbol != ENTRY]
    if ENTRY not in exported:
        found.append(f"does not export {ENTRY}")
    if size > MAX_BYTES:
        found.append(f"has {size} bytes, more than {MAX_BYTES}")
    return found


def output_of(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def main() -> int:
    library = Path(sys.argv[1])
    dynamic = output_of("readelf", "--dynamic", "--wide", str(library))
    needed = [match[1] for line in dynamic if (match := re.search(r"\(NEEDED\).*\[(.*)\]", line))]
    exported = [line.split()[-1] for line in output_of("nm", "--dynamic", "--defined-only", str(library))]
    size = library.stat().st_size
    found = problems(needed, exported, size)
    print(*(f"{library.name} {problem}" for problem in found), sep="\n", file=sys.stderr, end="\n" if found else "")
    print(f"{library.name}: {size} bytes, needs {' '.join(needed)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
