"""/v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ...async_llm import AsyncLLM
from ..call import Call
from ..errors import ApiError
from ..fields import are_token_ids, wrong
from ..http import Json, in_thread_if, unless_left
from ..sampling import request_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["embeddings"]

_IN_A_THREAD = 4096  # characters, or numbers of an answer


async def embeddings(call: Call) -> Response:
    """Of each text, or each list of token ids, of ``input``. ``encoding_format`` base64, which the official client asks
    for: the numbers as little-endian f32."""
    model, fields, llm = call.model(), call.fields, call.llm
    fields.refuse({"truncate_prompt_tokens": "shorten the text"})
    inputs = _inputs(call)
    as_base64 = fields.choice("encoding_format", ("float", "base64"), "float") == "base64"
    pooling = fields.choice("pooling", ("auto", "last", "mean", "cls"), "auto")
    dimensions, normalize = fields.integer("dimensions", 1), fields.flag("normalize", True)
    size = sum(map(len, inputs))
    ids = await unless_left(call.request, in_thread_if(size > _IN_A_THREAD, partial(_encoded, llm, inputs)))
    call.tally.prompt_tokens = sum(map(len, ids))
    options: Any = {**request_options(fields), **call.keywords()}
    found = await unless_left(call.request, llm.embed(ids, pooling, normalize, dimensions, **options))  # type: ignore[arg-type]
    written = await in_thread_if(found.size > _IN_A_THREAD, partial(_written, found, as_base64))
    data = [{"object": "embedding", "index": at, "embedding": numbers} for at, numbers in enumerate(written)]
    used = call.tally.prompt_tokens
    return Json(
        {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": used, "total_tokens": used}}
    )


def _inputs(call: Call) -> list[str | list[int]]:
    given = call.fields.required("input")
    if isinstance(given, str):
        return [_checked(given)]
    listed = call.fields.raw("input")
    if isinstance(listed, list) and listed and are_token_ids(listed):
        return [_checked(listed)]
    inputs = call.fields.listed("input")
    texts = all(isinstance(entry, str) for entry in inputs)
    if not inputs or not (texts or all(isinstance(entry, list) and are_token_ids(entry) for entry in inputs)):
        raise wrong("input", given, "a text, a list of texts, a list of token ids or a list of such lists")
    return [_checked(entry, index) for index, entry in enumerate(inputs)]


def _checked(entry: str | list[int], index: int | None = None) -> str | list[int]:
    if not entry:
        name = "input" if index is None else f"input[{index}]"
        raise ApiError(400, f"{name} is empty: there is nothing to embed", param="input")
    return entry


def _encoded(llm: AsyncLLM, inputs: Sequence[str | list[int]]) -> list[list[int]]:
    return [llm.tokenize(entry) if isinstance(entry, str) else entry for entry in inputs]


def _written(found: NDArray[np.float32], as_base64: bool) -> list[Any]:
    if not as_base64:
        return list(found.tolist())
    little = found.astype("<f4", copy=False)
    return [base64.b64encode(row.tobytes()).decode() for row in little]
