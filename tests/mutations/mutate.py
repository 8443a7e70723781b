"""Proves that the tests can fail.

    python tests/mutations/mutate.py build/release [--jobs 2] [--slice 10 --seed 1] [--room kv] [NAME ...]

A mutation takes one check, fence, bound or barrier out of a source: it names a file, lines of it and what stands there
instead. The patched source lies outside of the checkout; the objects that depend on it are compiled and linked with the
others of each test that the mutation names, and every one of these tests must fail. It is an error when the lines are
not found exactly once, when the patched source does not compile, and when a test passes; and when a test fails that is
made in the same way from an unchanged source.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from build import ROOT, Build, fail
from catalog import Mutation, Test, rooms

ORDERS = ("descending", "random:1", "ascending", "others-first", "random:2", "random:3")  # of emulated threads
# Of a processor's time, for one run of a test, which takes a few; a test that hangs has detected nothing.
SECONDS = 120

# What a detected mutation prints, the most telling first.
REPORTS = (
    ("a report of the emulator", re.compile(r"^cuda_emu: .*", re.M)),
    ("a report of a sanitizer", re.compile(r"(?:WARNING: ThreadSanitizer|ERROR: AddressSanitizer|runtime error): .*")),
    ("a failed check", re.compile(r"ERROR: .*", re.M)),
    ("a crash", re.compile(r"FATAL ERROR: .*|terminate called .*", re.M)),
)


@dataclass(frozen=True)
class Outcome:
    name: str
    ok: bool
    text: str


def run(program: Path, test: Test, order: str, cases: str | None) -> str:
    """Nothing where the test passes, else how it fails."""
    limited = ["sh", "-c", f'ulimit -t {SECONDS}; exec "$@"', "sh"]
    command = [*limited, str(program), "--abort-after=1", "--no-intro", f"--test-case={cases or test.cases}"]
    environment = os.environ | {"PAGEDCORE_CUDA_EMU": order}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"still ran after {SECONDS} s"
    if done.returncode == 0:
        return ""
    output = done.stdout + done.stderr
    for what, pattern in REPORTS:
        if found := pattern.search(output):
            where = re.search(r"^TEST CASE: +(.*)$", output, re.M)
            return f"{what}: {found.group(0)}" + (f" ({where.group(1)})" if where else "")
    return f"ended with {done.returncode}, unexplained:\n{output}"


class Trial:
    """One mutation after another, and what made them fail."""

    def __init__(self, build: Build, scratch: Path, cases: str | None) -> None:
        self.build, self.scratch, self.cases = build, scratch, cases
        self.used: dict[Test, set[str]] = {}  # the orders in which each test ran, for its control

    def _remake(self, test: Test, file: Path | None, objects: list[str], overlay: Path) -> tuple[Path, str]:
        flags = ("-w", "-O1") if test.emulated else ("-w",)  # unused things are no errors; kernels compile sooner
        return self.build.remake(test.program, objects, file, overlay, flags)

    def mutation(self, mutation: Mutation) -> Outcome:
        begin = time.monotonic()
        file = Path(mutation.file)
        lines = []
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            overlay = Path(name)
            (overlay / file).parent.mkdir(parents=True)
            (overlay / file).write_text(mutation.patched())
            for test in mutation.tests:
                objects = self.build.affected(test.program, ROOT / file, test.objects)
                if not objects:
                    return Outcome(mutation.name, False, f"{test.program} is not made from {file}")
                program, errors = self._remake(test, file, objects, overlay)
                if errors:
                    return Outcome(mutation.name, False, f"does not compile:\n{errors}")
                how = self._first_failure(program, test)
                if not how:
                    return Outcome(mutation.name, False, f"SURVIVES {test.program} {test.cases}")
                if not any(how.startswith(what) for what, _ in REPORTS):
                    return Outcome(mutation.name, False, f"{test.program}: {how}")
                lines.append(f"{test.program}: {how}")
        return Outcome(mutation.name, True, f"{time.monotonic() - begin:5.1f} s  " + "; ".join(lines))

    def _first_failure(self, program: Path, test: Test) -> str:
        for order in ORDERS if test.emulated else ("",):
            self.used.setdefault(test, set()).add(order)
            if how := run(program, test, order, self.cases):
                return how
        return ""

    def control(self, test: Test) -> Outcome:
        """The same test, unchanged."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            program = self.build.directory / self.build.path(test.program)
            if test.emulated:
                objects = self.build.affected(test.program, None, test.objects)
                program, errors = self._remake(test, None, objects, Path(name))
                if errors:
                    return Outcome(test.program, False, f"does not compile:\n{errors}")
            for order in sorted(self.used[test]):
                if how := run(program, test, order, self.cases):
                    return Outcome(test.program, False, f"fails without a mutation, {order}: {how}")
        orders = " ".join(sorted(self.used[test]))
        return Outcome(test.program, True, f"passes without a mutation: {test.cases} {orders}")


def chosen(arguments: argparse.Namespace) -> list[Mutation]:
    by_room = rooms()
    for mutation in (m for mutations in by_room.values() for m in mutations):
        mutation.patched()  # of all, also of those that are not tried: none vanishes unseen
    if unknown := set(arguments.room or ()) - set(by_room):
        fail(f"no such room: {', '.join(sorted(unknown))}; there are {', '.join(by_room)}")
    mutations = [m for room in arguments.room or by_room for m in by_room[room]]
    if unknown := set(arguments.names) - {m.name for m in mutations}:
        fail(f"no such mutation: {', '.join(sorted(unknown))}")
    return [m for m in mutations if not arguments.names or m.name in arguments.names]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("build", type=Path, help="a build directory with the tests, such as build/release")
    parser.add_argument("names", nargs="*", help="only these mutations")
    parser.add_argument("--room", action="append", help="only those of this room; may be given several times")
    parser.add_argument("--slice", type=int, default=0, help="only so many, drawn by --seed")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cases", help="this doctest filter instead of the mutations' own")
    arguments = parser.parse_intermixed_args()
    mutations = chosen(arguments)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        build = Build(arguments.build.resolve(), arguments.jobs)
        able = [m for m in mutations if all(build.has(test.program) for test in m.tests)]
        if len(able) < len(mutations):
            print(f"{len(mutations) - len(able)} mutations left out: {arguments.build} does not have their tests")
        if 0 < arguments.slice < len(able):
            able = random.Random(arguments.seed).sample(able, arguments.slice)
        if not able:
            fail("no mutation is left to try")
        build.make(sorted({test.program for m in able for test in m.tests}))
        trial = Trial(build, Path(scratch), arguments.cases)

        def each(of: Callable[[Mutation], Outcome]) -> Callable[[Mutation], Outcome]:
            def show(mutation: Mutation) -> Outcome:
                outcome = of(mutation)
                print(f"{'detected' if outcome.ok else 'FAILED  '} {outcome.name:<32} {outcome.text}", flush=True)
                return outcome

            return show

        outcomes = list(pool.map(each(trial.mutation), able))
        controls = list(pool.map(trial.control, trial.used))
        for outcome in controls:
            print(f"{'control ' if outcome.ok else 'FAILED  '} {outcome.name:<32} {outcome.text}")
    bad = [x.name for x in outcomes + controls if not x.ok]
    print(f"{len(outcomes)} mutations, {time.monotonic() - begin:.0f} s; failed: {', '.join(bad) or 'none'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
