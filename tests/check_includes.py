"""Checks the include graph of the rooms: python tests/check_includes.py (also a ctest, `includes`).

A room is a folder of cpp/, or cuda/. It may include the rooms below it and the public headers of those rooms. Prints
one line `file:line: why` for each include that breaks a rule and exits with 1 if there was one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOMS_BELOW = {
    "base": set(),
    "comm": {"base"},
    "tensor": {"base"},
    "store": {"base"},
    "kv": {"base"},
    "scheduler": {"base", "kv"},
    "sampling": {"base"},
    "backend": {"base", "tensor", "sampling"},
    "selftest": {"base", "tensor", "backend", "sampling"},
    "cpu": {"base", "tensor", "sampling", "backend"},
    "model": {"base", "comm", "tensor", "backend"},
    "io": {"base", "tensor"},
    "engine": {"base", "comm", "store", "tensor", "backend", "kv", "scheduler", "sampling", "model"},
    "sim": {"base", "comm", "store", "tensor", "backend", "kv", "scheduler", "sampling", "model", "engine"},
    "capi": {"base"},
    "bindings": {"base"},  # for the texts of limits, which are the same in every language
}
PUBLIC_HEADERS = {  # and the room each belongs to
    "error.hpp": "base",
    "export.hpp": "base",
    "fields.hpp": "base",
    "types.hpp": "base",
    "version.hpp": "base",
    "tensor.hpp": "tensor",
    "recoded.hpp": "tensor",
    "attention.hpp": "backend",
    "backend.hpp": "backend",
    "mixture.hpp": "backend",
    "weight.hpp": "backend",
    "embedding.hpp": "base",
    "devices.hpp": "backend",
    "selftest.hpp": "selftest",
    "kv_cache.hpp": "kv",
    "scheduler.hpp": "scheduler",
    "snapshot.hpp": "kv",
    "step_plan.hpp": "scheduler",
    "trace.hpp": "scheduler",
    "constraint.hpp": "sampling",
    "sampling.hpp": "sampling",
    "model.hpp": "model",
    "feed_forward.hpp": "model",
    "model_rank.hpp": "model",
    "container_text.hpp": "io",
    "input_file.hpp": "io",
    "engine.hpp": "engine",
    "engine_request.hpp": "engine",
    "kv_store.hpp": "engine",
    "options.hpp": "engine",
    "simulation.hpp": "sim",
    "pagedcore.h": "capi",
}
# Rooms that may see public headers of rooms which they do not otherwise know.
ALL_HEADERS = set(PUBLIC_HEADERS.values())
MORE_HEADERS = {"io": {"backend", "model"}, "capi": ALL_HEADERS, "bindings": ALL_HEADERS}

# A source compiled for one instruction set may not instantiate inline code that the rest of the program shares.
ISA_SOURCE = re.compile(r"_(avx2|avxvnni|avx512|avx512vnni|avx512bf16|amx|neon)\.cpp$")
ISA_SAFE = {"cstddef", "cstdint", "cstring", "cfloat", "climits"}

# Host threads are the same for every device.
CUDA_SEES_OF_CPU = {"cpu/thread_pool.hpp", "cpu/cpu_count.hpp"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Include(NamedTuple):
    line: int
    quoted: bool
    path: str


class Problem(NamedTuple):
    file: Path
    line: int
    why: str


def includes_of(file: Path) -> list[Include]:
    found = []
    for number, text in enumerate(file.read_text().splitlines(), 1):
        if match := INCLUDE.match(text):
            found.append(Include(number, match[1] == '"', match[2]))
    return found


def sources(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix in {".cpp", ".hpp", ".h", ".c", ".in"})


def check_edges(cpp: Path) -> Iterator[Problem]:
    """Every include names a header that its room may see."""
    for file in sources(cpp):
        relative = file.relative_to(cpp)
        public = relative.parts[0] == "include"
        name = relative.name.removesuffix(".in")
        room = PUBLIC_HEADERS.get(name) if public else relative.parts[0]
        if room not in ROOMS_BELOW:
            yield Problem(
                file, 1, f"unknown {'public header' if public else 'room'}: enter it in {Path(__file__).name}"
            )
            continue
        below = ROOMS_BELOW[room] | {room}
        for include in includes_of(file):
            first, _, rest = include.path.partition("/")
            if first == "pagedcore":
                if not include.quoted:
                    yield Problem(file, include.line, f'"{include.path}", not <{include.path}>')
                if rest not in PUBLIC_HEADERS:
                    yield Problem(file, include.line, f"{include.path} is no public header")
                elif PUBLIC_HEADERS[rest] not in below | MORE_HEADERS.get(room, set()):
                    yield Problem(file, include.line, f"{room} may not see {include.path}")
            elif include.quoted:
                if public:
                    yield Problem(file, include.line, f"a public header may not include the internal {include.path}")
                elif not (cpp / include.path).is_file():
                    yield Problem(file, include.line, f"{include.path} is not a path below cpp/")
                elif first not in below:
                    yield Problem(file, include.line, f"{room} may not include {first}")
            elif first == "nanobind" and room != "bindings":
                yield Problem(file, include.line, "only bindings may include nanobind")


def check_isa_sources(cpp: Path) -> Iterator[Problem]:
    """Sources of one instruction set reach no header of the C++ library with templates or inline functions."""
    for source in sources(cpp / "cpu"):
        if not ISA_SOURCE.search(source.name):
            continue
        seen, pending = {source}, [source]
        while pending:
            file = pending.pop()
            for include in includes_of(file):
                target = cpp / include.path if include.quoted else None
                if target and target.is_file():
                    if target not in seen:
                        seen.add(target)
                        pending.append(target)
                elif include.quoted or not (include.path.endswith(".h") or include.path in ISA_SAFE):
                    yield Problem(file, include.line, f"<{include.path}> is reached from {source.relative_to(cpp)}")


def check_cuda(root: Path) -> Iterator[Problem]:
    """The CUDA plugin sees what the room cpu sees, and its threads; its host code the plain headers of kernels."""
    cuda, cpp = root / "cuda", root / "cpp"
    for file in sorted(f for f in cuda.rglob("*") if f.suffix in {".cpp", ".hpp", ".cu", ".cuh"}):
        device = file.suffix in {".cu", ".cuh"}
        for include in includes_of(file):
            first, _, rest = include.path.partition("/")
            if not include.quoted:
                continue
            if first == "pagedcore":
                if PUBLIC_HEADERS.get(rest) not in ROOMS_BELOW["cpu"]:
                    yield Problem(file, include.line, f"the CUDA plugin may not see {include.path}")
            elif device and include.path == "emulator/ptx.hpp" and file.name == "ptx.cuh":
                continue
            elif (cuda / include.path).is_file():
                if include.path.endswith(".cuh") and not device:
                    yield Problem(file, include.line, f"host code may not include {include.path}")
                if file.is_relative_to(cuda / "kernels") and first != "kernels":
                    yield Problem(file, include.line, f"kernels may not include {include.path}")
            elif first not in ROOMS_BELOW["cpu"] and include.path not in CUDA_SEES_OF_CPU:
                yield Problem(file, include.line, f"the CUDA plugin may not include {include.path}")
            elif not (cpp / include.path).is_file():
                yield Problem(file, include.line, f"{include.path} is not a path below cuda/ or cpp/")
        if device and file.name != "ptx.cuh":
            for number, text in enumerate(file.read_text().splitlines(), 1):
                if re.match(r"\s*(asm|__asm__)\b", text):
                    yield Problem(file, number, "inline assembly belongs in ptx.cuh")


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    problems = sorted({*check_edges(root / "cpp"), *check_isa_sources(root / "cpp"), *check_cuda(root)})
    for problem in problems:
        print(f"{problem.file.relative_to(root)}:{problem.line}: {problem.why}")
    print(f"{len(problems)} broken rules" if problems else "the include graph is as designed")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
