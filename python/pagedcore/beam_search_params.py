"""What a user may ask of a beam search, and the checks that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from . import _core
from ._options import BeamSearchFields
from .arguments import shown
from .checks import check_bool, native_record, token_list
from .errors import InvalidArgument
from .names import knows_its_fields
from .structured_outputs import StructuredOutputs, structured_outputs

__all__ = ["BeamSearchParams"]

_EARLY_STOPPING: dict[object, str] = {False: "heuristic", True: "immediate"}  # as transformers writes them


@knows_its_fields
@dataclass(frozen=True, kw_only=True)
class BeamSearchParams(BeamSearchFields):
    """A beam search with the results of transformers' ``generate(num_beams=beam_width, do_sample=False)``. Immutable.

    A hypothesis scores the sum of its tokens' log-probabilities divided by ``len(tokens) ** length_penalty``: above 0
    that favours long hypotheses, below 0 short ones.
    """

    ignore_eos: bool = False
    skip_special_tokens: bool = True
    """Leave special tokens out of the text (never out of the token ids)."""
    detokenize: bool = True
    """False: token ids only, the text stays empty."""
    structured_outputs: StructuredOutputs | Mapping[str, Any] | None = None
    """What every hypothesis is held to, as :class:`SamplingParams` has it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop_token_ids", token_list("stop_token_ids", self.stop_token_ids))
        for name in ("ignore_eos", "skip_special_tokens", "detokenize"):
            check_bool(name, getattr(self, name))
        object.__setattr__(self, "structured_outputs", structured_outputs(self.structured_outputs))
        if self.structured_outputs is not None and self.ignore_eos:
            raise InvalidArgument("ignore_eos=True contradicts structured_outputs, which say where the output ends")
        if not isinstance(self.early_stopping, (bool, str)):
            raise InvalidArgument(f"early_stopping={shown(self.early_stopping)} must be False, True or 'never'")
        _core.validate(self.native())

    def native(self, **changes: Any) -> _core.BeamSearchParams:
        """What the native library is told, with changes."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(BeamSearchFields)}
        values["early_stopping"] = _EARLY_STOPPING.get(self.early_stopping, self.early_stopping)
        if self.n is None:
            values["n"] = self.beam_width
        return native_record(_core.BeamSearchParams, values | changes)
