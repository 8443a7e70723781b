"""Checks prompts and parameters against the model, and turns them into requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from . import _core
from .arguments import shown
from .beam_search_params import BeamSearchParams
from .embedding import FORM, EmbeddingRequest
from .errors import InvalidArgument
from .grammar import Grammars
from .history import ChatPrompt
from .prefixes import NO_PREFIX, Prefix
from .request import Request, derived_seed
from .sampling_params import NO_LIMIT, SamplingParams
from .structured_outputs import StructuredOutputs

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

__all__ = ["Prompt", "PromptReader", "is_single_prompt"]

Prompt = str | Sequence[int] | Mapping[str, str | Sequence[int]]
"""A text, token ids (a numpy array too), or a mapping with a text under ``prompt`` or token ids under
``prompt_token_ids``; with both the ids are what is computed."""

_P = TypeVar("_P", SamplingParams, BeamSearchParams)
_KEYS = ("prompt", "prompt_token_ids")


def _is_ids(prompt: object) -> bool:
    dimensions = getattr(prompt, "ndim", None)
    if dimensions is not None:
        return bool(dimensions == 1)
    return isinstance(prompt, Sequence) and len(prompt) > 0 and isinstance(prompt[0], int)


def is_single_prompt(prompts: object) -> bool:
    """A text, a non-empty list of integers or a mapping with one of them, rather than a list of prompts."""
    return isinstance(prompts, (str, Mapping)) or _is_ids(prompts)


def _unwrapped(prompt: object) -> tuple[str | None, object]:
    """The text, where there is one, and what to compute: of a mapping the token ids, else the text; anything else as
    it is."""
    if not isinstance(prompt, Mapping):
        return prompt if isinstance(prompt, str) else None, prompt
    given = {key: value for key, value in prompt.items() if value is not None}
    if not given or not set(given) <= set(_KEYS):
        raise InvalidArgument(
            f"a prompt that is a mapping has {_KEYS[0]!r}, a text, or {_KEYS[1]!r}, token ids, "
            f"not {', '.join(map(repr, given)) or 'nothing'}"
        )
    for key, value in given.items():
        if isinstance(value, str) != (key == "prompt"):
            raise InvalidArgument(
                f"{key!r} holds a {type(value).__name__}: 'prompt' is a text, 'prompt_token_ids' are ids"
            )
    return given.get("prompt"), given.get("prompt_token_ids", given.get("prompt"))


class PromptReader:
    def __init__(
        self,
        plan: _core.MemoryPlan,
        description: _core.ModelDescription,
        tokenizer: Tokenizer | None,
        eos_token_ids: Sequence[int],
        *,
        clock: float = 0.0,
    ) -> None:
        """``clock``: what this process's monotonic clock showed when the engine's began."""
        self._clock = clock
        self.max_context = plan.max_context or description.max_context
        self._why_no_more = ""
        if self.max_context == plan.kv_tokens and self.max_context < description.max_context:
            self._why_no_more = " (all that the KV cache holds; kv_cache_memory or num_blocks makes it larger)"
        self._vocab_size = description.vocab_size
        # The last token of a sequence needs no KV: nothing attends to it.
        self._kv_tokens = max(plan.kv_tokens, plan.max_context) + 1
        self._tokenizer = tokenizer
        self._eos = tuple(eos_token_ids)
        self.grammars = Grammars(tokenizer, description.vocab_size, eos_token_ids)

    def pair(
        self, prompts: Prompt | Sequence[Prompt], params: _P | Sequence[_P] | None, kind: type[_P]
    ) -> list[tuple[Prompt, _P]]:
        """Each prompt with its parameters."""
        many: Any = [prompts] if is_single_prompt(prompts) else prompts
        if isinstance(many, bytes) or not (isinstance(many, Sequence) or getattr(many, "ndim", None)):
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
        options: _core.RequestOptions,
        seed: tuple[int, int],
        *,
        templated: bool,
        prefix: Prefix = NO_PREFIX,
    ) -> Request:
        """``seed``: the LLM's and the number of the request. ``templated``: the text holds its special tokens.
        ``prefix``: its tokens come before the prompt."""
        text, ids = self.read(prompt, templated=templated, prefix=prefix.tokens)
        room = self._room(ids, params.max_tokens)
        if params.stop and self._tokenizer is None:
            raise InvalidArgument("stop strings need a tokenizer, and the model has none: pass tokenizer=")
        most = room if params.max_tokens is not None else min(room, self._kv_tokens - len(ids))
        if most < params.min_tokens:
            raise InvalidArgument(f"min_tokens={params.min_tokens}, but a prompt of {len(ids)} tokens leaves {most}")
        if params.allowed_token_ids is not None and not params.allowed_token_ids:
            raise InvalidArgument("allowed_token_ids is empty: nothing could be generated (None allows all)")
        max_tokens = None if params.max_tokens is None else min(params.max_tokens, most)
        native = params.native(
            n=params.num_samples,
            max_tokens=NO_LIMIT if max_tokens is None else max_tokens,
            min_tokens=params.min_tokens if max_tokens is None else min(params.min_tokens, max_tokens),
            stop_token_ids=self._stop_token_ids(params),
            logprobs=0 if params.ranks and params.logprobs is None else params.logprobs,
            seed=derived_seed(*seed) if params.seed is None else params.seed % 2**64,
            prompt_logprob_start=params.prompt_logprob_start + (params.prompt_logprobs is not None) * prefix.hidden,
        )
        constraint = self._constraint(params.structured_outputs)
        return Request(text, ids, params, native, options, self._tokenizer, constraint, prefix.hidden, self._clock)

    def beam_search(
        self, prompt: Prompt, params: BeamSearchParams, options: _core.RequestOptions, *, prefix: Prefix = NO_PREFIX
    ) -> Request:
        text, ids = self.read(prompt, prefix=prefix.tokens)
        n = params.beam_width if params.n is None else params.n
        native = params.native(
            max_tokens=min(params.max_tokens, self._room(ids, params.max_tokens)),
            stop_token_ids=self._stop_token_ids(params),
        )
        form = SamplingParams(
            n=n,
            stop_token_ids=params.stop_token_ids,
            skip_special_tokens=params.skip_special_tokens,
            detokenize=params.detokenize,
        )
        constraint = self._constraint(params.structured_outputs)
        return Request(text, ids, form, native, options, self._tokenizer, constraint, prefix.hidden, self._clock)

    def _constraint(self, wanted: object) -> _core.Constraint | None:
        return self.grammars.constraint(wanted) if isinstance(wanted, StructuredOutputs) else None

    def embedding(
        self, prompt: Prompt, params: _core.EmbeddingParams, options: _core.RequestOptions, prefix: Prefix = NO_PREFIX
    ) -> EmbeddingRequest:
        text, ids = self.read(prompt, prefix=prefix.tokens)
        if text == "":
            raise InvalidArgument("the text is empty: there is nothing to embed")
        if len(ids) > self.max_context:
            raise InvalidArgument(
                f"a text of {len(ids)} tokens is too long to embed: the model takes at most {self.max_context}"
                f"{self._why_no_more}; shorten it"
            )
        return EmbeddingRequest(text, ids, FORM, params, options, self._tokenizer, None, prefix.hidden, self._clock)

    def read(
        self, prompt: Prompt, *, templated: bool = False, prefix: Sequence[int] = ()
    ) -> tuple[str | None, list[int]]:
        """The text, if it is one, and all token ids. What continues a prefix has no special tokens at its beginning."""
        text, given = _unwrapped(prompt)
        if isinstance(given, ChatPrompt):
            text, ids = str(given), self._check_ids(self._encode_pieces(given, bool(prefix)))
        elif isinstance(given, str):
            ids = self._encode(given, templated, bool(prefix))
        else:
            ids = self._check_ids(given)
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
                f"{self._why_no_more}: shorten it, or raise max_context where the model allows"
            )
        return room

    def _stop_token_ids(self, params: SamplingParams | BeamSearchParams) -> list[int]:
        return list(dict.fromkeys((*params.stop_token_ids, *(() if params.ignore_eos else self._eos))))

    def _encode(self, text: str, templated: bool, continues: bool) -> list[int]:
        """Refuses what cannot fit before it is encoded, and stops encoding what turns out not to."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise InvalidArgument("the model has no tokenizer: pass token ids, or tokenizer= to the constructor")
        least = tokenizer.least_tokens(text)
        ids = []
        if least <= self.max_context:
            add = not (templated or continues)
            ids = tokenizer.encode(text, add_special_tokens=add, continues=continues, at_most=self.max_context)
        if max(least, len(ids)) > self.max_context:
            raise InvalidArgument(
                f"a text of {len(text)} characters has at least {max(least, len(ids))} tokens, which leaves no room in "
                f"a context of {self.max_context} tokens{self._why_no_more}: shorten it, or raise max_context where "
                "the model allows"
            )
        return ids

    def _encode_pieces(self, prompt: ChatPrompt, continues: bool) -> list[int]:
        ids: list[int] = []
        for piece in prompt.pieces:
            ids += self._encode(piece, True, continues or bool(ids)) if isinstance(piece, str) else piece
        return ids

    def _check_ids(self, prompt: object) -> list[int]:
        given = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if isinstance(given, bytes) or not isinstance(given, Iterable):
            raise InvalidArgument(f"a prompt is a text or a list of token ids, not {type(prompt).__name__}")
        ids = list(given)
        if not ids:
            return []
        kinds = set(map(type, ids))
        if kinds != {int}:  # numpy's integers are fine in a list; bools are none
            if bool in kinds or not all(hasattr(kind, "__index__") for kind in kinds):
                self._refuse(ids)
            ids = [int(token) for token in ids]
        if min(ids) < 0 or max(ids) >= self._vocab_size:
            self._refuse(ids)
        return ids

    def _refuse(self, ids: list[object]) -> None:
        for position, token in enumerate(ids):
            if isinstance(token, bool) or not hasattr(token, "__index__") or not 0 <= token < self._vocab_size:  # type: ignore[operator]
                raise InvalidArgument(
                    f"token {position} of the prompt is {shown(token)}: ids are integers in [0, {self._vocab_size})"
                )
        raise InvalidArgument(f"a prompt is a flat list of token ids in [0, {self._vocab_size})")
