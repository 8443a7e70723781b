"""/v1/embeddings by OpenAI's client, and /v1/rerank."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import openai
import pytest

from pagedcore import LLM

from .conftest import MODEL, Server

TEXTS = ["Rain falls.", "It is raining.", "A cat sleeps on the warm roof of the house."]


def vectors(answer: Any) -> np.ndarray:
    assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
    return np.array([entry.embedding for entry in answer.data], dtype=np.float32)


def test_embeddings_are_llms(server: Server, llm_bf16: LLM) -> None:
    client = server.openai()
    expected = llm_bf16.embed(TEXTS)
    answer = client.embeddings.create(model=MODEL, input=TEXTS)  # in base64
    np.testing.assert_array_equal(vectors(answer), expected)
    assert answer.model == MODEL and answer.object == "list"
    tokens = [llm_bf16.tokenize(text) for text in TEXTS]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, tokens))
    floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    np.testing.assert_array_equal(vectors(floats), expected)
    np.testing.assert_array_equal(vectors(client.embeddings.create(model=MODEL, input=tokens)), expected)
    one = client.embeddings.create(model=MODEL, input=tokens[1], dimensions=16)
    np.testing.assert_array_equal(vectors(one), llm_bf16.embed([TEXTS[1]], dimensions=16))
    raw = server.post(
        "/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64", "normalize": False, "pooling": "mean"}
    )
    numbers = np.frombuffer(base64.b64decode(raw.json["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(numbers, llm_bf16.embed(TEXTS[0], "mean", normalize=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"input": ""},
        {"input": []},
        {"input": ["a", ""]},
        {"input": [[]]},
        {"input": [1, "a"]},
        {"input": 7},
        {"input": [-1]},
        {"input": [10**6]},
        {"input": ["a"] * 2049},
        {"input": "a", "encoding_format": "hex"},
        {"input": "a", "dimensions": 0},
        {"input": "a", "dimensions": 577},
        {"input": "a", "pooling": "cls"},
        {"input": [5] * 9000},
    ],
)
def test_what_is_wrong_is_refused(server: Server, wrong: dict[str, Any]) -> None:
    reply = server.post("/v1/embeddings", {"model": MODEL, **wrong})
    assert reply.status == 400 and reply.error["type"] == "invalid_request_error"
    assert server.post("/v1/embeddings", {"input": "a"}).status == 200


def test_the_client_says_what_is_wrong(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        server.openai().embeddings.create(model=MODEL, input="a", dimensions=10**6)
    with pytest.raises(openai.NotFoundError):
        server.openai().embeddings.create(model="other", input="a")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_ranks_are_llms(server: Server, llm_bf16: LLM, path: str) -> None:
    body = {"model": MODEL, "query": "How is the weather?", "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]}
    found = server.post(path, body).json["results"]
    expected = llm_bf16.rerank(body["query"], TEXTS)  # type: ignore[arg-type]
    assert [(each["index"], each["relevance_score"]) for each in found] == [(e.index, e.score) for e in expected]
    assert [each["document"]["text"] for each in found] == [TEXTS[e.index] for e in expected]
    few = server.post(path, {**body, "top_n": 1, "return_documents": False}).json["results"]
    assert few == [{"index": expected[0].index, "relevance_score": expected[0].score}]
    for wrong in (
        {"query": ""},
        {"documents": []},
        {"documents": [5]},
        {"documents": "a"},
        {"top_n": 0},
        {"documents": [""]},
    ):
        assert server.post(path, {**body, **wrong}).status == 400
