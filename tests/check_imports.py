"""Checks the import graph of python/pagedcore: python tests/check_imports.py (also a ctest, `imports`).

A part is a module or a package right below pagedcore. It may import parts of lower layers and of its own; no modules,
wherever they are, may import each other in a circle. All imports count alike: at the top of a module, inside functions
(they make a program start faster, and are no way around the order), and under TYPE_CHECKING (whoever reads or types one
module of a circle must read the others). A package counts as its __init__; that importing pagedcore.lab.run first runs
pagedcore/__init__.py and pagedcore/lab/__init__.py makes no edge, as those run whatever is imported.

Prints one line `file:line: why` for each import that breaks a rule and exits with 1 if there was one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# From the bottom up; python/README.md says what each layer is for.
LAYERS = (
    ("_core", "_options", "arguments", "errors", "starting"),
    ("checks", "config_files", "default_model", "memory", "names", "progress", "sandbox"),
    ("families",),
    (
        "beam_search_params",
        "chat",
        "content",
        "grammar",
        "history",
        "logprobs",
        "outputs",
        "prefixes",
        "sampling_params",
        "structured_outputs",
        "tokenizer",
        "detokenizer",
    ),
    ("loading",),
    ("engine_options",),
    (
        "async_stream",
        "dispatch",
        "embedding",
        "loop_queue",
        "prompts",
        "request",
        "reranking",
        "running",
        "scoring",
        "stream",
        "transfer",
    ),
    ("loaded_model",),
    ("async_llm", "llm"),
    ("pagedcore",),  # the package's own __init__: its public names
    ("client", "divergence", "routing"),
    ("lab", "lm_eval", "server"),
    ("ray",),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}


class Import(NamedTuple):
    target: str
    line: int


class Problem(NamedTuple):
    file: Path
    line: int
    why: str


def modules_of(package: Path) -> dict[str, Path]:
    """Files by dotted name."""
    found = {}
    for file in sorted(package.rglob("*.py*")):
        if file.suffix in {".py", ".pyi"}:
            parts = file.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(name: str, modules: dict[str, Path]) -> Iterator[Import]:
    """Modules of the package that `name` imports; of a name within a package, the package."""
    package = name.split(".") if modules[name].stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            targets = [within if (within := f"{base}.{a.name}") in modules else base for a in node.names]
        else:
            continue
        yield from (Import(target, node.lineno) for target in targets if target in modules)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def check_layers(graph: dict[str, list[Import]], modules: dict[str, Path]) -> Iterator[Problem]:
    for name, imports in graph.items():
        own = part_of(name)
        if own not in LAYER_OF:
            yield Problem(modules[name], 1, f"unknown part {own}: enter it in {Path(__file__).name}")
            continue
        for target, line in imports:
            other = part_of(target)
            if LAYER_OF.get(other, -1) > LAYER_OF[own]:
                yield Problem(modules[name], line, f"{own} may not import {other}, which lies above it")


def check_circles(graph: dict[str, list[Import]], modules: dict[str, Path]) -> Iterator[Problem]:
    """The shortest circle: longer ones often go with it."""
    circles = [
        ([name, *path], modules[name], line)
        for name, imports in graph.items()
        for target, line in imports
        if (path := shortest_path(graph, target, name))
    ]
    for circle, file, line in sorted(circles, key=lambda found: len(found[0]))[:1]:
        yield Problem(file, line, "a circle: " + " -> ".join(circle))


def shortest_path(graph: dict[str, list[Import]], start: str, end: str) -> list[str] | None:
    paths = {start: [start]}
    pending = [start]
    for at in pending:
        if at == end:
            return paths[at]
        for target, _ in graph.get(at, ()):
            if target not in paths:
                paths[target] = [*paths[at], target]
                pending.append(target)
    return None


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    modules = modules_of(root / "python" / "pagedcore")
    graph = {name: list(imports_of(name, modules)) for name in modules}
    problems = sorted({*check_layers(graph, modules), *check_circles(graph, modules)})
    for problem in problems:
        print(f"{problem.file.relative_to(root)}:{problem.line}: {problem.why}")
    print(f"{len(problems)} broken rules" if problems else f"{len(graph)} modules import each other as designed")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
