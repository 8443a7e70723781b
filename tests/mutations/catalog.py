"""What the mutations are: read from *.txt beside this file, one for each room. README.md says how they are written."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from build import ROOT, fail

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Test:
    program: str  # the target of the build that it is
    cases: str = "*"  # doctest's filter
    objects: tuple[str, ...] = ()  # the sources that are compiled anew, where not all that depend on the file need be
    emulated: bool = False  # its threads run in several orders, until one makes it fail


@dataclass(frozen=True)
class Edit:
    old: str  # whole lines, which the file has exactly once
    new: str


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str  # relative to the checkout
    edits: tuple[Edit, ...]
    tests: tuple[Test, ...]  # each of which must fail

    def patched(self) -> str:
        """The source with the mutation in it."""
        text = (ROOT / self.file).read_text()
        for edit in self.edits:
            if (count := ("\n" + text).count("\n" + edit.old)) != 1:
                fail(f"{self.name}: {self.file} has {count} places, not one, that read:\n{edit.old}")
            text = ("\n" + text).replace("\n" + edit.old, "\n" + edit.new, 1)[1:]
        return text


class Room:
    """The mutations of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = ""
        self._tests: dict[str, Test] = {}
        self.mutations: list[Mutation] = []
        self._line = 0
        head: list[str] = []
        lines: list[str] = []
        for self._line, line in enumerate([*path.read_text().splitlines(), "@"], 1):
            if line.startswith("@"):
                if head:
                    self._add(head, lines)
                head, lines = line[1:].split(), []
            elif not line or line.startswith("#"):
                continue
            elif head:
                lines.append(line)
            else:
                self._set(shlex.split(line))

    def _bad(self, why: str) -> None:
        fail(f"{self._path.name}:{self._line}: {why}")

    def _set(self, words: list[str]) -> None:
        """`directory D`, or `test NAME PROGRAM [cases=C] [objects=A,B] [emulated]`."""
        if words[0] == "directory" and len(words) == 2:
            self._directory = words[1]
            return
        if words[0] != "test" or len(words) < 3:
            self._bad("neither 'directory PATH' nor 'test NAME PROGRAM ...'")
        options = dict(word.split("=", 1) if "=" in word else (word, "") for word in words[3:])
        if unknown := set(options) - {"cases", "objects", "emulated"}:
            self._bad(f"a test has no option {', '.join(sorted(unknown))}")
        objects = tuple(options["objects"].split(",")) if "objects" in options else ()
        self._tests[words[1]] = Test(words[2], options.get("cases", "*"), objects, "emulated" in options)

    def _add(self, head: list[str], lines: list[str]) -> None:
        """`@ NAME FILE [TEST ...]`, and its edits, '...' between two."""
        if len(head) < 2:
            self._bad("a mutation begins with '@ NAME FILE [TEST ...]'")
        name = f"{self._path.stem}.{head[0]}"
        tests = head[2:] or list(self._tests)[:1]
        if unknown := set(tests) - set(self._tests):
            self._bad(f"{name}: no test {', '.join(sorted(unknown))} is defined above")
        hunks: list[list[str]] = [[]]
        for line in lines:
            if line == "...":
                hunks.append([])
            elif line[0] in " +-":
                hunks[-1].append(line)
            else:
                self._bad(f"{name}: a line begins with ' ', '-' or '+': {line}")

        def side(hunk: list[str], kinds: str) -> str:
            return "".join(f"{line[1:]}\n" for line in hunk if line[0] in kinds)

        edits = tuple(Edit(side(hunk, " -"), side(hunk, " +")) for hunk in hunks)
        for edit in edits:
            if not edit.old or edit.old == edit.new:
                self._bad(f"{name}: an edit has lines to be found, and changes them")
        file = f"{self._directory}/{head[1]}"
        self.mutations.append(Mutation(name, file, edits, tuple(self._tests[test] for test in tests)))


def rooms() -> dict[str, list[Mutation]]:
    found = {path.stem: Room(path).mutations for path in sorted(HERE.glob("*.txt"))}
    names = [mutation.name for mutations in found.values() for mutation in mutations]
    if len(set(names)) < len(names):
        fail(f"two mutations have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    return found
