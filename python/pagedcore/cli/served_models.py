"""Which models a server has: the one of ``--model``, those of ``--add-model``, those of a file's ``[models.NAME]``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from ..memory import MemoryReport, parse_bytes
from .common import check_options, engine_options

if TYPE_CHECKING:
    from ..async_llm import AsyncLLM
    from ..server.served import ToServe

__all__ = ["MODEL_KEYS", "models_to_serve"]

MODEL_KEYS = ("model", "tokenizer", "revision", "token", "mmap", "chat_template", "tool_format")
"""What a table ``[models.NAME]`` may say beside options of the engine."""
_SIZES = {"kv_cache_memory", "num_blocks"}
_OF_ONE = ("swap_file", "trace_file", "timeline_file")  # two engines cannot have the same


@dataclass(frozen=True)
class _Model:
    names: tuple[str, ...]
    values: Mapping[str, Any]
    """Of MODEL_KEYS."""
    options: Mapping[str, Any]
    """Of its engine."""

    @property
    def name(self) -> str:
        return self.names[0] if self.names else str(self.values.get("model") or "the model")

    def where(self) -> dict[str, Any]:
        return {"revision": self.values.get("revision"), "token": self.values.get("token")}

    def plan(self, options: Mapping[str, Any]) -> MemoryReport:
        from ..llm import LLM

        return LLM.plan(self.values.get("model"), **self.where(), **options)

    def open(self, options: Mapping[str, Any]) -> AsyncLLM:
        from ..async_llm import AsyncLLM

        return AsyncLLM(
            self.values.get("model"),
            tokenizer=self.values.get("tokenizer"),
            mmap=bool(self.values.get("mmap")),
            **self.where(),
            **options,
        )


def models_to_serve(arguments: argparse.Namespace) -> list[ToServe]:
    """Checks the flags and the tables. With ``--memory`` reads the models' metadata, and no weights."""
    from ..config_files import read_given
    from ..server.answer import TOOL_FORMATS
    from ..server.budget import Planned, share_out
    from ..server.served import ToServe

    models = _models(arguments)
    for model in models:
        wanted = model.values.get("tool_format")
        if wanted not in (None, *TOOL_FORMATS):
            raise InvalidArgument(f"--tool-format {wanted} must be one of {', '.join(TOOL_FORMATS)}")
    options = [dict(model.options) for model in models]
    if arguments.memory is not None:
        for model in models:
            if model.options.get("device", "cpu") != "cpu":
                raise InvalidArgument("--memory is of models on the CPU: on a GPU give --gpu-memory-utilization")
        planned = [Planned(model.name, model.options, model.plan) for model in models]
        options = share_out(parse_bytes(arguments.memory), planned)
    return [
        ToServe(
            open=partial(model.open, own),
            names=model.names,
            tool_format=model.values.get("tool_format"),
            chat_template=None if (path := model.values.get("chat_template")) is None else read_given(path),
        )
        for model, own in zip(models, options, strict=True)
    ]


def _models(arguments: argparse.Namespace) -> list[_Model]:
    common = engine_options(arguments)
    more = _added(arguments)
    found: list[_Model] = []
    if arguments.model is not None or not more:
        names = tuple(arguments.served_model_name or ())
        found.append(_Model(names, {key: getattr(arguments, key) for key in MODEL_KEYS}, common))
    else:
        for key in ("served_model_name", "tokenizer", "revision", "chat_template", "tool_format"):
            if getattr(arguments, key):
                flag = "--" + key.replace("_", "-")
                raise InvalidArgument(f"{flag} is of the model that --model names, and none is given")
    if len(found) + len(more) > 1:
        for key in _OF_ONE:
            if key in common:
                flag = "--" + key.replace("_", "-")
                raise InvalidArgument(f"{flag} is of one model: say {key.replace('_', '-')} in its [models.NAME]")
    for name, table in more.items():
        values = {key: table[key] for key in MODEL_KEYS if key in table}
        values.setdefault("token", arguments.token)
        values.setdefault("mmap", arguments.mmap)
        own = {key: value for key, value in table.items() if key not in MODEL_KEYS}
        replaced = _SIZES if _SIZES & own.keys() else set()  # a cache has one of them
        options = {key: value for key, value in common.items() if key not in replaced} | own
        check_options(options)
        found.append(_Model((name,), values, options))
    return found


def _added(arguments: argparse.Namespace) -> dict[str, Mapping[str, Any]]:
    """By name: what is said of each model but that of --model."""
    tables: dict[str, Mapping[str, Any]] = {}
    for text in arguments.add_model or ():
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InvalidArgument(f"--add-model {text}: give NAME=PATH")
        if name in tables:
            raise InvalidArgument(f"--add-model {text}: there is another model of that name")
        tables[name] = {"model": path}
    for name, table in (arguments.models or {}).items():
        if name in tables:
            raise InvalidArgument(f"--add-model {name}=... and [models.{name}] are of one name")
        if "model" not in table:
            raise InvalidArgument(f'[models.{name}] says no model: give model = "PATH"')
        tables[name] = table
    return tables
