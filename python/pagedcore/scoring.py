"""Scoring texts that begin alike: what one of them has in common with an earlier one is computed and scored once."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from operator import eq

from .checks import check_int
from .errors import Aborted, InvalidArgument
from .outputs import RequestOutput, Score
from .sampling_params import SamplingParams

__all__ = ["Scoring"]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return sum(1 for _ in takewhile(bool, map(eq, a, b)))


@lru_cache
def _params(start: int) -> SamplingParams:
    return SamplingParams(max_tokens=0, prompt_logprobs=0, prompt_logprob_start=start)


class Scoring:
    """Which tokens of each prompt are scored by its own request, and which by that of an earlier prompt."""

    def __init__(self, prompts: Sequence[Sequence[int]], start: int | Sequence[int], *, hidden: int = 0) -> None:
        """``start``: the first token of each prompt whose score is wanted, one for all or one for each. ``hidden``: how
        many tokens at the beginning are not shown, nor counted by ``start``."""
        starts = [start] * len(prompts) if isinstance(start, int) else list(start)
        if len(starts) != len(prompts):
            raise InvalidArgument(f"{len(starts)} starts for {len(prompts)} prompts: give one, or one for each")
        for ids, first in zip(prompts, starts, strict=True):
            check_int("start", first, 0, max(len(ids) - hidden - 1, 0))
            if len(ids) == hidden:
                raise InvalidArgument("a prompt must have at least one token behind a shared prefix")
        self._prompts = prompts
        self._starts = [max(first + hidden, 1) for first in starts]
        self._hidden = hidden
        self._sources: list[int] = []  # [prompts] an earlier one that begins alike, or the prompt itself
        self._own: list[int] = []  # [prompts] the first token that is not scored by that one
        self._find_sources()
        self.params = [_params(own if own < len(ids) else 0) for own, ids in zip(self._own, prompts, strict=True)]

    def _find_sources(self) -> None:
        ordered: list[tuple[Sequence[int], int]] = []  # the prompts so far: the nearest neighbours have most in common
        for index, ids in enumerate(self._prompts):
            at = bisect.bisect_left(ordered, (ids, index))
            near = [other for _, other in ordered[max(at - 1, 0) : at + 1]]
            scored = [other for other in near if self._starts[other] <= self._starts[index]]
            shared, source = max(((_common(ids, self._prompts[other]), other) for other in scored), default=(0, index))
            self._sources.append(source)
            self._own.append(max(self._starts[index], min(shared, len(ids) - 1)))
            ordered.insert(at, (ids, index))

    def scores(self, outputs: Sequence[RequestOutput]) -> list[Score]:
        scores: list[Score] = []
        for output, first, source, own in zip(outputs, self._starts, self._sources, self._own, strict=True):
            if output.error is not None:
                raise Aborted(f"request {output.request_id} failed: {output.error}")
            ids = output.prompt_token_ids
            logprobs: list[float] = []
            if own > first:
                logprobs = scores[source].logprobs[first - self._starts[source] : own - self._starts[source]]
            if output.prompt_logprobs is not None:
                scored = zip(ids[own:], output.prompt_logprobs[own:], strict=True)
                logprobs += [position[token].logprob for token, position in scored]
            scores.append(Score(ids, logprobs, first))
        if self._hidden == 0:
            return scores
        return [Score(s.token_ids[self._hidden :], s.logprobs, s.start - self._hidden) for s in scores]
