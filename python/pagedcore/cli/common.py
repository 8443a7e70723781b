"""Flags that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .. import _core
from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..llm import LLM
    from ..sampling_params import SamplingParams

__all__ = [
    "Command",
    "Formatter",
    "UsageError",
    "add_model_flags",
    "add_option_flags",
    "add_sampling_flags",
    "engine_options",
    "given",
    "open_llm",
    "print_json",
    "sampling_params",
]


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Command(argparse.ArgumentParser):
    """Takes flags by their whole names only: an abbreviation would mean another flag, or none, once more are there."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """One line: the usage of a command fills a screen."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists the flags)\n")


class UsageError(InvalidArgument):
    """A flag's value is out of range: exit status 2, like other wrong usage."""


def add_model_flags(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """`device`: whether --device says what computes; else it is the caller's."""
    group = parser.add_argument_group("model, memory and scheduling")
    group.add_argument("-m", "--model", metavar="PATH", help="GGUF file, Hugging Face directory or model container")
    add_option_flags(group, "EngineConfig", () if device else ("device",))
    group.add_argument(
        "--no-prefix-caching", dest="enable_prefix_caching", action="store_false", default=None, help=argparse.SUPPRESS
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_sampling_flags(parser: argparse.ArgumentParser, *, max_tokens: str, without: Sequence[str] = ()) -> None:
    """`max_tokens`: what the command generates unless told otherwise, for its help."""
    group = parser.add_argument_group("sampling")
    defaults = {name: "the model's" for name in ("top_k", "top_p", "min_p", "repetition_penalty")}
    defaults |= {"max_tokens": max_tokens, "temperature": "the model's, or 0"}
    add_option_flags(group, "SamplingParams", ("n", *without), defaults=defaults)
    group.add_argument("--stop", action="append", metavar="TEXT", help="end at this text (may be repeated)")
    group.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")


def add_option_flags(
    group: argparse._ArgumentGroup,
    record: str,
    without: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> None:
    """A flag for each field of a native record, as its list says. One that is not given is None. ``defaults``: what
    the command's help says of those that it treats in its own way."""
    for info in _core.options_of(record):
        if info.name in without or (only and info.name not in only):
            continue
        flag = "--" + info.name.replace("_", "-")
        text = _help(info, (defaults or {}).get(info.name))
        if info.type == "bool":
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif info.type == "choice":
            choices = ["auto", *info.choices] if info.name == "dtype" else info.choices
            group.add_argument(flag, choices=choices, metavar="WORD", help=text)
        else:
            kind, metavar = _KINDS.get(info.type, (str, "TEXT"))
            group.add_argument(flag, type=kind, metavar=metavar, help=text)


def _help(info: _core.OptionInfo, default: str | None) -> str:
    text = info.doc.rstrip(".")
    if info.type == "choice":
        text += ": " + ", ".join(["auto", *info.choices] if info.name == "dtype" else info.choices)
    for more in (info.limits, info.hint):
        if more:
            text += f"; {more}"
    default = default or info.zero or ("auto" if info.name == "dtype" else info.default_value)
    return (f"{text} (default: {default})" if default else text).replace("%", "%%")


def _tokens(text: str) -> list[int]:
    return [int(token) for token in text.split(",")]


def _biases(text: str) -> dict[int, float]:
    return {int(token): float(bias) for token, bias in (pair.split(":") for pair in text.split(","))}


_tokens.__name__, _biases.__name__ = "list of token ids", "list of biases"  # as argparse names them
_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (int, "N"),
    "float": (float, "X"),
    "size": (str, "SIZE"),
    "path": (str, "PATH"),
    "tokens": (_tokens, "ID,..."),
    "biases": (_biases, "ID:X,..."),
}


def given(arguments: argparse.Namespace, record: str) -> dict[str, Any]:
    """The values of the flags that were given."""
    names = [info.name for info in _core.options_of(record)]
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


def sampling_params(arguments: argparse.Namespace, llm: LLM | None = None, **ours: Any) -> SamplingParams:
    """What the flags say, then what the model's publishers recommend, then ``ours``, greedily. Without ``llm``: to
    check the flags before it is loaded."""
    from ..sampling_params import SamplingParams

    values = {"temperature": 0.0, "max_tokens": None} | ours | (llm.sampling_defaults if llm is not None else {})
    values |= {"ignore_eos": arguments.ignore_eos, "stop": arguments.stop or ()} | given(arguments, "SamplingParams")
    try:
        return SamplingParams(**values)
    except InvalidArgument as error:
        raise UsageError(str(error)) from None


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keywords for LLM and LLM.plan, checked as far as they can be without the model."""
    from ..engine_options import engine_config

    options = given(arguments, "EngineConfig")
    try:
        engine_config(options)
    except InvalidArgument as error:
        raise UsageError(str(error)) from None
    return options


def open_llm(arguments: argparse.Namespace) -> LLM:
    from ..llm import LLM

    return LLM(arguments.model, **engine_options(arguments))


def print_json(values: Mapping[str, Any]) -> None:
    json.dump(values, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
