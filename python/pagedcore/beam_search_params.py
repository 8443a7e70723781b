"""What a user may ask of a beam search, and the checks that need no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .checks import check_int, token_ids
from .errors import InvalidArgument

__all__ = ["BeamSearchParams"]


@dataclass(frozen=True, kw_only=True)
class BeamSearchParams:
    """A beam search with the results of transformers' ``generate(num_beams=beam_width, do_sample=False)``. Immutable.

    A hypothesis scores the sum of its tokens' log-probabilities divided by ``len(tokens) ** length_penalty``.
    """

    beam_width: int = 4
    """Beams that run at a time; their KV blocks are shared and copied on write."""
    max_tokens: int = 16
    length_penalty: float = 1.0
    """Above 0 favours long hypotheses, below 0 short ones."""
    early_stopping: bool | Literal["never"] = False
    """When to stop, given ``beam_width`` finished hypotheses. False: when no beam, as long as it is now, could beat the
    worst of them. True: at once. "never": when no beam could beat it at any length up to ``max_tokens``."""
    n: int | None = None
    """Hypotheses to return, best first. None: ``beam_width``."""
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()
    """End a hypothesis, like the model's end-of-sequence tokens."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text (never out of the token ids)."""
    detokenize: bool = True
    """False: token ids only, the text stays empty."""

    def __post_init__(self) -> None:
        check_int("beam_width", self.beam_width, 1, 65536)
        check_int("max_tokens", self.max_tokens, 1, 2**31 - 1)
        if self.n is not None and (isinstance(self.n, bool) or not isinstance(self.n, int)):
            raise InvalidArgument(f"n={self.n!r} must be an integer in [1, beam_width={self.beam_width}]")
        if self.n is not None and not 1 <= self.n <= self.beam_width:
            raise InvalidArgument(
                f"n={self.n} hypotheses of beam_width={self.beam_width} beams: n is in [1, beam_width]"
            )
        penalty = self.length_penalty
        if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not math.isfinite(penalty):
            raise InvalidArgument(f"length_penalty={penalty!r} must be a finite number")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise InvalidArgument(f"early_stopping={self.early_stopping!r} must be False, True or 'never'")
        object.__setattr__(self, "stop_token_ids", token_ids("stop_token_ids", self.stop_token_ids))
