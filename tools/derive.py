"""Writes the files that are derived from the lists of fields in include/pagedcore/*.hpp:

    python tools/derive.py            # rewrites them
    python tools/derive.py --check    # exits with 1 and names those that differ

It reads the lists from the native module that is importable (install the package, or put the build's python/ folder on
PYTHONPATH), and writes into this checkout:

- python/pagedcore/_core.pyi: the types of the native module,
- python/pagedcore/_options.py: what Python's own parameter classes and keywords hold,
- docs/options.md: every option of every struct, for people,
- docs/stats.md: every statistic of an engine,
- docs/models.md, its tables of families and of quantization: from pagedcore.families and pagedcore.loading.quantized.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanobind.stubgen import StubGen

from pagedcore import _core, families
from pagedcore.loading import quantized

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120
GENERATED = "Written by tools/derive.py from the lists of fields in include/pagedcore/*.hpp: change those."


# --------------------------------------------------------------------------------------------------------------------
# _core.pyi


class Stub(StubGen):
    """A record is a class of attributes and a constructor; what only Python itself calls is left out."""

    _HIDDEN = ("__repr__", "__eq__", "__hash__", "__copy__", "__deepcopy__", "__getstate__", "__setstate__")

    def put(self, value: object, name: str | None = None, parent: object | None = None) -> None:
        if name in self._HIDDEN and hasattr(parent, "from_dict"):
            return
        if name == "__slotnames__":  # pickle notes it on a class that it has looked at
            return
        super().put(value, name, parent)

    def put_property(self, prop: property, name: str | None) -> None:
        getter: Any = prop.fget
        if prop.fset is None or not hasattr(getter, "__nb_signature__"):
            super().put_property(prop, name)
            return
        signature, doc, _ = getter.__nb_signature__[0]
        self.write_ln(f"{name}: {self.simplify_types(signature.rpartition(' -> ')[2])}")
        if doc:
            self.put_docstr(doc)

    def format_docstr(self, docstr: str, depth: int) -> str:
        text = textwrap.dedent(docstr).strip().replace("\\", "\\\\")
        if text.endswith('"'):
            text = text[:-1] + '\\"'
        return textwrap.indent("\n".join(_docstring(text, 4 * depth)) + "\n", "    " * depth)

    def simplify_types(self, s: str) -> str:
        s = super().simplify_types(s)
        # An array argument is any buffer that can be read as one: mypy knows no type for that.
        s = re.sub(r"Annotated\[NDArray, dict\([^()]*\)\]", lambda _: self.bind("typing", "Any"), s)
        return re.sub(r"Annotated\[(NDArray\[[\w.]+\]), dict\((?:[^()]|\([^()]*\))*\)\]", r"\1", s)


def core_stub() -> str:
    stub = Stub(_core)
    stub.put(_core)
    stub.bindings.pop("Annotated", None)
    return f"# {GENERATED}\n{stub.get()}"


# --------------------------------------------------------------------------------------------------------------------
# _options.py


@dataclass(frozen=True)
class Wider:
    """What Python says besides: a wider type, another default, and what that means."""

    type: str
    default: str
    doc: str = ""


WIDER = {
    ("SamplingParams", "max_tokens"): Wider("int | None", "16", "None: as many as the context holds."),
    ("SamplingParams", "seed"): Wider(
        "int | None",
        "None",
        "None: derived from the LLM's seed and the number of the request, so that a program's runs are reproducible.",
    ),
    ("SamplingParams", "allowed_token_ids"): Wider("Sequence[int] | None", "None"),
    ("BeamSearchParams", "n"): Wider("int | None", "None", "None: ``beam_width``."),
    ("BeamSearchParams", "early_stopping"): Wider(
        'bool | Literal["heuristic", "immediate", "never"]', "False", "False: heuristic. True: immediate."
    ),
    ("EngineConfig", "dtype"): Wider(
        "",
        "",
        "auto: float32 for float32 checkpoints where the device has it, else bfloat16 or float16.",
    ),
}


def _default(option: _core.OptionInfo) -> str:
    """The default as a Python expression."""
    text = option.default_value
    if option.is_optional and text in ("", "0", "none"):
        return "None"
    if option.type == "bool":
        return "True" if text == "true" else "False"
    if option.type in ("tokens", "list"):
        return "()"
    if option.type == "biases":
        return "None"
    if option.type == "float":
        return repr(float(text))
    return text if option.type in ("int", "size") else f'"{text}"'


def _type(option: _core.OptionInfo) -> str:
    choices = ", ".join(f'"{choice}"' for choice in option.choices)
    types = {
        "bool": "bool",
        "int": "int",
        "float": "float",
        "string": "str",
        "path": "str | os.PathLike[str]",
        "size": "int | str",
        "choice": f"Literal[{choices}]",
        "tokens": "Sequence[int]",
        "list": "Sequence[int]",
        "biases": "Mapping[int, float] | None",
    }
    return types[option.type] + (" | None" if option.is_optional else "")


def _limits(option: _core.OptionInfo) -> str:
    """The limits, with large powers of two as such."""
    powers = {2**31 - 1: "2^31 - 1", 2**32 - 2: "2^32 - 2", 2**63 - 1: "2^63 - 1"}
    return re.sub(r"\d{8,}", lambda number: powers.get(int(number[0]), number[0]), option.limits)


def _doc(option: _core.OptionInfo, more: str = "") -> str:
    sentences = [option.doc]
    if option.zero:
        sentences.append(f"None: {option.zero}.")
    if option.hint:
        sentences.append(f"{option.hint}.")
    if limits := _limits(option):
        sentences.append(f"In {limits}." if limits[0] in "[(" else f"{limits[0].upper()}{limits[1:]}.")
    return " ".join(filter(None, [*sentences, more]))


def _members(record: str, *, defaults: bool) -> list[str]:
    """Each field of a record as a line of a class, with its docstring behind it."""
    lines = []
    for option in _core.options_of(record):
        wider = WIDER.get((record, option.name), Wider("", ""))
        annotation = wider.type or _type(option)
        if (record, option.name) == ("EngineConfig", "dtype"):
            annotation = annotation.replace("Literal[", 'Literal["auto", ')
        value = f" = {wider.default or _default(option)}" if defaults else ""
        lines += [f"{option.name}: {annotation}{value}", *_docstring(_doc(option, wider.doc))]
    return [f"    {line}" if line else "" for line in lines]


def options_module() -> str:
    def dataclass_of(name: str, record: str, doc: str) -> list[str]:
        members = _members(record, defaults=True)
        return ["@dataclass(frozen=True, kw_only=True)", f"class {name}:", f'    """{doc}"""', "", *members]

    def keywords_of(name: str, record: str, doc: str) -> list[str]:
        members = _members(record, defaults=False)
        return [f"class {name}(TypedDict, total=False):", f'    """{doc}"""', "", *members]

    lines = [
        f'"""The fields of parameters and the keywords of options, as Python has them.\n\n{GENERATED}\n"""',
        "",
        "from __future__ import annotations",
        "",
        "import os",
        "from collections.abc import Mapping, Sequence",
        "from dataclasses import dataclass",
        "from typing import Literal, TypedDict",
        "",
        '__all__ = ["BeamSearchFields", "EngineOptions", "RequestOptions", "SamplingFields"]',
        "",
        *dataclass_of("SamplingFields", "SamplingParams", "What the native library knows of SamplingParams."),
        "",
        *dataclass_of("BeamSearchFields", "BeamSearchParams", "What the native library knows of BeamSearchParams."),
        "",
        *keywords_of("EngineOptions", "EngineConfig", "The options of an engine."),
        "",
        *keywords_of("RequestOptions", "RequestOptions", "What every kind of request may say besides its prompt."),
    ]
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------------------------------------------
# docs/options.md

SECTIONS = (
    (
        "EngineConfig",
        "Options of an engine",
        "Keywords of `LLM()`, flags of the commands that load a model (`--block-size`), names for "
        "`pc_options_set()`, and fields of `EngineConfig` and its parts.",
    ),
    ("SamplingParams", "Sampling parameters", "Fields of `SamplingParams`."),
    ("BeamSearchParams", "Beam search parameters", "Fields of `BeamSearchParams`."),
    ("RequestOptions", "Options of a request", "What every kind of request may say besides its prompt."),
    ("SchedulerConfig", "A scheduler of its own", "Fields of `SchedulerConfig`, for a scheduler without an engine."),
    ("KvCacheConfig", "A KV cache of its own", "Fields of `KvCacheConfig`, likewise."),
)


def options_page() -> str:
    lines = [
        "# Options",
        "",
        f"<!-- {GENERATED} -->",
        "",
        "Names are the same in Python, in C and C++, and on the command line. A size is a number of bytes or a text",
        'such as "512MB" (10^6) or "1.5GiB" (2^30). Where the default is `none`, the last column says what that stands',
        "for: it is `None` in Python and the text `none` in C; on the command line the flag is left out. In Python and",
        "on the command line `dtype` may be `auto` too, which is the default there, and `SamplingParams` and",
        "`BeamSearchParams` have fields more that concern text (`help()` shows them): there `seed` and the `n` of a",
        "beam search may be `None`.",
    ]
    for record, title, about in SECTIONS:
        lines += ["", f"## {title}", about, "", "| Name | Type | Default | Limits | Meaning |", "|---|---|---|---|---|"]
        lines += [_row(option) for option in _core.options_of(record)]
    return "\n".join(lines) + "\n"


def _row(option: _core.OptionInfo) -> str:
    choices = ", ".join(f"`{choice}`" for choice in option.choices)
    default = "none" if _default(option) == "None" else option.default_value
    meaning = " ".join(
        filter(
            None,
            [
                option.doc,
                f"None: {option.zero}." if option.zero else "",
                f"{option.hint}." if option.hint else "",
                f"One of {choices}." if choices else "",
            ],
        )
    )
    cells = [f"`{option.name}`", option.type, f"`{default}`" if default else "", _limits(option), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


# Sections of docs/stats.md: title, what is said of all of them, and whose names belong there; the first that matches.
GROUPS = (
    ("Prefixes on disk", "What goes to `kv_store` and comes from there.", r"kv_store_.*"),
    ("Prefixes", "", r"(pinned|prefix).*|blocks_pinned"),
    (
        "Making room",
        "Preemption, and the swap space. Times are seconds.",
        r"preempt.*|.*swap.*|tokens_recomputed",
    ),
    ("Requests", "", r"requests_.*"),
    (
        "Blocks of the KV cache",
        "`blocks_total = blocks_free + blocks_cached + blocks_in_flight + blocks_used`, always.",
        r"blocks_.*|kv_.*",
    ),
    ("Work", "", r"steps|tokens_.*|forks|block_copies|draining|paused"),
    ("Time", "Seconds.", r".*_seconds.*"),
    ("Weights", "They do not change.", r".*weight_bytes|ranks|rank_weight_bytes_most"),
)
SHOWN = ("Requests", "Blocks of the KV cache", "Prefixes", "Prefixes on disk", "Making room", "Work", "Time", "Weights")


def _group_of(name: str) -> str:
    return next(title for title, _, pattern in GROUPS if re.fullmatch(pattern, name))


def stats_page() -> str:
    lines = [
        "# Statistics",
        "",
        f"<!-- {GENERATED} -->",
        "",
        "`Engine::stats()`, `engine.stats()` and `LLM.stats()` in Python and `pc_engine_stats()` in C give numbers by",
        "name. They describe the moment after the latest step. A gauge goes up and down; a counter never decreases",
        "while its engine lives. A request with several samples counts once, as its last sample ended.",
    ]
    about = {title: text for title, text, _ in GROUPS}
    for title in SHOWN:
        lines += ["", f"## {title}", *filter(None, [about[title]]), "", "| Name | Kind | Meaning |", "|---|---|---|"]
        lines += [
            f"| `{stat.name}` | {stat.type} | {stat.doc} |"
            for stat in _core.stats_of_engine()
            if _group_of(stat.name) == title
        ]
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------------------------------------------
# The tables of docs/models.md

FAMILIES = "<!-- Families: written by tools/derive.py from python/pagedcore/families -->"
METHODS = "<!-- Methods: written by tools/derive.py from python/pagedcore/loading/quantized.py -->"


def models_page() -> str:
    page = (ROOT / "docs/models.md").read_text()
    before, _, rest = page.partition(f"{FAMILIES}\n")
    _, _, after = rest.partition(f"\n{FAMILIES}")
    lines = ["| Family | `architectures` in config.json | `general.architecture` in GGUF |", "|---|---|---|"]
    for family in (*families.FAMILIES, *families.ENCODERS, *families.CROSS_ENCODERS):
        gguf = family.gguf.architectures if family.gguf is not None else ()
        cells = (", ".join(f"`{name}`" for name in names) for names in (family.huggingface.architectures, gguf))
        lines.append(f"| {family.name} | {' | '.join(cell or '-' for cell in cells)} |")
    page = "\n".join([f"{before}{FAMILIES}", *lines, f"{FAMILIES}{after}"])
    before, _, rest = page.partition(f"{METHODS}\n")
    _, _, after = rest.partition(METHODS)
    methods = [f"| {name} | {method.what} |" for name, method in quantized.METHODS.items()]
    return "\n".join(
        [f"{before}{METHODS}", "| `quant_method` | what is read |", "|---|---|", *methods, f"{METHODS}{after}"]
    )


# --------------------------------------------------------------------------------------------------------------------
# All of them


def _wrapped(text: str, margin: int) -> str:
    """Each paragraph in lines that leave `margin` columns."""
    return "\n".join(
        "\n".join(textwrap.wrap(line, WIDTH - margin, break_long_words=False, break_on_hyphens=False)) or ""
        for line in text.splitlines()
    )


def _docstring(text: str, indent: int = 4) -> list[str]:
    return f'"""{_wrapped(text, indent + 6)}"""'.splitlines()


def _formatted(text: str, name: str) -> str:
    """As ruff formats and sorts it, with this project's settings."""
    for command in (["check", "--fix", "--quiet", "--exit-zero", "--select", "I,UP"], ["format", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(ROOT / name), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


FILES: dict[str, Callable[[], str]] = {
    "python/pagedcore/_core.pyi": lambda: _formatted(core_stub(), "python/pagedcore/_core.pyi"),
    "python/pagedcore/_options.py": lambda: _formatted(options_module(), "python/pagedcore/_options.py"),
    "docs/options.md": options_page,
    "docs/stats.md": stats_page,
    "docs/models.md": models_page,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    differing = []
    for name, text in FILES.items():
        path, wanted = ROOT / name, text()
        if not path.exists() or path.read_text() != wanted:
            differing.append(name)
            if not check:
                path.write_text(wanted)
    for name in differing:
        print(f"{name} differs: run python tools/derive.py" if check else f"wrote {name}")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
