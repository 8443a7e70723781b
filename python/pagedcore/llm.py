"""Text generation in one object."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, overload

from . import _core
from .beam_search_params import BeamSearchParams
from .chat import Message
from .checks import check_bool
from .dispatch import Dispatcher
from .embedding import Pooling, embedding_params, stacked
from .engine_options import with_request_options, with_template_options
from .errors import Aborted, InvalidArgument
from .loaded_model import LoadedModel, Params
from .outputs import RequestOutput, Score
from .prefixes import Prefix
from .progress import chosen_progress
from .prompts import Prompt, is_single_prompt
from .request import Request, check_prefix_name
from .reranking import Relevance
from .running import run_all
from .sampling_params import SamplingParams
from .stream import Stream
from .transfer import export_prefix, import_prefix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ._options import RequestOptions
    from .chat import TemplateOptions

    class ChatOptions(TemplateOptions, RequestOptions, total=False):
        """Of a conversation that is served."""


__all__ = ["LLM"]


class LLM(LoadedModel):
    """A model, its tokenizer and an engine that serves them. Safe to use from several threads at once.
    All native memory is returned by :meth:`close`, by leaving a ``with`` block, or when the object goes.
    """

    def _opened(self, engine: _core.Engine) -> None:
        self._dispatcher = Dispatcher(engine)

    # Generating

    @with_request_options
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        *,
        progress: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[RequestOutput]:
        """One output per prompt, in order. A prompt is a text, a list of token ids, or a mapping that holds one of them
        as ``prompt`` or ``prompt_token_ids``; parameters are for all prompts, or one for each.

        ``options``: ``prefix``, the name of a prefix, registered under the same salt or shared, that the prompts
        continue (:meth:`register_prefix`); ``salt``: requests with different salts never share cached KV, but for a
        shared prefix that both name; ``priority`` and
        ``tenant``: who is served first, where the LLM's ``order`` looks at that. ``progress`` None: a bar on stderr if
        that is a terminal; ``use_tqdm`` is another name.

        Everything is checked before anything runs: invalid input raises and nothing is lost. What goes wrong with one
        request while it runs is told in its output (``finish_reason`` "error" and ``error``); the others go on.
        Ctrl-C ends the requests of this call and leaves the engine usable.
        """
        progress = chosen_progress(progress, options)
        return self._run(self._sampled(prompts, sampling_params, options), progress)

    @with_template_options
    @with_request_options
    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Params = None,
        *,
        progress: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[RequestOutput]:
        """Like :meth:`generate` for one conversation, or several: lists of messages with a role and content. With
        ``prefix`` the conversation's text continues that prefix. A message of the assistant may carry the ``token_ids``
        of its output: they are used where they spell its content and the template shows that as it is. How it becomes
        a prompt: :meth:`chat_prompt`."""
        progress = chosen_progress(progress, options)
        return self._run(self._answers(messages, sampling_params, options), progress)

    @with_request_options
    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """An iterator over the news of one request, which runs at once. Close it early to end the request. Several
        streams may run at a time, in one thread or many."""
        return Stream(self._dispatcher, self._sampled_stream(prompt, sampling_params, options))

    @with_template_options
    @with_request_options
    def stream_chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream:
        """Like :meth:`stream` for a conversation; the other keywords are those of :meth:`chat_prompt`."""
        return Stream(self._dispatcher, self._answer_stream(messages, sampling_params, options))

    @with_request_options
    def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | Sequence[BeamSearchParams] | None = None,
        *,
        progress: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[RequestOutput]:
        """One output per prompt, in order, with the best hypotheses as its ``outputs``, best first, each with its
        ``score``. Runs beside whatever else this LLM does, like :meth:`generate`."""
        progress = chosen_progress(progress, options)
        return self._run(self._beam_searches(prompts, params, options), progress)

    @with_request_options
    def stream_beam_search(
        self,
        prompt: Prompt,
        params: BeamSearchParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """Like :meth:`stream`: first the tokens of the best hypothesis as soon as they can no longer change, then what
        is missing of it, and every other hypothesis as a whole."""
        return Stream(self._dispatcher, self._beam_search_stream(prompt, params, options))

    @with_request_options
    def embed(
        self,
        texts: Prompt | Sequence[Prompt],
        pooling: Pooling = "auto",
        normalize: bool = True,
        dimensions: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> NDArray[np.float32]:
        """What the model makes of each text (or token ids): an array [texts, dimensions], of a single text
        [dimensions].

        ``pooling``: which rows of a text count, that of the "last" token, the "mean" of all, that of the first ("cls"),
        or what the model was trained with ("auto": as its modules.json says; else "mean" for encoders, "last" for
        decoders). ``normalize``: to length 1. ``dimensions``: how many numbers are kept, the first ones, of a model
        that was trained for that. Numbers depend on their text alone, to the last bit, not on the others nor on
        threads. A text longer than the model takes is refused, as is an empty one; no text is cut."""
        params = embedding_params(pooling, normalize, dimensions)
        requests = self._embeddings(texts, params, options)
        self._run(requests, progress=False)
        vectors = stacked(requests)
        return vectors[0] if is_single_prompt(texts) else vectors

    @with_request_options
    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        top_n: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Relevance]:
        """Which of the documents answer the query: ``top_n`` of them or all, the best first, by a decoder that was
        trained to judge, as Qwen3-Reranker was, or by a cross-encoder. ``instruction``: what a decoder judges by; None:
        what it was trained with. What the prompts of a decoder have in common, the query included, is computed once."""
        judge, requests = self._judged(query, documents, {"instruction": instruction, "top_n": top_n}, options)
        return judge.ranked(self._run(requests, progress=False))

    @overload
    def score(self, prompts: str, *, start: int = 0, **options: Unpack[RequestOptions]) -> Score: ...  # type: ignore[overload-overlap]  # a str is a Sequence[str]
    @overload
    def score(self, prompts: Sequence[int], *, start: int = 0, **options: Unpack[RequestOptions]) -> Score: ...
    @overload
    def score(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        *,
        start: int | Sequence[int] = 0,
        **options: Unpack[RequestOptions],
    ) -> list[Score]: ...
    @with_request_options
    def score(
        self, prompts: Prompt | Sequence[Prompt], *, start: int | Sequence[int] = 0, **options: Unpack[RequestOptions]
    ) -> Score | list[Score]:
        """Log-likelihood of a text (or token ids), in total and token by token; a list of them gives a list. A prefix's
        tokens count too, but for a shared one's, which are not shown. ``start``: the first token that is scored, one
        for all texts or one for each; those before it may come from the prefix cache. What texts of one call have in
        common is computed once."""
        scoring, requests = self._scoring(prompts, start, options)
        scores = scoring.scores(self._run(requests, progress=False))
        return scores[0] if is_single_prompt(prompts) else scores

    # Shared prefixes

    def register_prefix(self, name: str, prefix: Prompt, *, salt: int = 0, shared: bool = False) -> int:
        """Computes a prefix and keeps its KV in memory until :meth:`release_prefix`: requests that name it compute only
        what comes behind, with prefix caching or without, and whatever else happens to the cache. Returns its number
        of tokens. A text is encoded as a prompt is, with the special tokens at its beginning.

        It belongs to its ``salt``: under any other the name is unknown, or that salt's own. ``shared``: usable under
        every salt, and its tokens are shown to none: ``prompt_token_ids``, ``prompt_logprobs`` and scores begin behind
        it."""
        if not is_single_prompt(prefix):
            raise InvalidArgument("register_prefix() takes one text or one list of token ids")
        check_prefix_name(name, salt)
        check_bool("shared", shared)
        _, ids = self._prompts.read(prefix)
        inbox = self._dispatcher.inbox()
        request = self._dispatcher.register_prefix(name, ids, salt, shared, inbox)
        try:
            news = self._dispatcher.next(inbox)
        except BaseException:  # Ctrl-C
            with suppress(InvalidArgument, Aborted):
                self.engine.release_prefix(name, salt)
            self._dispatcher.abort_and_drain([request], inbox)
            raise
        if news.finish != "length":
            raise InvalidArgument(news.error or f"prefix {name!r} was released while it was computed")
        self._prefixes.add(name, salt, Prefix(tuple(ids), shared))
        self._dispatcher.kept(inbox)
        return len(ids)

    def export_prefix(self, prefix: Prompt, *, salt: int = 0) -> bytes:
        """The KV of a text's (or token ids') leading full blocks that are in the prefix cache under this salt, for
        another engine's :meth:`import_prefix`, in another process too. Needs ``LLM(kv_transfer=True)`` or a
        ``kv_store``. Raises InvalidArgument when the cache has none of it: compute it first, by a request (with
        ``max_tokens=0``, say) or as a registered prefix."""
        return export_prefix(self.engine, self._prompts, prefix, salt)

    def import_prefix(self, data: bytes | bytearray | memoryview | BinaryIO) -> int:
        """Puts what :meth:`export_prefix` gave, as bytes or in a file that is open for reading, into the prefix cache,
        under the salt that it was exported under. Returns how many leading tokens are there now: fewer than were
        exported where memory is short. Outputs are the same bits as without it. Raises Corrupt for damaged bytes and
        InvalidArgument for those of another model, other options, another version or another instruction set."""
        return import_prefix(self.engine, data)

    # Closing

    def drain(self, timeout: float) -> list[int]:
        """Refuses requests from now on (Aborted) and waits until those that are there, in other threads, have ended, at
        most ``timeout`` seconds. Returns the numbers of those that have not, which go on; :meth:`resume` ends it."""
        return self.engine.drain(timeout)

    def pause(self) -> None:
        """Returns when no step is under way. None begins until :meth:`resume`: requests are accepted and wait, aborts
        and deadlines end them."""
        self.engine.pause()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, requests: Sequence[Request], progress: bool | None) -> list[RequestOutput]:
        return run_all(self._dispatcher, requests, progress)
