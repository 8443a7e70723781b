"""Proves that the emulated tests can fail.

    python tests/cuda_emu/mutate.py build/release [--jobs 2] [--slice 10 --seed 1] [PC_MUTATE_NAME ...]

Every PC_MUTATE_* macro in cuda/ takes one barrier, wait, bound or boundary out of a kernel. For each, a kernel source
that it changes is compiled with the macro, linked to the objects of that kernel's test in the build directory, and run
until an order of execution makes the test fail. A mutation that does not compile, that no suite covers, or that
survives every order is an error; so is a test that fails with the same flags and no mutation.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
ORDERS = ("descending", "random:1", "ascending", "random:2", "random:3")
FEWEST = 20  # mutations; fewer means that the search for them is broken
SECONDS = 120  # for one run of a test, which takes a few; a test that hangs has detected nothing


@dataclass(frozen=True)
class Suite:
    """What shows the mutations of a kernel: of one source of a family, as they compile the same templates."""

    kernel: str
    test: str
    cases: str = "*"  # doctest's filter


SUITES = (
    Suite("matmul.cu", "test_cuda_matmul"),
    Suite("matmul_finish.cu", "test_cuda_matmul", "*epilogue of finished sums*"),
    Suite("norm.cu", "test_cuda_rows", "*norm*"),
    Suite("rows.cu", "test_cuda_rows", "*embedding*,*softcap*"),
    Suite("copy.cu", "test_cuda_rows", "*cop*,*2^31*"),
    Suite("sampling.cu", "test_cuda_sampling"),
    Suite("rope_cache.cu", "test_cuda_rope_cache"),
    Suite("paged_attention_2023.cu", "test_cuda_paged_attention_2023"),
    Suite("attention_f16.cu", "test_cuda_attention"),
)

# What a detected mutation prints, the most telling first.
REPORTS = (
    ("a report of the emulator", re.compile(r"^cuda_emu: .*", re.M)),
    ("a report of a sanitizer", re.compile(r"(?:WARNING: ThreadSanitizer|ERROR: AddressSanitizer|runtime error): .*")),
    ("a failed check", re.compile(r"ERROR: .*(?:CHECK|REQUIRE|THREW).*", re.M)),
    ("an access outside of an allocation", re.compile(r"FATAL ERROR: .*SIGSEGV.*", re.M)),
)


@dataclass(frozen=True)
class Outcome:
    mutation: str
    ok: bool
    text: str
    orders: tuple[str, ...] = ()
    suite: Suite | None = None


def fail(text: str) -> NoReturn:
    sys.exit(f"mutate.py: {text}")


class Build:
    """The commands and dependencies of a build directory made by Ninja."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory, self.scratch = directory, scratch
        cache = directory / "CMakeCache.txt"
        text = cache.read_text() if cache.exists() else ""
        found = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.*ninja.*)$", text, re.M)
        if found is None:
            fail(f"{directory} is no build directory of Ninja: configure one with cmake --preset release")
        self.ninja = found.group(1)
        self._commands: dict[str, list[str]] = {}

    def _ninja(self, *arguments: str) -> list[str]:
        command = [self.ninja, "-C", str(self.directory), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fail(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
        return [line for line in done.stdout.splitlines() if not line.startswith("ninja: Entering")]

    def build(self, targets: list[str], jobs: int) -> None:
        self._ninja("-j", str(jobs), *targets)

    def load(self, suites: tuple[Suite, ...]) -> None:
        for suite in suites:
            self._commands[suite.test] = self._ninja("-t", "commands", suite.test)

    def link(self, suite: Suite) -> list[str]:
        words = shlex.split(self._commands[suite.test][-1])
        return words[words.index("&&") + 1 : len(words) - words[::-1].index("&&") - 1]

    def object_of(self, suite: Suite) -> str:
        objects = [word for word in self.link(suite) if word.endswith(f"/{suite.kernel}.o")]
        if len(objects) != 1:
            fail(f"{suite.test} links {len(objects)} objects of {suite.kernel}, not one")
        return objects[0]

    def sources(self, suite: Suite) -> set[Path]:
        lines = self._ninja("-t", "deps", self.object_of(suite))
        return {(self.directory / line.strip()).resolve() for line in lines if line.startswith("    ")}

    def compile(self, suite: Suite, mutation: str | None) -> tuple[Path, str]:
        """The suite's test with the mutation (None: without any), and the compiler's errors."""
        name = f"{suite.test}.{mutation}"
        changed, program = self.scratch / f"{name}.o", self.scratch / name
        old = self.object_of(suite)
        [command] = [c for c in self._commands[suite.test] if f" -o {old} " in c]
        words = [str(changed) if word == old else word for word in shlex.split(command)]
        words = ["-O1" if word in ("-O2", "-O3") else word for word in words]  # quick to compile
        words += [f"-D{mutation}"] if mutation else []
        words += ["-w"]  # what a mutation leaves unused
        link = [str(changed) if word == old else word for word in self.link(suite)]
        link[link.index("-o") + 1] = str(program)
        for step in (words, link):
            done = subprocess.run(step, cwd=self.directory, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return program, done.stdout + done.stderr
        return program, ""


def run(program: Path, suite: Suite, order: str) -> str:
    """Of one order of execution: nothing where the test passes, else how it fails."""
    command = [str(program), "--abort-after=1", "--no-intro", f"--test-case={suite.cases}"]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PAGEDCORE_CUDA_EMU": order},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"still ran after {SECONDS} s"
    if done.returncode == 0:
        return ""
    output = done.stdout + done.stderr
    for what, pattern in REPORTS:
        found = pattern.search(output)
        if found:
            return f"{what}: {found.group(0)}"
    return f"ended with {done.returncode}, unexplained:\n{output}"


def try_mutation(build: Build, mutation: str, suites: list[Suite]) -> Outcome:
    begin = time.monotonic()
    if not suites:
        return Outcome(mutation, False, "is in a source that no suite here compiles: add one to SUITES")
    for suite in suites:
        program, errors = build.compile(suite, mutation)
        if errors:
            return Outcome(mutation, False, f"does not compile in {suite.kernel}:\n{errors}")
        for i, order in enumerate(ORDERS):
            how = run(program, suite, order)
            if not how:
                continue
            program.unlink()
            known = any(how.startswith(what) for what, _ in REPORTS)
            text = f"{time.monotonic() - begin:5.1f} s  {suite.test}, {order}: {how}"
            return Outcome(mutation, known, text, ORDERS[: i + 1], suite)
        program.unlink()
    return Outcome(mutation, False, f"SURVIVES every order of {', '.join(s.test for s in suites)}")


def control(build: Build, suite: Suite, orders: set[str]) -> Outcome:
    program, errors = build.compile(suite, None)
    if errors:
        return Outcome(suite.test, False, f"does not compile:\n{errors}")
    for order in sorted(orders):
        how = run(program, suite, order)
        if how:
            return Outcome(suite.test, False, f"fails in {order} without a mutation: {how}")
    return Outcome(suite.test, True, f"passes without a mutation in {', '.join(sorted(orders))}")


def mutations() -> dict[str, set[Path]]:
    """The macros, and the files that have them."""
    found: dict[str, set[Path]] = {}
    for path in sorted((ROOT / "cuda").rglob("*.*")):
        if path.suffix not in (".cu", ".cuh", ".hpp", ".cpp"):
            continue
        for name in re.findall(r"^#\s*if.*?\b(PC_MUTATE_\w+)", path.read_text(), re.M):
            found.setdefault(name, set()).add(path.resolve())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("build", type=Path, help="a build directory with the emulated tests, such as build/release")
    parser.add_argument("names", nargs="*", help="only these mutations")
    parser.add_argument("--slice", type=int, default=0, help="only so many, drawn by --seed")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_intermixed_args()
    found = mutations()
    if len(found) < FEWEST:
        fail(f"{len(found)} mutations in cuda/, fewer than {FEWEST}: the search for PC_MUTATE_* is broken")
    unknown = set(arguments.names) - set(found)
    if unknown:
        fail(f"no such mutation in cuda/: {', '.join(sorted(unknown))}")
    chosen = {name: files for name, files in found.items() if not arguments.names or name in arguments.names}
    if 0 < arguments.slice < len(chosen):
        drawn = random.Random(arguments.seed).sample(sorted(chosen), arguments.slice)
        chosen = {name: chosen[name] for name in drawn}

    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        build = Build(arguments.build.resolve(), Path(scratch))
        build.build(sorted({suite.test for suite in SUITES}), arguments.jobs)
        build.load(SUITES)
        sources = {suite: build.sources(suite) for suite in SUITES}

        def one(name: str) -> Outcome:
            outcome = try_mutation(build, name, [s for s in SUITES if sources[s] & chosen[name]])
            print(f"{'detected' if outcome.ok else 'FAILED  '} {name:<32} {outcome.text}", flush=True)
            return outcome

        outcomes = list(pool.map(one, chosen))
        used = {s: {o for x in outcomes if x.suite == s for o in x.orders} for s in SUITES}
        controls = list(pool.map(lambda s: control(build, s, used[s]), [s for s in SUITES if used[s]]))
        for outcome in controls:
            print(f"{'control ' if outcome.ok else 'FAILED  '} {outcome.mutation:<32} {outcome.text}")
    bad = [x.mutation for x in outcomes + controls if not x.ok]
    print(f"{len(outcomes)} mutations, {time.monotonic() - begin:.0f} s; failed: {', '.join(bad) or 'none'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
