"""One call of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from ..async_llm import AsyncLLM
from .errors import ApiError
from .fields import Fields
from .served import Served
from .state import State
from .tally import Tally

__all__ = ["Call"]


@dataclass
class Call:
    state: State
    request: Request
    fields: Fields
    tally: Tally = field(default_factory=Tally)

    chosen: Served | None = None

    def model(self) -> str:
        """The model that is asked for, by the name that it is asked for by; the first one where none is. From then on
        :attr:`served` is that one."""
        by_name = self.state.by_name
        name = self.fields.text("model") or next(iter(by_name))
        if name not in by_name:
            known = ", ".join(by_name)
            raise ApiError(
                404, f"there is no model {name[:128]!r} here: {known}", param="model", code="model_not_found"
            )
        self.tally.model = name
        self.chosen = by_name[name]
        return name

    @property
    def served(self) -> Served:
        if self.chosen is None:
            self.model()
            assert self.chosen is not None
        return self.chosen

    @property
    def llm(self) -> AsyncLLM:
        return self.served.llm

    def keywords(self) -> dict[str, Any]:
        """Of every request of this call."""
        seconds = self.state.settings.request_timeout
        return {"deadline": seconds} if seconds else {}
