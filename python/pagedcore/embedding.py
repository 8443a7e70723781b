"""Embeddings of texts: their requests, and the array that their outputs make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from . import _core
from .arguments import shown
from .checks import check_bool, check_int
from .errors import Aborted, InvalidArgument
from .outputs import CompletionOutput, FinishReason, RequestOutput
from .request import Request
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EmbeddingRequest", "Pooling", "embedding_params", "stacked"]

Pooling = Literal["auto", "last", "mean", "cls"]

FORM = SamplingParams(max_tokens=0)
"""Of the outputs of a request that generates nothing."""


def embedding_params(pooling: Any, normalize: Any, dimensions: Any) -> _core.EmbeddingParams:
    if pooling not in ("auto", "last", "mean", "cls"):
        raise InvalidArgument(f"pooling={shown(pooling)} is not one of 'auto', 'last', 'mean', 'cls'")
    check_bool("normalize", normalize)
    if dimensions is not None:
        check_int("dimensions", dimensions, 1, 1 << 24)
    return _core.EmbeddingParams(pooling=pooling, normalize=normalize, dimensions=dimensions)


class EmbeddingRequest(Request):
    """Ends with its only news, which has the embedding."""

    embedding: memoryview | None = None
    """f32, as bytes."""
    _finish: FinishReason | None = None
    _error: str | None = None

    def __post_init__(self) -> None:
        self._unfinished = 1

    @property
    def needs_every_token(self) -> bool:
        return False

    @property
    def spared_tokens(self) -> int:
        return 0

    def take(self, news: _core.EngineOutput) -> None:
        self._unfinished = 0
        self._cached_tokens = news.cached_tokens
        if news.finish == "length":
            self.embedding = news.embedding_bytes()
        elif news.finish != "none":
            self._finish, self._error = news.finish, news.error or None

    def output(self, samples: Sequence[CompletionOutput] | None = None) -> RequestOutput:
        done = CompletionOutput(0, finish_reason=self._finish or "length", error=self._error)
        return RequestOutput(self.name, self.prompt, self.token_ids, [done], self.finished)

    def numbers(self) -> memoryview:
        """Raises Aborted where the request has failed."""
        if self.embedding is None:
            raise Aborted(f"request {self.name} failed: {self._error or self._finish}")
        return self.embedding


def stacked(requests: Sequence[EmbeddingRequest]) -> NDArray[np.float32]:
    """[requests, dimensions]. Raises Aborted for one that has failed."""
    import numpy as np

    if not requests:
        return np.empty((0, 0), dtype=np.float32)
    rows = [np.frombuffer(request.numbers(), dtype=np.float32) for request in requests]
    return np.stack(rows)
