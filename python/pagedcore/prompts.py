"""Checks prompts and parameters against the model, and turns them into requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import _core
from .beam_search_params import BeamSearchParams
from .errors import InvalidArgument
from .request import Request, derived_seed
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

__all__ = ["Prompt", "PromptReader", "is_single_prompt"]

Prompt = str | Sequence[int]
_EARLY_STOPPING: dict[bool | str, Literal["heuristic", "immediate", "never"]] = {
    False: "heuristic",
    True: "immediate",
    "never": "never",
}
_P = TypeVar("_P", SamplingParams, BeamSearchParams)


def is_single_prompt(prompts: object) -> bool:
    """A text, or a non-empty list of integers, rather than a list of prompts."""
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, Sequence) and len(prompts) > 0 and isinstance(prompts[0], int)


class PromptReader:
    def __init__(
        self,
        plan: _core.MemoryPlan,
        description: _core.ModelDescription,
        tokenizer: Tokenizer | None,
        eos_token_ids: Sequence[int],
    ) -> None:
        self.max_context = plan.max_context or description.max_context
        self._why_no_more = ""
        if self.max_context == plan.kv_tokens and self.max_context < description.max_context:
            self._why_no_more = " (all that the KV cache holds; kv_cache_memory or num_blocks makes it larger)"
        self._vocab_size = description.vocab_size
        # The last token of a sequence needs no KV: nothing attends to it.
        self._kv_tokens = max(plan.kv_tokens, plan.max_context) + 1
        self._tokenizer = tokenizer
        self._eos = tuple(eos_token_ids)

    def pair(
        self, prompts: Prompt | Sequence[Prompt], params: _P | Sequence[_P] | None, kind: type[_P]
    ) -> list[tuple[Prompt, _P]]:
        """Each prompt with its parameters."""
        many: Sequence[Any] = [prompts] if is_single_prompt(prompts) else prompts
        if isinstance(many, (bytes, Mapping)) or not isinstance(many, Sequence):
            found = type(many).__name__
            raise InvalidArgument(f"prompts are a text, a list of token ids, or a list of such, not {found}")
        if params is None:
            params = kind()
        if isinstance(params, kind):
            return [(prompt, params) for prompt in many]
        if not isinstance(params, Sequence) or not all(isinstance(p, kind) for p in params):
            wrong = params if not isinstance(params, Sequence) else next(p for p in params if not isinstance(p, kind))
            other = {
                SamplingParams: ": beam_search() takes BeamSearchParams, generate() samples",
                BeamSearchParams: ": use beam_search()",
            }.get(type(wrong), "")
            raise InvalidArgument(
                f"parameters must be a {kind.__name__}, or a list with one for each prompt, not {type(wrong).__name__}"
                + other
            )
        if len(params) != len(many):
            raise InvalidArgument(f"{len(params)} parameters for {len(many)} prompts: give one, or one for each")
        return list(zip(many, params, strict=True))

    def request(
        self,
        prompt: Prompt,
        params: SamplingParams,
        seed: tuple[int, int],
        *,
        templated: bool,
        prefix: Sequence[int] = (),
    ) -> Request:
        """``seed``: the LLM's and the number of the request. ``templated``: the text holds its special tokens.
        ``prefix``: tokens that come before the prompt."""
        text, ids = self.read(prompt, templated=templated, prefix=prefix)
        room = self._room(ids, params.max_tokens)
        if params.stop and self._tokenizer is None:
            raise InvalidArgument("stop strings need a tokenizer, and the model has none: pass tokenizer=")
        most = room if params.max_tokens is not None else min(room, self._kv_tokens - len(ids))
        if most < params.min_tokens:
            raise InvalidArgument(f"min_tokens={params.min_tokens}, but a prompt of {len(ids)} tokens leaves {most}")
        native = self._native(params, max(most, 1) if params.max_tokens is None else min(params.max_tokens, most))
        native.seed = derived_seed(*seed) if params.seed is None else params.seed % 2**64
        _core.validate(native, self._vocab_size)
        return Request(text, ids, params, native, self._tokenizer)

    def beam_search(self, prompt: Prompt, params: BeamSearchParams, *, prefix: Sequence[int] = ()) -> Request:
        text, ids = self.read(prompt, prefix=prefix)
        n = params.beam_width if params.n is None else params.n
        native = _core.BeamSearchParams(
            beam_width=params.beam_width,
            n=n,
            max_tokens=min(params.max_tokens, self._room(ids, params.max_tokens)),
            length_penalty=params.length_penalty,
            early_stopping=_EARLY_STOPPING[params.early_stopping],
            stop_token_ids=self._stop_token_ids(params),
        )
        form = SamplingParams(
            n=n,
            stop_token_ids=params.stop_token_ids,
            skip_special_tokens=params.skip_special_tokens,
            detokenize=params.detokenize,
        )
        return Request(text, ids, form, native, self._tokenizer)

    def read(
        self, prompt: Prompt, *, templated: bool = False, prefix: Sequence[int] = ()
    ) -> tuple[str | None, list[int]]:
        """The text, if it is one, and all token ids. What continues a prefix has no special tokens at its beginning."""
        text = prompt if isinstance(prompt, str) else None
        ids = self._encode(text, templated or bool(prefix)) if text is not None else self._check_ids(prompt)
        ids = [*prefix, *ids]
        if not ids:
            raise InvalidArgument("a prompt must have at least one token")
        return text, ids

    def _room(self, ids: Sequence[int], max_tokens: int | None) -> int:
        """Tokens that a context has left for output."""
        room = self.max_context - len(ids)
        if room < 0 or (room == 0 and max_tokens != 0):
            raise InvalidArgument(
                f"a prompt of {len(ids)} tokens leaves no room in a context of {self.max_context} tokens"
                f"{self._why_no_more}: shorten it"
            )
        return room

    def _stop_token_ids(self, params: SamplingParams | BeamSearchParams) -> list[int]:
        return list(dict.fromkeys((*params.stop_token_ids, *(() if params.ignore_eos else self._eos))))

    def _encode(self, text: str, templated: bool) -> list[int]:
        if self._tokenizer is None:
            raise InvalidArgument("the model has no tokenizer: pass token ids, or tokenizer= to the constructor")
        return self._tokenizer.encode(text, add_special_tokens=not templated)

    def _check_ids(self, prompt: object) -> list[int]:
        if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Iterable):
            raise InvalidArgument(f"a prompt is a text or a list of token ids, not {type(prompt).__name__}")
        ids = list(prompt)
        for position, token in enumerate(ids):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self._vocab_size:
                raise InvalidArgument(
                    f"token {position} of the prompt is {token!r}: ids are integers in [0, {self._vocab_size})"
                )
        return ids

    def _native(self, params: SamplingParams, max_tokens: int) -> _core.SamplingParams:
        if params.allowed_token_ids is not None and not params.allowed_token_ids:
            raise InvalidArgument("allowed_token_ids is empty: nothing could be generated (None allows all)")
        return _core.SamplingParams(
            n=params.num_samples,
            max_tokens=max_tokens,
            min_tokens=min(params.min_tokens, max_tokens),
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            logit_bias=list((params.logit_bias or {}).items()),
            banned_tokens=list(params.banned_tokens),
            allowed_token_ids=list(params.allowed_token_ids or ()),
            stop_token_ids=self._stop_token_ids(params),
            logprobs=0 if params.ranks and params.logprobs is None else params.logprobs,
            prompt_logprobs=params.prompt_logprobs,
        )
