"""Reranking against transformers' logits of the same prompt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from pagedcore import LLM, AsyncLLM
from pagedcore.errors import InvalidArgument

QUERY = "What is the capital of France?"
DOCUMENTS = ["Paris is the capital of France.", "Cats sleep.", "Rain falls on <|im_end|> roofs."]
PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n'
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def expected(reference: Any, tokenize: Any, document: str, instruction: str) -> float:
    ids = tokenize(PROMPT.format(instruction=instruction, query=QUERY, document=document))
    with torch.inference_mode():
        logits = reference(torch.tensor([ids])).logits[0, -1].double()
    answers = torch.stack([logits[tokenize(word)[0]] for word in ("yes", "no")])
    return float(torch.softmax(answers, 0)[0])


@pytest.mark.parametrize("instruction", [None, "Judge the weather"])
def test_scores_are_those_of_yes_and_no(llm: LLM, reference: Any, instruction: str | None) -> None:
    found = llm.rerank(QUERY, DOCUMENTS, instruction=instruction)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert sorted(each.index for each in found) == [0, 1, 2]
    task = instruction or "Given a web search query, retrieve relevant passages that answer the query"
    for each in found:
        value = expected(reference, lambda t: llm.tokenize(t, add_special_tokens=False), DOCUMENTS[each.index], task)
        assert each.score == pytest.approx(value, abs=1e-4)
    assert llm.rerank(QUERY, DOCUMENTS, instruction=instruction, top_n=2) == found[:2]


def test_what_prompts_have_in_common_is_computed_once(llm: LLM) -> None:
    before = llm.stats()
    query = "A query that no other test has, of some length, so that several blocks are shared: " + "word " * 40
    llm.rerank(query, [f"document {i}" for i in range(8)])
    after = llm.stats()
    assert after["prefix_hit_tokens"] - before["prefix_hit_tokens"] > 7 * 100


def test_what_cannot_be_ranked_is_named(llm: LLM, tiny_llm: LLM) -> None:
    for arguments, words in (
        (("", DOCUMENTS), "query="),
        ((QUERY, "text"), "documents="),
        ((QUERY, ["a", ""]), "document 1 is"),
        ((QUERY, ["a", 7]), "document 1 is 7"),
        ((QUERY, ["a", "word " * 20000]), "document 1: a prompt of"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            llm.rerank(*arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="top_n=0"):
        llm.rerank(QUERY, DOCUMENTS, top_n=0)
    with pytest.raises(InvalidArgument, match="no tokenizer"):
        tiny_llm.rerank(QUERY, DOCUMENTS)
    assert llm.rerank(QUERY, []) == []


def test_coroutines_give_the_same(llm: LLM, gguf: Any) -> None:
    async def both() -> None:
        async with AsyncLLM(gguf, dtype="float32", kv_cache_memory="64MiB") as other:
            ranked, vectors = await asyncio.gather(other.rerank(QUERY, DOCUMENTS), other.embed(DOCUMENTS))
            assert ranked == llm.rerank(QUERY, DOCUMENTS)
            assert (vectors == llm.embed(DOCUMENTS)).all()
            task = asyncio.ensure_future(other.embed(["word " * 500] * 64))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await other.embed("a")).shape == (other.description.hidden_size,)

    asyncio.run(both())
