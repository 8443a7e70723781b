"""Checks the sizes of the product's parts: python tests/check_sizes.py [--list].

 - A file has 400 lines at most, and half of all files 90 or fewer.
 - A function has 8 parameters at most (self and cls not counted).
 - A struct has 20 fields at most: what has more is made of parts.

Whoever needs more has a thing of two concepts in hand. Exempt are SamplingParams, as the field knows it; counters;
kernels, what they take, and what launches them; and what is generated. C++ is scanned, not parsed: a declaration that
the scan misses is no failure of this check.

Prints one line `file:line: why` for each part that is too large and exits with 1 if there was one. --list prints the
largest of each kind instead.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST_LINES, MEDIAN_LINES, MOST_PARAMETERS, MOST_FIELDS = 400, 90, 8, 20
PRODUCT = ("cpp", "cuda", "python/pagedcore")
CPP_SUFFIXES = {".c", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".in", ".inl"}
GENERATED = {"python/pagedcore/_core.pyi", "python/pagedcore/_options.py"}
EXEMPT = {
    "SamplingParams": "one parameter each, as the field knows them",
    "SchedulerStats": "counters",
    "SwapCounters": "counters",
    "EngineStats": "counters",
    "SimulationReport": "counters",
}
KERNELS = "cuda/kernels"  # and what launches them


class Part(NamedTuple):
    file: str
    line: int
    name: str
    size: int


def files_of(root: Path) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *PRODUCT], cwd=root, capture_output=True, text=True, check=True).stdout
    return [f for f in listed.split() if Path(f).suffix in CPP_SUFFIXES | {".py"} and f not in GENERATED]


def python_functions(file: str, text: str) -> Iterator[Part]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))]
            yield Part(file, node.lineno, node.name, len(names) - (names[:1] in (["self"], ["cls"])))


def python_fields(file: str, text: str) -> Iterator[Part]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.dump(n.annotation)]
            yield Part(file, node.lineno, node.name, len(fields))


_NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:\\\n|[^\n])*',
    re.S | re.M,
)


def plain(text: str) -> str:
    """Without comments, literals and preprocessor lines, which become blanks of as many lines."""
    return _NOISE.sub(lambda m: "\n" * m[0].count("\n") or " ", text)


def closing(text: str, at: int) -> int:
    """Of the bracket at `at`: where its partner is, or the end."""
    depth = 0
    for match in re.compile(r"[(){}\[\]]").finditer(text, at):
        depth += 1 if match[0] in "({[" else -1
        if depth == 0:
            return match.start()
    return len(text)


def split(text: str) -> list[str]:
    """At commas outside of brackets; <> count as brackets."""
    parts, depth, start = [], 0, 0
    for at, c in enumerate(text):
        depth += (c in "({[<") - (c in ")}]>" and text[at - 1 : at] != "-")
        if c == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [part for part in [*parts, text[start:]] if part.strip()]


_PARAMETER = re.compile(
    r"\s*(?:const\s+)?[A-Za-z_][\w:]*(?:\s*<.*>)?(?:\s+const)?(?:\s*[*&]+\s*|\s+)(?:\(?[*&]?\w+.*)?", re.S
)


_TYPE = re.compile(r"\s*[A-Za-z_][\w:]*(?:\s*<.*>)?\s*", re.S)  # of a parameter without a name


def cpp_functions(file: str, text: str) -> Iterator[Part]:
    for match in re.finditer(r"([A-Za-z_]\w*)\s*\(", text):
        parameters = split(text[match.end() : closing(text, match.end() - 1)])
        named = [_PARAMETER.fullmatch(p) is not None for p in parameters]
        if any(named) and all(n or _TYPE.fullmatch(p) for n, p in zip(named, parameters, strict=True)):
            yield Part(file, text.count("\n", 0, match.start()) + 1, match[1], len(parameters))


_NO_FIELD = re.compile(
    r"\s*(?:using|static|friend|template|typedef|enum|struct|class|union|public|private|protected|constexpr)\b"
)


def cpp_fields(file: str, text: str) -> Iterator[Part]:
    for match in re.finditer(r"\b(?:struct|class)\s+(?:PAGEDCORE_API\s+)?([A-Za-z_]\w*)[^;{}()=]*\{", text):
        body = text[match.end() : closing(text, match.end() - 1)]
        fields, at, statement = 0, 0, ""
        while at < len(body):
            c = body[at]
            if c in "({[":
                end = closing(body, at)
                # A block ends a function or a nested type; the braces of an initialiser are followed by more.
                if c == "{" and not re.match(r"\s*[;,]", body[end + 1 :]):
                    statement = ""
                else:
                    statement += "()" if c == "(" else ""
                at = end
            elif c == ";":
                declares = statement.split("=")[0]
                if declares.strip() and not re.search(r"\(\)|\boperator\b", declares) and not _NO_FIELD.match(declares):
                    fields += len(split(statement))
                statement = ""
            elif c == ":" and re.fullmatch(r"\s*(?:public|private|protected)", statement):
                statement = ""
            else:
                statement += c
            at += 1
        yield Part(file, text.count("\n", 0, match.start()) + 1, match[1], fields)


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    lengths, functions, structs = [], [], []
    for file in files_of(root):
        text = (root / file).read_text(encoding="utf-8")
        lengths.append(Part(file, 1, file, text.count("\n")))
        if file.endswith(".py"):
            functions += python_functions(file, text)
            structs += python_fields(file, text)
        else:
            functions += cpp_functions(file, plain(text))
            structs += cpp_fields(file, plain(text))
    median = int(statistics.median(part.size for part in lengths))
    exempt = [p for p in functions + structs if p.name in EXEMPT or p.file.startswith(KERNELS)]
    kinds = (
        (lengths, MOST_LINES, "lines"),
        (functions, MOST_PARAMETERS, "parameters"),
        (structs, MOST_FIELDS, "fields"),
    )
    if "--list" in sys.argv:
        for parts, _, what in kinds:
            for part in sorted(set(parts) - set(exempt), key=lambda p: -p.size)[:20]:
                print(f"{part.size:4} {what:<10} {part.file}:{part.line} {part.name}")
    problems = [
        f"{part.file}:{part.line}: {part.name} has {part.size} {what}; at most {most}"
        for parts, most, what in kinds
        for part in sorted(set(parts) - set(exempt))
        if part.size > most
    ]
    if median > MEDIAN_LINES:
        problems.append(f"the median file has {median} lines; at most {MEDIAN_LINES}")
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{len(lengths)} files, {median} lines in the median; {len(problems) or 'none'} too large")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
