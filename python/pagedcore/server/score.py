"""/v1/score: how likely the model finds texts after a text, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from ..async_llm import AsyncLLM
from ..outputs import Score
from .call import Call
from .errors import ApiError
from .fields import wrong
from .http import Json, in_thread_if, unless_left
from .openai.common import Head, usage_of
from .sampling import request_options

__all__ = ["score"]

_IN_A_THREAD = 4096  # characters


async def score(call: Call) -> Response:
    """Of each of ``text_2``, given ``text_1``: one for all, or one for each. ``score`` is the sum of the
    log-probabilities of its tokens, which ``logprobs`` lists."""
    fields, llm = call.fields, call.llm
    head = Head.new("score", call.model(), call.state.fingerprint)
    befores, texts = _texts(call, "text_1"), _texts(call, "text_2")
    if len(befores) == 1:
        befores *= len(texts)
    if len(befores) != len(texts):
        message = f"text_1 has {len(befores)} texts and text_2 has {len(texts)}: give one, or one for each"
        raise ApiError(400, message, param="text_1")
    pairs = list(zip(befores, texts, strict=True))
    size = sum(len(before) + len(text) for before, text in pairs)
    encoded = await unless_left(call.request, in_thread_if(size > _IN_A_THREAD, partial(_encoded, llm, pairs)))
    whole, starts = [ids for ids, _ in encoded], [start for _, start in encoded]
    options: Any = {**request_options(fields), **call.keywords()}
    scores: list[Score] = await unless_left(call.request, llm.score(whole, start=starts, **options))
    call.tally.prompt_tokens = sum(map(len, whole))
    data = [
        {"index": at, "object": "score", "score": found.logprob, "logprobs": found.logprobs, "tokens": ids[start:]}
        for at, (found, ids, start) in enumerate(zip(scores, whole, starts, strict=True))
    ]
    values = head.of("list", [], data=data, usage=usage_of(call.tally))
    del values["choices"]
    return Json(values)


def _encoded(llm: AsyncLLM, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """Both texts as one, and the number of tokens of the first."""
    found = []
    for before, text in pairs:
        prompt = llm.tokenize(before)
        ids = llm.tokenize(before + text)
        if ids[: len(prompt)] != prompt:  # the border lies within a token: each side is encoded by itself
            ids = prompt + llm.tokenize(text, add_special_tokens=False)
        if len(ids) == len(prompt):
            raise ApiError(400, "text_2 holds a text without tokens", param="text_2")
        found.append((ids, len(prompt)))
    return found


def _texts(call: Call, name: str) -> list[str]:
    given = call.fields.required(name)
    texts = [given] if isinstance(given, str) else call.fields.listed(name)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise wrong(name, given, "a text or a list of texts")
    return texts
