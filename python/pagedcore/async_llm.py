"""Text generation for programs on asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

from . import _core
from .async_stream import AsyncStream, Batch, OutputKind, PrefixTaker
from .beam_search_params import BeamSearchParams
from .chat import Message
from .checks import check_bool
from .embedding import Pooling, embedding_params, stacked
from .engine_options import with_request_options, with_template_options
from .errors import Aborted, InvalidArgument
from .loaded_model import LoadedModel, Params
from .loop_queue import LoopQueue
from .outputs import RequestOutput, Score
from .prefixes import Prefix
from .prompts import Prompt, is_single_prompt
from .request import Request, check_prefix_name
from .reranking import Relevance
from .sampling_params import SamplingParams
from .transfer import export_prefix, import_prefix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ._options import RequestOptions
    from .chat import TemplateOptions

    class ChatOptions(TemplateOptions, RequestOptions, total=False):
        """Of a conversation that is served."""


__all__ = ["AsyncLLM"]

_T = TypeVar("_T")
_SHORT = 4096  # characters that are encoded within about a millisecond, on the event loop
_SLICE = 0.25  # seconds after which a thread that drains looks whether it still should


class AsyncLLM(LoadedModel):
    """What :class:`LLM` is, for asyncio: its methods that wait are coroutines here, its streams asynchronous iterators.
    The constructor takes the same options, and blocks while it loads the model.

    May be used on several event loops, in several threads. No thread of its own and no polling: the engine wakes a loop
    once for all news of a step. A coroutine that is cancelled and a stream that is closed or dropped end their requests
    within a step. Keep a reference to your tasks, as always in asyncio: what nobody holds ends.
    """

    def _opened(self, engine: _core.Engine) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[LoopQueue]]
        self._loops = weakref.WeakKeyDictionary()
        self._loops_lock = threading.Lock()

    # Generating

    @with_request_options
    async def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        **options: Unpack[RequestOptions],
    ) -> list[RequestOutput]:
        """One output per prompt, in order, as :meth:`LLM.generate`. Cancelling it ends its requests."""
        requests = await self._made(prompts, partial(self._sampled, prompts, sampling_params, options), sampling_params)
        return await self._run(requests)

    @with_template_options
    @with_request_options
    async def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Params = None,
        **options: Unpack[ChatOptions],
    ) -> list[RequestOutput]:
        """For one conversation, or several, as :meth:`LLM.chat`."""
        requests = await self._made(
            messages, partial(self._answers, messages, sampling_params, options), sampling_params
        )
        return await self._run(requests)

    @with_request_options
    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        output_kind: OutputKind = "delta",
        **options: Unpack[RequestOptions],
    ) -> AsyncStream:
        """The news of one request: ``async for output in llm.stream(...)``."""
        return self._stream(
            prompt, partial(self._sampled_stream, prompt, sampling_params, options), output_kind, sampling_params
        )

    @with_template_options
    @with_request_options
    def stream_chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        *,
        output_kind: OutputKind = "delta",
        **options: Unpack[ChatOptions],
    ) -> AsyncStream:
        """Like :meth:`stream` for a conversation; the other keywords are those of :meth:`chat_prompt`."""
        return self._stream(
            messages, partial(self._answer_stream, messages, sampling_params, options), output_kind, sampling_params
        )

    @with_request_options
    async def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | Sequence[BeamSearchParams] | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[RequestOutput]:
        """The best hypotheses for each prompt, as :meth:`LLM.beam_search`."""
        requests = await self._made(prompts, partial(self._beam_searches, prompts, params, options), params)
        return await self._run(requests)

    @with_request_options
    def stream_beam_search(
        self,
        prompt: Prompt,
        params: BeamSearchParams | None = None,
        *,
        output_kind: OutputKind = "delta",
        **options: Unpack[RequestOptions],
    ) -> AsyncStream:
        """The news of one beam search, as :meth:`LLM.stream_beam_search`."""
        return self._stream(prompt, partial(self._beam_search_stream, prompt, params, options), output_kind, params)

    @with_request_options
    async def embed(
        self,
        texts: Prompt | Sequence[Prompt],
        pooling: Pooling = "auto",
        normalize: bool = True,
        dimensions: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> NDArray[np.float32]:
        """What the model makes of each text, as :meth:`LLM.embed`. Cancelling it ends its requests."""
        params = embedding_params(pooling, normalize, dimensions)
        requests = await self._made(texts, partial(self._embeddings, texts, params, options))
        await self._run(requests)
        vectors = stacked(requests)
        return vectors[0] if is_single_prompt(texts) else vectors

    @with_request_options
    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        top_n: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Relevance]:
        """Which of the documents answer the query, as :meth:`LLM.rerank`."""
        how = {"instruction": instruction, "top_n": top_n}
        make = partial(self._judged, query, documents, how, options)
        judge, requests = await self._made([query, *documents], make)
        return judge.ranked(await self._run(requests))

    @overload
    async def score(self, prompts: str, *, start: int = 0, **options: Unpack[RequestOptions]) -> Score: ...  # type: ignore[overload-overlap]  # a str is a Sequence[str]
    @overload
    async def score(self, prompts: Sequence[int], *, start: int = 0, **options: Unpack[RequestOptions]) -> Score: ...
    @overload
    async def score(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        *,
        start: int | Sequence[int] = 0,
        **options: Unpack[RequestOptions],
    ) -> list[Score]: ...
    @with_request_options
    async def score(
        self, prompts: Prompt | Sequence[Prompt], *, start: int | Sequence[int] = 0, **options: Unpack[RequestOptions]
    ) -> Score | list[Score]:
        """Log-likelihood of a text, or of several, as :meth:`LLM.score`."""
        scoring, requests = await self._made(prompts, partial(self._scoring, prompts, start, options))
        scores = scoring.scores(await self._run(requests))
        return scores[0] if is_single_prompt(prompts) else scores

    async def register_prefix(self, name: str, prefix: Prompt, *, salt: int = 0, shared: bool = False) -> int:
        """Computes a prefix and keeps its KV, as :meth:`LLM.register_prefix`."""
        if not is_single_prompt(prefix):
            raise InvalidArgument("register_prefix() takes one text or one list of token ids")
        check_prefix_name(name, salt)
        check_bool("shared", shared)
        _, ids = await self._made(prefix, partial(self._prompts.read, prefix))
        taker = PrefixTaker(self.engine)
        self._queue().register_prefix(name, ids, (salt, shared), taker)
        try:
            output = await taker.wait()
        except BaseException:
            with suppress(InvalidArgument, Aborted):
                self.engine.release_prefix(name, salt)
            raise
        if output.finish != "length":
            raise InvalidArgument(output.error or f"prefix {name!r} was released while it was computed")
        self._prefixes.add(name, salt, Prefix(tuple(ids), shared))
        return len(ids)

    async def export_prefix(self, prefix: Prompt, *, salt: int = 0) -> bytes:
        """What the prefix cache has of a prefix, for another engine, as :meth:`LLM.export_prefix`; in a thread."""
        return await asyncio.to_thread(export_prefix, self.engine, self._prompts, prefix, salt)

    async def import_prefix(self, data: bytes | bytearray | memoryview | BinaryIO) -> int:
        """Puts it into the prefix cache, as :meth:`LLM.import_prefix`; in a thread."""
        return await asyncio.to_thread(import_prefix, self.engine, data)

    # Ending

    async def drain(self, timeout: float) -> list[int]:
        """Refuses requests from now on (Aborted) and waits until those that are there have ended, at most ``timeout``
        seconds. Returns the numbers of those that have not, which go on; :meth:`resume` ends it."""
        wanted = threading.Event()
        wanted.set()

        def wait() -> list[int]:
            until = time.monotonic() + timeout
            while True:
                rest = until - time.monotonic()
                left = self.engine.drain(min(max(rest, 0.0), _SLICE))
                if not left or rest <= _SLICE or not wanted.is_set():
                    return left

        try:
            return await asyncio.to_thread(wait)
        finally:
            wanted.clear()

    async def pause(self) -> None:
        """Returns when no step is under way. None begins until :meth:`resume`: requests are accepted and wait, aborts
        and deadlines end them."""
        await asyncio.to_thread(self.engine.pause)

    async def aclose(self) -> None:
        """Ends all requests and returns all memory: whoever waits for one is told by Aborted. Idempotent."""
        if self._engine is None:
            return
        await asyncio.shield(asyncio.to_thread(self.close))
        with self._loops_lock:
            queues = [queue for ref in self._loops.values() if (queue := ref()) is not None]
        for queue in queues:
            queue.leave()

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Inside

    def _queue(self) -> LoopQueue:
        """That of the event loop that runs in this thread."""
        loop = asyncio.get_running_loop()
        with self._loops_lock:
            ref = self._loops.get(loop)
        queue = ref() if ref is not None else None
        if queue is None:
            queue = LoopQueue(self.engine, loop)
            with self._loops_lock:
                self._loops[loop] = weakref.ref(queue)
        return queue

    async def _run(self, requests: Sequence[Request]) -> list[RequestOutput]:
        return await Batch(self.engine, self._queue(), requests).outputs()

    def _stream(self, texts: Any, make: Callable[[], Request], kind: OutputKind, params: object) -> AsyncStream:
        self.engine  # noqa: B018  # raises when closed, before any other complaint
        return AsyncStream(self.engine, partial(self._made, texts, make, params), self._queue, kind)

    async def _made(self, texts: Any, make: Callable[[], _T], params: object = None) -> _T:
        """What `make` makes of these texts: in a thread if they are long, since the loop would stand still. `params`:
        one for all texts or one for each; what they hold outputs to is compiled first."""
        self.engine  # noqa: B018
        for one in params if isinstance(params, Sequence) else (params,):
            wanted = getattr(one, "structured_outputs", None)
            if wanted is not None:
                await self._prompts.grammars.ready(wanted)
        if _characters(texts, _SHORT) < _SHORT:
            return make()
        return await asyncio.to_thread(make)


def _characters(texts: Any, enough: int) -> int:
    """About how many there are in prompts or conversations, counted up to `enough`."""
    if isinstance(texts, (str, bytes)):
        return len(texts)
    if isinstance(texts, Mapping):
        return _characters(list(texts.values()), enough)
    if not isinstance(texts, Iterable) or (isinstance(texts, Sequence) and texts and isinstance(texts[0], int)):
        return 1
    count = 0
    for text in texts:
        count += 1 + _characters(text, enough)
        if count >= enough:
            break
    return count
