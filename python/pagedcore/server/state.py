"""What the endpoints of a server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import _core
from ..async_llm import AsyncLLM
from .answer import TOOL_FORMATS, ToolFormat, tool_format_of
from .metrics import Metrics
from .settings import Settings

__all__ = ["State", "name_of_model"]


@dataclass
class State:
    llm: AsyncLLM
    settings: Settings
    names: list[str]
    """Of the model; the first one is used where a call names none."""
    metrics: Metrics = field(default_factory=Metrics)
    created: int = field(default_factory=lambda: int(time.time()))
    fingerprint: str = f"pagedcore-{_core.version()}"
    calls: int = 0
    """Under way."""
    draining: bool = False

    def template_options(self) -> dict[str, Any]:
        """What the operator says to the chat template."""
        own = self.settings.chat_template
        return {} if own is None else {"chat_template": own}

    def template(self, *, chosen: str | None = None, tools: bool = False) -> str:
        """The text of the chat template that is used, as far as there is one."""
        return self.llm.chat_template_text(chosen, tools=tools)

    def tool_format(self, template: str) -> ToolFormat | None:
        name = self.settings.tool_format
        return TOOL_FORMATS[name] if name is not None else tool_format_of(template)


def name_of_model(path: str) -> str:
    """A name for a model whose operator gave none: of the hub, of the file, or of the directory that it is in."""
    if not Path(path).exists():
        return path.removeprefix("hub:")
    file = Path(path).resolve()
    return file.name.removesuffix(".gguf") if file.is_file() else file.name
