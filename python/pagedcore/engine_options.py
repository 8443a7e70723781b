"""From a model's name and a user's options to a native engine.

The options, their limits and meanings are the native library's lists of fields; ``_options.EngineOptions`` has their
types. Nothing of that is said again here.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _core, _options
from .arguments import shown
from .chat import ChatTemplates, TemplateOptions
from .checks import native_record
from .errors import Corrupt, InvalidArgument
from .memory import MemoryReport, format_bytes, parse_bytes
from .names import RENAMED, unknown_name
from .progress import Progress

if TYPE_CHECKING:
    from .loading import Checkpoint
    from .loading.end_tokens import EndToken
    from .tokenizer import Tokenizer

__all__ = [
    "OpenModel",
    "engine_config",
    "open_model",
    "split_chat_options",
    "with_engine_options",
    "with_request_options",
    "with_template_options",
]

_log = logging.getLogger("pagedcore")

_F = TypeVar("_F", bound=Callable[..., Any])

_OF_LLM = ("tokenizer", "seed", "progress", "mmap")  # keywords of LLM() that its engine does not know


@cache
def _infos() -> dict[str, _core.OptionInfo]:
    return {info.name: info for info in _core.options_of("EngineConfig")}


def _own_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options under our names. Raises TypeError for one that there is not, or that is given twice."""
    ours: dict[str, Any] = {}
    for name, value in options.items():
        if name in _OF_LLM:
            raise TypeError(f"{name!r} is a keyword of LLM() alone, no option of its engine: no memory depends on it")
        own = RENAMED.get(name, name)
        if own not in _infos():
            raise unknown_name("LLM", name, [*_infos(), *_OF_LLM, "revision", "token"])
        if own in ours or (own != name and own in options):
            raise TypeError(f"{name!r} is another name of {own!r}: give one of them")
        ours[own] = value
    return ours


def engine_config(options: Mapping[str, Any], source_dtype: str | None = None) -> _core.EngineConfig:
    """Checks the options, and all that they say together. ``source_dtype``: the checkpoint's element type, by which
    dtype "auto" goes; None: it is not known yet."""
    values = _own_names(options)
    device = values.get("device", "cpu")
    if values.get("dtype", "auto") == "auto":
        on_cpu = device == "cpu"
        if on_cpu:
            values["dtype"] = "float32" if source_dtype in ("f32", "f64") else "bfloat16"
        else:
            values["dtype"] = "float16" if source_dtype == "f16" else "bfloat16"
    paths = [name for name, info in _infos().items() if info.type == "path"]
    config = native_record(_core.EngineConfig, values, paths=paths)
    for name, value in values.items():  # 0 is what None stands for: nobody who means that writes 0
        info = _infos()[name]
        if info.zero and info.type in ("int", "size") and value is not None and getattr(config, name) == 0:
            raise InvalidArgument(
                f"{name}={shown(value)} is out of range: it must lie in {info.limits}, or be left out for {info.zero}"
            )
        if info.type == "path" and value == "":
            raise InvalidArgument(f"{name}='' names no file: give a path, or None for {info.zero}")
    _core.validate(config)
    return config


def open_model(
    model: str | os.PathLike[str] | None,
    options: Mapping[str, Any],
    *,
    weights: bool = True,
    mmap: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> OpenModel:
    """Opens the model's files. Without weights, to plan: reads configuration and metadata only."""
    if not isinstance(mmap, bool):
        raise InvalidArgument(f"mmap={mmap!r} must be True or False")
    engine_config(options)  # wrong options are said before a file is touched
    from .loading import load_checkpoint, load_description

    if model is None:
        from .default_model import default_model

        model = default_model()
    if weights:
        checkpoint = load_checkpoint(model, mmap=mmap, revision=revision, token=token)
    else:
        checkpoint = load_description(model, revision=revision, token=token)
    return OpenModel(checkpoint, engine_config(options, checkpoint.source_dtype), os.fspath(model))


class OpenModel:
    """A checkpoint whose files are open. Close it once the engine has packed the weights."""

    def __init__(self, checkpoint: Checkpoint, config: _core.EngineConfig, path: str) -> None:
        self._checkpoint = checkpoint
        self.path = path
        self.sampling = dict(checkpoint.sampling)
        self.description = _core.ModelDescription(**checkpoint.description)
        self.config = config

    def tokenizer(self, choice: str | os.PathLike[str] | Tokenizer | None) -> Tokenizer | None:
        """The user's choice, or the checkpoint's; None when it has none."""
        from .tokenizer import Tokenizer

        if isinstance(choice, Tokenizer):
            return choice
        if choice is not None:
            return Tokenizer.from_path(choice)
        return self._checkpoint.build_tokenizer()

    def chat_templates(self, tokenizer: Tokenizer | None) -> ChatTemplates:
        return ChatTemplates(self._checkpoint.chat_templates, tokenizer.special_tokens if tokenizer else None)

    def end_tokens(self, tokenizer: Tokenizer | None) -> tuple[EndToken, ...]:
        """The tokens that end a turn or a text, and who says so."""
        from .loading.end_tokens import all_ends

        return all_ends(self._checkpoint.declared_ends, tokenizer, self.description.vocab_size)

    def plan(self, device_memory: int | str | None = None) -> MemoryReport:
        size = 0 if device_memory is None else parse_bytes(device_memory)
        types = self._checkpoint.weight_types
        return MemoryReport.from_native(_core.plan_memory(self.description, self.config, size, types))

    def engine(self, progress: bool | None = None) -> _core.Engine:
        weights = _core.WeightMap()
        for name, (dtype, shape, buffer) in self._checkpoint.tensors.items():
            weights.add(name, dtype, shape, buffer)
        total = len(weights)
        with Progress(total, "tensors", title="loading", enabled=progress) as bar:
            told = (lambda read: bar.reach(read, total)) if bar.enabled else None
            start = time.monotonic()
            try:
                engine = _core.Engine(self.description, weights, self.config, told)
            except Corrupt as error:  # a tensor of another shape than the description says
                raise Corrupt(str(error) if self.path in str(error) else f"{self.path}: {error}") from None
            bar.reach(total, total)
        memory = MemoryReport.from_native(engine.memory_plan)
        took = time.monotonic() - start
        _log.info("%s: %s; %s, loaded in %.2f s", self.path, engine.describe(), format_bytes(memory.total), took)
        if (other := _other_than_asked(self.config, memory)) is not None:
            _log.warning("%s: %s", self.path, other)
        return engine

    def close(self) -> None:
        self._checkpoint.close()


def _other_than_asked(config: _core.EngineConfig, memory: MemoryReport) -> str | None:
    """What is not computed in integers, or not kept in them, though the options say so."""
    rounded = config.weights in ("int8", "int4")
    if config.device != "cpu":
        asked = "dtype='int8'" if config.dtype == "int8" else f"weights='{config.weights}'" if rounded else None
        return None if asked is None else f"{asked} is for the CPU: this device widens all weights"
    others = memory.dense_weights + memory.native_weights - memory.integer_weights
    if config.dtype == "int8" and others:
        remedy = "" if rounded else "; weights='int8' rounds matrices in no block format"
        return (
            f"dtype='int8' multiplies weights in block formats, but not those of experts: {format_bytes(others)} of"
            f" weights compute as without it{remedy}"
        )
    return None


def _default(record: object, info: _core.OptionInfo) -> Any:
    return None if info.zero else "auto" if info.name == "dtype" else getattr(record, info.name)


def _showing(function: _F, infos: Mapping[str, _core.OptionInfo], record: object, types: type) -> _F:
    """The function with its ``**options`` spelled out, for inspect.signature() and help()."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(record, info),
            annotation=getattr(types.__annotations__[name], "__forward_arg__", types.__annotations__[name]),
        )
        for name, info in infos.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    return function


def with_engine_options(function: _F) -> _F:
    shown = _showing(function, _infos(), _core.EngineConfig(), _options.EngineOptions)
    lines = [
        f"    {name}: {info.doc}" + (f" None: {info.zero}." if info.zero else "") for name, info in _infos().items()
    ]
    shown.__doc__ = inspect.cleandoc(shown.__doc__ or "") + "\n\nOptions:\n" + "\n".join(lines)
    return shown


def with_request_options(function: _F) -> _F:
    infos = {info.name: info for info in _core.options_of("RequestOptions")}
    return _showing(function, infos, _core.RequestOptions(), _options.RequestOptions)


def with_template_options(function: _F) -> _F:
    """For methods that make a prompt of a conversation: shows how in their signature."""
    signature = inspect.signature(function)
    more = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "continue_final_message" else None
        )
        for name in TemplateOptions.__annotations__
    ]
    parameters = list(signature.parameters.values())
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    rest = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*named, *more, *rest])  # type: ignore[attr-defined]
    return function


def split_chat_options(options: Mapping[str, Any]) -> tuple[TemplateOptions, dict[str, Any]]:
    """What concerns the template, and what concerns the request. Raises TypeError for a keyword that there is not."""
    known = [*TemplateOptions.__annotations__, *(info.name for info in _core.options_of("RequestOptions"))]
    for name in options:
        if name not in known:
            raise unknown_name("a request", name, known)
    template = {name: value for name, value in options.items() if name in TemplateOptions.__annotations__}
    return cast(TemplateOptions, template), {k: v for k, v in options.items() if k not in template}
