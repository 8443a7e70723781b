"""The models of a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..async_llm import AsyncLLM
from .answer import TOOL_FORMATS, ToolFormat, tool_format_of
from .metrics import Metrics
from .prediction import Prediction

__all__ = ["Served", "ToServe", "name_of_model"]


@dataclass(frozen=True, kw_only=True)
class ToServe:
    """What an operator says of one model."""

    open: Callable[[], AsyncLLM]
    names: tuple[str, ...] = ()
    """In calls; none: its file's."""
    tool_format: str | None = None
    """How it writes tool calls; None: by its chat template."""
    chat_template: str | None = None
    """Used instead of its own."""


@dataclass
class Served:
    """One that is loaded. ``names``: what calls may say for it; the first is its name in answers to /v1/models."""

    llm: AsyncLLM
    names: tuple[str, ...]
    tool_format_name: str | None = None
    own_template: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    prediction: Prediction = field(default_factory=Prediction)

    @classmethod
    def load(cls, what: ToServe) -> Served:
        llm = what.open()
        return cls(llm, what.names or (name_of_model(str(llm.model)),), what.tool_format, what.chat_template)

    def template_options(self) -> dict[str, Any]:
        """What the operator says to the chat template."""
        return {} if self.own_template is None else {"chat_template": self.own_template}

    def template(self, *, chosen: str | None = None, tools: bool = False) -> str:
        """The text of the chat template that is used, as far as there is one."""
        return self.llm.chat_template_text(chosen, tools=tools)

    def tool_format(self, template: str) -> ToolFormat | None:
        name = self.tool_format_name
        return TOOL_FORMATS[name] if name is not None else tool_format_of(template)


def name_of_model(path: str) -> str:
    """A name for a model whose operator gave none: of the hub, of the file, or of the directory that it is in."""
    if not Path(path).exists():
        return path.removeprefix("hub:")
    file = Path(path).resolve()
    return file.name.removesuffix(".gguf") if file.is_file() else file.name
