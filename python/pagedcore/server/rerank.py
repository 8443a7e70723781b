"""/v1/rerank, in the shape that Cohere, Jina and vLLM have."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from .call import Call
from .errors import ApiError
from .fields import wrong
from .http import Json, unless_left
from .openai.common import Head
from .sampling import request_options

__all__ = ["rerank"]


async def rerank(call: Call) -> Response:
    """Which of ``documents`` answer ``query``: ``top_n`` of them or all, the best first."""
    fields, llm = call.fields, call.llm
    head = Head.new("rerank", call.model(), call.state.fingerprint)
    fields.refuse({"truncate_prompt_tokens": "shorten the text", "max_tokens_per_doc": "shorten the documents"})
    fields.required("query")
    query, documents = fields.text("query", most=None), _documents(call)
    instruction, top_n = fields.text("instruction"), fields.integer("top_n", 1)
    with_texts = fields.flag("return_documents", True)
    options: Any = {**request_options(fields), **call.keywords()}
    work = llm.rerank(query or "", documents, instruction=instruction, top_n=top_n, **options)
    found = await unless_left(call.request, work)
    results = [
        {
            "index": each.index,
            **({"document": {"text": documents[each.index]}} if with_texts else {}),
            "relevance_score": each.score,
        }
        for each in found
    ]
    return Json({"id": head.id, "model": head.model, "results": results})


def _documents(call: Call) -> list[str]:
    call.fields.required("documents")
    given = call.fields.listed("documents")
    if not given:
        raise ApiError(400, "documents is empty: there is nothing to rank", param="documents")
    found = [entry.get("text") if isinstance(entry, dict) else entry for entry in given]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) != len(found):
        raise wrong("documents", given, "a list of texts, or of objects with a text")
    return texts
