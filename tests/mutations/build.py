"""A build directory of Ninja: what a test program is compiled and linked from, and how to make it from other sources.

Nothing is written into the checkout: a patched source lies in a directory of its own, which the compiler is told to
look into first, and the objects that depend on it are compiled and linked beside it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]


def fail(text: str) -> NoReturn:
    sys.exit(f"mutate.py: {text}")


class Build:
    def __init__(self, directory: Path, jobs: int) -> None:
        self.directory, self.jobs = directory, jobs
        cache = directory / "CMakeCache.txt"
        text = cache.read_text() if cache.exists() else ""
        found = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.*ninja.*)$", text, re.M)
        if found is None:
            fail(f"{directory} is no build directory of Ninja: configure one with cmake --preset release")
        self._program = found.group(1)
        self._commands: dict[str, list[str]] = {}  # by test: all that make it, the last one links
        self._sources: dict[str, set[Path]] = {}  # by object: what it is compiled from
        self._listed: set[str] | None = None

    def _ninja(self, *arguments: str) -> list[str]:
        command = [self._program, "-C", str(self.directory), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fail(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
        return [line for line in done.stdout.splitlines() if not line.startswith("ninja: Entering")]

    def has(self, test: str) -> bool:
        if self._listed is None:
            self._listed = {line.split(":")[0] for line in self._ninja("-t", "targets", "all")}
        return test in self._listed

    def make(self, tests: list[str]) -> None:
        """Brings the tests up to date, and learns how that is done."""
        self._ninja("-j", str(self.jobs), *tests)
        for test in tests:
            self._commands[test] = self._ninja("-t", "commands", test)
        objects = {name for test in tests for name in self._objects(test)}
        for name in sorted(objects):
            lines = self._ninja("-t", "deps", name)
            self._sources[name] = {(self.directory / line.strip()).resolve() for line in lines if line.startswith("  ")}

    def _link(self, test: str) -> list[str]:
        words = shlex.split(self._commands[test][-1])
        return words[words.index("&&") + 1 : len(words) - words[::-1].index("&&") - 1]

    def _objects(self, test: str) -> list[str]:
        return [word for word in self._link(test) if word.endswith(".o")]

    def path(self, test: str) -> Path:
        """Of the program, in the build directory."""
        link = self._link(test)
        return Path(link[link.index("-o") + 1])

    def affected(self, test: str, source: Path | None, only: tuple[str, ...]) -> list[str]:
        """Objects of the test that are compiled from the source; `only`: of these of them."""
        found = [name for name in self._objects(test) if source is None or source in self._sources[name]]
        return [name for name in found if not only or name.rsplit("/", 1)[-1].removesuffix(".o") in only]

    def remake(
        self, test: str, objects: list[str], file: Path | None, overlay: Path, flags: tuple[str, ...]
    ) -> tuple[Path, str]:
        """The test with these objects made anew, and what the compiler said if that failed. `file` (relative) is taken
        from the overlay, a directory laid out as the checkout is."""
        link = self._link(test)
        program = overlay / test
        link[link.index("-o") + 1] = str(program)
        for name in objects:
            made = overlay / name.replace("/", "+")  # two files of one program may have the same name
            link[link.index(name)] = str(made)
            [command] = [c for c in self._commands[test] if f" -o {name} " in c]
            words = self._patched(shlex.split(command), name, made, file, overlay)
            done = subprocess.run([*words, *flags], cwd=self.directory, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return program, done.stdout + done.stderr
        done = subprocess.run(link, cwd=self.directory, capture_output=True, text=True, check=False)
        return program, done.stdout + done.stderr if done.returncode != 0 else ""

    @staticmethod
    def _patched(words: list[str], name: str, made: Path, file: Path | None, overlay: Path) -> list[str]:
        """A compiler's command with another output, and the overlay before every directory that it shadows."""
        patched: list[str] = []
        for word in words:
            if word == name or word == f"{name}.d":
                word = str(made) if word == name else f"{made}.d"
            elif file is not None and word == str(ROOT / file):
                word = str(overlay / file)
                patched += ["-iquote", str((ROOT / file).parent)]
            elif file is not None and word.startswith("-I") and Path(word[2:]).is_relative_to(ROOT):
                patched.append(f"-I{overlay / Path(word[2:]).relative_to(ROOT)}")
            patched.append(word)
        return patched
