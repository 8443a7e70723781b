"""One call of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from .errors import ApiError
from .fields import Fields
from .state import State
from .tally import Tally

__all__ = ["Call"]


@dataclass
class Call:
    state: State
    request: Request
    fields: Fields
    tally: Tally = field(default_factory=Tally)

    def model(self) -> str:
        """The model that is asked for, by the name that it is asked for by; the first one where none is."""
        names = self.state.names
        name = self.fields.text("model") or names[0]
        if name not in names:
            known = ", ".join(names)
            raise ApiError(
                404, f"there is no model {name[:128]!r} here: {known}", param="model", code="model_not_found"
            )
        self.tally.model = name
        return name

    def served(self) -> dict[str, Any]:
        """Keywords of every request of this call."""
        seconds = self.state.settings.request_timeout
        return {"deadline": seconds} if seconds else {}
