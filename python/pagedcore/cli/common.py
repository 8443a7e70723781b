"""Flags that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from .. import _core
from ..errors import InvalidArgument, Io, Unsupported
from ..names import RENAMED, nearest_name, our_word
from .streams import complain
from .structured import add_structured_flags, structured_outputs

if TYPE_CHECKING:
    from ..llm import LLM
    from ..sampling_params import SamplingParams

__all__ = [
    "Command",
    "Formatter",
    "add_checkpoint_flags",
    "add_model_flags",
    "add_option_flags",
    "add_report_flags",
    "add_sampling_flags",
    "check_options",
    "check_output",
    "engine_options",
    "given",
    "open_llm",
    "print_json",
    "read_texts",
    "refuse_unused",
    "request_options",
    "sampling_params",
    "write_json",
]


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Command(argparse.ArgumentParser):
    """Takes flags by their whole names only: an abbreviation would mean another flag, or none, once more are there. One
    that there is not is answered with our word for it, or the nearest."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def format_help(self) -> str:
        """With a usage of one line: with all flags it fills a screen."""
        if self.usage is None:
            required = [
                f" {action.option_strings[0]} {action.metavar}"
                for action in self._get_optional_actions()
                if action.required
            ]
            self.usage = "".join([self.prog, *required, " [flags]", *map(_place, self._get_positional_actions())])
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """argparse swallows what goes wrong with stdout."""
        (file or sys.stdout).write(self.format_help())

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Knows all of them, since a command's own parser can say more of the others than the one above it."""
        found, others = super().parse_known_args(args, namespace)
        unknown = next((text.partition("=")[0] for text in others if text.startswith("-")), None)
        if unknown is not None:
            self.error(f"there is no flag {unknown}{self._instead(unknown)}")
        if others:
            self.error(f"{others[0]!r} is more than it takes")
        return found, others

    def _instead(self, flag: str) -> str:
        flags = [text for text in self._option_string_actions if text.startswith("--")]
        ours = "--" + our_word(flag.strip("-").replace("-", "_")).replace("_", "-")
        if ours in flags:
            return f"; use {ours}"
        nearest = nearest_name(flag, flags)
        return f"; did you mean {nearest}?" if nearest else ""

    def error(self, message: str) -> NoReturn:
        """One line: the usage of a command fills a screen."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists the flags)\n")


def _place(positional: argparse.Action) -> str:
    name = positional.metavar or ("{" + ",".join(positional.choices) + "}" if positional.choices else positional.dest)
    return f" {name}" if positional.nargs is None else f" [{name} ...]" if positional.nargs == "*" else f" [{name}]"


def add_model_flags(
    parser: argparse.ArgumentParser, *, tokenizer: bool = True, loads: bool = True, without: Sequence[str] = ()
) -> None:
    """`tokenizer`: whether the command needs one. `loads`: whether it reads weights. `without`: options that are no use
    to it."""
    group = parser.add_argument_group("model, memory and scheduling")
    _add_checkpoint(group, tokenizer)
    add_option_flags(group, "EngineConfig", ("cache_events", *without))  # no command reads events
    if loads:
        group.add_argument(
            "--mmap", action="store_true", help="map the model's files; one that is shortened then ends the process"
        )
    group.add_argument(
        "--no-prefix-caching", dest="enable_prefix_caching", action="store_false", default=None, help=argparse.SUPPRESS
    )
    add_report_flags(parser)


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """For commands that read a model's files and make no engine."""
    _add_checkpoint(parser, True)
    add_report_flags(parser)


def _add_checkpoint(group: argparse._ActionsContainer, tokenizer: bool) -> None:
    group.add_argument(
        "-m", "--model", metavar="PATH", help="GGUF file, Hugging Face directory, hub id or model container"
    )
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a model on the hub")
    group.add_argument(
        "--token", metavar="TEXT", help="for models that are not public; other users see it: better in HF_TOKEN"
    )
    if tokenizer:
        group.add_argument("--tokenizer", metavar="PATH", help="tokenizer.json or its directory (default: the model's)")


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    """What every command has."""
    parser.add_argument("--verbose", action="store_true", help="say on stderr what is done and why")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_sampling_flags(parser: argparse.ArgumentParser, *, max_tokens: str, without: Sequence[str] = ()) -> None:
    """`max_tokens`: what the command generates unless told otherwise, for its help."""
    group = parser.add_argument_group("sampling")
    defaults = {name: "the model's" for name in ("top_k", "top_p", "min_p", "repetition_penalty")}
    defaults |= {"max_tokens": max_tokens, "temperature": "the model's, or 0"}
    add_option_flags(group, "SamplingParams", ("n", *without), defaults=defaults)
    group.add_argument("--stop", action="append", metavar="TEXT", help="end at this text (may be repeated)")
    group.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")
    add_structured_flags(parser)


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
            for other in (other for other, ours in RENAMED.items() if ours == info.name):
                alias = "--" + other.replace("_", "-")
                group.add_argument(alias, dest=info.name, type=kind, help=argparse.SUPPRESS)


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
    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of token ids, such as 5,17") from None


def _biases(text: str) -> dict[int, float]:
    try:
        return {int(token): float(bias) for token, bias in (pair.split(":") for pair in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of biases, such as 5:1.5,17:-inf") from None


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


def request_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raises InvalidArgument for those that the engine's options leave without an effect."""
    if arguments.order != "priority":
        refuse_unused(arguments, ("priority",), "has no effect: give --order priority too")
    if arguments.order != "fair":
        refuse_unused(arguments, ("tenant",), "has no effect: give --order fair too")
    if arguments.enable_prefix_caching is False:
        refuse_unused(arguments, ("salt",), "has no effect: nothing is shared without --enable-prefix-caching")
    return given(arguments, "RequestOptions")


def sampling_params(arguments: argparse.Namespace, llm: LLM | None = None, **ours: Any) -> SamplingParams:
    """What the flags say, then what the model's publishers recommend, then ``ours``, greedily. Without ``llm``: to
    check the flags before it is loaded."""
    from ..sampling_params import SamplingParams, with_changes

    values = {"temperature": 0.0, "max_tokens": None} | ours | (llm.sampling_defaults if llm is not None else {})
    asked = {"ignore_eos": arguments.ignore_eos, "stop": arguments.stop or ()} | given(arguments, "SamplingParams")
    asked["structured_outputs"] = structured_outputs(arguments)
    params = SamplingParams(**with_changes(values, asked))
    if llm is not None and params.temperature == 0:
        for name, without_effect in (("top_k", (0, -1)), ("top_p", (1,)), ("min_p", (0,))):
            if getattr(arguments, name) not in (None, *without_effect):
                refuse_unused(arguments, (name,), "has no effect at temperature 0: give --temperature too")
        if arguments.seed is not None:
            complain("--seed has no effect at temperature 0, which takes the most likely token")
    return params


def hub_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What says more of a model on the hub."""
    return {"revision": arguments.revision, "token": arguments.token}


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keywords for LLM and LLM.plan, checked as far as they can be without the model."""
    options = given(arguments, "EngineConfig")
    check_options(options)
    return options


def check_options(options: Mapping[str, Any]) -> None:
    """Raises InvalidArgument: no device has been asked yet, so that what it would not do is wrong with the flags."""
    from ..engine_options import engine_config

    try:
        engine_config(options)
    except Unsupported as error:
        raise InvalidArgument(str(error)) from None


def open_llm(arguments: argparse.Namespace) -> LLM:
    from ..llm import LLM

    tokenizer = getattr(arguments, "tokenizer", None)
    where = hub_options(arguments)
    return LLM(arguments.model, tokenizer=tokenizer, mmap=arguments.mmap, **where, **engine_options(arguments))


def read_texts(given: Sequence[str]) -> list[str]:
    """The texts of the command line; without any, all of stdin."""
    if given:
        texts = list(given)
    else:
        if sys.stdin.isatty():
            print("Type the text, then Ctrl-D:", file=sys.stderr)
        try:
            texts = [sys.stdin.read()]
        except UnicodeDecodeError as error:
            raise InvalidArgument(f"stdin is not text in {sys.stdin.encoding}: {error}") from None
    if not all(texts):
        raise InvalidArgument("the text is empty")
    return texts


def check_output(path: str | os.PathLike[str]) -> None:
    """Raises Io, before any work, when nothing could be written there in the end."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.close(file)
        os.unlink(path)
    except FileExistsError:
        if os.path.isdir(path) or not os.access(path, os.W_OK):
            raise Io(f"{os.fspath(path)}: this cannot be written to") from None
    except OSError as error:
        raise Io(f"{os.fspath(path)}: cannot be written: {error.strerror}") from None


def refuse_unused(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises InvalidArgument for the first of these flags that was given and would have no effect."""
    for name in names:
        if getattr(arguments, name) not in (None, False):
            raise InvalidArgument(f"--{name.replace('_', '-')} {why}")


def print_json(values: Mapping[str, Any]) -> None:
    write_json(values, sys.stdout)


def write_json(values: Mapping[str, Any], file: TextIO) -> None:
    """A line; with escapes where the file's encoding lacks a character, or half a surrogate pair is one."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode(file.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(values)
    file.write(text + "\n")
