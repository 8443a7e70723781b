"""Checks what the documents say against the tree: python tests/check_docs.py (also a ctest, `docs`). Reads files only.

Links    every relative link of a Markdown file leads to a file, and its anchor to a heading.
Names    every path and every name of code that a README or docs/tour.md has in `code` exists. In a line of the tour
         that names files, every other `code` is in one of these files.
Messages every heading of docs/troubleshooting.md in `code` is part of a message in the sources.
Rules    a rule is a list entry of a room's README that begins with its address, `kv.waste-under-one-block`. An address
         is defined once, and at least one test cites it in a comment: `rule: kv.waste-under-one-block`.

Prints one line `file:line: why` for each fault and exits with 1 if there was one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOUR = "docs/tour.md"
MESSAGES = "docs/troubleshooting.md"

LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^\s*```")
HEADING = re.compile(r"^#+\s+(.*?)\s*#*$")
PATH = re.compile(
    r"(?<![\w/.<>*-])[\w.<>*-]+(?:/[\w.<>*-]+)*\.(?:cpp|hpp|h|c|py|pyi|cu|cuh|inl|md|toml|svg|sh|yml)(?![\w(/])"
)
FOLDER = re.compile(r"[\w.-]+(?:/[\w.-]+)*/")
# What is written like code: an underscore or a capital inside, or a call.
NAME = re.compile(r"(?<![\w.-])(?:[A-Za-z]\w*_\w+|[A-Za-z]\w*[a-z][A-Z]\w*|[A-Za-z]\w+(?=\(\)))")
ADDRESS = r"[a-z_]+\.[a-z0-9]+(?:-[a-z0-9]+)*"
RULE = re.compile(rf"^\s*(?:[-*]|\d+\.)\s+`({ADDRESS})`")
CITED = re.compile(rf"\brule: ({ADDRESS}(?:, {ADDRESS})*)")
OUTSIDE = re.compile(r"^(?:[a-z]+:|//)")
BUILT = ("build/", ".venv/", "site/")  # not in the tree before something is built


def files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    paths = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
    return [path for path in paths if not path.startswith(BUILT)]


def lines_outside_fences(text: str) -> Iterator[tuple[int, str]]:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def anchors(text: str) -> set[str]:
    found = set()
    for _, line in lines_outside_fences(text):
        heading = HEADING.match(line)
        if heading:
            words = re.sub(r"[^\w\s-]", "", heading[1].lower())
            found.add(re.sub(r"\s+", "-", words.strip()))
    return found


class Tree:
    def __init__(self) -> None:
        self.files = files()
        self._texts: dict[str, str] = {}
        self.documents = [name for name in self.files if name.endswith(".md")]
        self.tests = [name for name in self.files if name.startswith("tests/") and not name.endswith(".md")]
        # Rooms by the name with which the addresses of their rules begin: cpp/cpu/kv has the rules cpu_kv.*
        rooms = (name for name in self.documents if re.fullmatch(r"(?:cpp|cuda|python)/(?:\w+/)*README\.md", name))
        self.rooms = {name.removeprefix("cpp/").removesuffix("/README.md").replace("/", "_"): name for name in rooms}
        self._words: set[str] = set()

    def text(self, name: str) -> str:
        if name not in self._texts:
            self._texts[name] = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        return self._texts[name]

    def words(self) -> set[str]:
        """Of everything that is not prose, so that no document vouches for itself."""
        if not self._words:
            for name in self.files:
                self._words.add(Path(name).name.split(".")[0])
                self._words.add(f"test_{Path(name).parent.name}")  # what CMake makes of a folder of tests
                if not name.endswith((".md", ".svg", ".csv", "check_docs.py")):
                    self._words.update(re.findall(r"[A-Za-z_]\w*", self.text(name)))
        return self._words

    def included(self) -> set[str]:
        sources = (name for name in self.files if name.endswith((".cpp", ".hpp", ".h", ".c", ".cu", ".cuh")))
        return {header for name in sources for header in re.findall(r"#\s*include <([^>]+)>", self.text(name))}

    def has(self, path: str, document: str) -> bool:
        """A path as documents write it: from the root, from the document, or its end; <isa> and * stand for anything.
        Or a header of others that some source includes."""
        pattern = re.sub(r"<\w+>", "*", path)
        beside = (Path(document).parent / pattern).as_posix()
        found = (
            fnmatch(name, pattern) or fnmatch(name, beside) or fnmatch(name, "*/" + pattern) for name in self.files
        )
        return any(found) or path in self.included()


def check_links(tree: Tree) -> Iterator[str]:
    for document in tree.documents:
        for number, line in lines_outside_fences(tree.text(document)):
            for target in LINK.findall(CODE.sub("", line)):
                path, _, anchor = target.partition("#")
                if OUTSIDE.match(target):
                    continue
                full = (ROOT / document).parent / path if path else ROOT / document
                if not full.exists():
                    yield f"{document}:{number}: the link to {target} leads nowhere"
                elif anchor and full.suffix == ".md" and anchor not in anchors(full.read_text(encoding="utf-8")):
                    yield f"{document}:{number}: {path or document} has no heading #{anchor}"


def check_names(tree: Tree) -> Iterator[str]:
    for document in tree.documents:
        if document != TOUR and not document.endswith("README.md"):
            continue
        for number, line in lines_outside_fences(tree.text(document)):
            for code in CODE.findall(line):
                paths = PATH.findall(code) + (FOLDER.findall(code) if FOLDER.fullmatch(code) else [])
                for path in paths:
                    known = path.startswith(BUILT) or tree.has(path + "*" if path.endswith("/") else path, document)
                    if not known:
                        yield f"{document}:{number}: there is no {path}"
                for name in NAME.findall(PATH.sub(" ", code)):
                    if name not in tree.words():
                        yield f"{document}:{number}: nothing is called {name}"


def check_tour(tree: Tree) -> Iterator[str]:
    for number, line in lines_outside_fences(tree.text(TOUR)):
        codes = CODE.findall(line)
        named = [code for code in codes if code in tree.files]
        for code in codes:
            if not named or code in named or FOLDER.fullmatch(code) or re.fullmatch(ADDRESS, code):
                continue
            wanted = code.removesuffix("()").split("::")[-1]
            if not any(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", tree.text(name)) for name in named):
                yield f"{TOUR}:{number}: `{code}` is not in {' or '.join(named)}"


def check_messages(tree: Tree) -> Iterator[str]:
    if MESSAGES not in tree.files:
        return
    sources = [name for name in tree.files if re.match(r"(?:cpp|cuda|python)/.*\.(?:cpp|hpp|py)$", name)]
    # Literals that continue on the next line are one message.
    text = "\n".join(re.sub(r'"\s*\n\s*f?"', "", tree.text(name)) for name in sources)
    for number, line in lines_outside_fences(tree.text(MESSAGES)):
        heading = HEADING.match(line)
        for code in CODE.findall(heading[1]) if heading else ():
            if code not in text:
                yield f"{MESSAGES}:{number}: no source has the message `{code}`"


def check_rules(tree: Tree) -> Iterator[str]:
    defined: dict[str, str] = {}
    for room, document in tree.rooms.items():
        for number, line in lines_outside_fences(tree.text(document)):
            rule = RULE.match(line)
            if not rule or rule[1].split(".")[0] != room:
                continue
            here = f"{document}:{number}"
            if rule[1] in defined:
                yield f"{here}: the rule {rule[1]} is defined in {defined[rule[1]]} too"
            defined.setdefault(rule[1], here)
    cited = set()
    for test in tree.tests:
        if test.endswith("check_docs.py"):  # this file, and its test
            continue
        for number, line in enumerate(tree.text(test).splitlines(), 1):
            for addresses in CITED.findall(line):
                for address in addresses.split(", "):
                    cited.add(address)
                    if address not in defined:
                        yield f"{test}:{number}: no README has a rule {address}"
    for address, where in defined.items():
        if address not in cited:
            yield f"{where}: no test cites the rule {address}"


CHECKS = (check_links, check_names, check_tour, check_messages, check_rules)


def main() -> int:
    tree = Tree()
    faults = [fault for check in CHECKS for fault in check(tree)]
    print("\n".join(faults) or "the documents agree with the tree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
