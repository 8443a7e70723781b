"""Which documents answer a query. A decoder that was trained to judge, as Qwen3-Reranker was, says yes or no after it
has read both: what all its prompts begin with, the query included, is computed once and taken from the prefix cache. A
cross-encoder reads the pair at once and gives it a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _core
from .arguments import shown
from .checks import check_int
from .errors import Aborted, InvalidArgument
from .families import has_segments
from .outputs import RequestOutput
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from .embedding import EmbeddingRequest
    from .tokenizer import Tokenizer

__all__ = ["INSTRUCTION", "Judge", "Pairs", "Relevance"]

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
# The prompt that these models were trained with: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_NEEDED = ("<|im_start|>", "<|im_end|>", "yes", "no")


@dataclass(frozen=True)
class Relevance:
    """Of a document to a query."""

    index: int
    """Of the document, as they were given."""
    score: float
    """In [0, 1]: how likely it is that the document answers the query; of a cross-encoder, the sigmoid of its logit."""


def _check(query: Any, documents: Any, instruction: Any, top_n: Any) -> None:
    for name, text in (("query", query), ("instruction", instruction)):
        if not (isinstance(text, str) and text) and (name == "query" or text is not None):
            raise InvalidArgument(f"{name}={shown(text)} must be a text that is not empty")
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        raise InvalidArgument(f"documents={shown(documents)} must be a list of texts")
    for index, document in enumerate(documents):
        if not isinstance(document, str) or not document:
            raise InvalidArgument(f"document {index} is {shown(document)}: it must be a text that is not empty")
    if top_n is not None:
        check_int("top_n", top_n, 1, 2**31 - 1)


class Judge:
    """The prompts of one call, and what their answers say."""

    def __init__(
        self, tokenizer: Tokenizer, query: Any, documents: Any, instruction: Any = None, top_n: Any = None
    ) -> None:
        _check(query, documents, instruction, top_n)
        missing = [spelling for spelling in _NEEDED if tokenizer.token_to_id(spelling) is None]
        if missing:
            raise InvalidArgument(
                f"the model cannot rerank: its vocabulary has no {' and no '.join(map(repr, missing))}, with which "
                "models such as Qwen3-Reranker are asked and answer"
            )
        self._top_n = top_n
        yes, no = (tokenizer.token_to_id(answer) for answer in ("yes", "no"))
        assert yes is not None and no is not None
        self._yes, self._no = yes, no
        before = tokenizer.encode(_BEFORE, add_special_tokens=False)
        after = tokenizer.encode(_AFTER, add_special_tokens=False)
        asked = f"<Instruct>: {instruction or INSTRUCTION}\n<Query>: {query}\n<Document>: "
        texts = [tokenizer.encode(asked + document, add_special_tokens=False) for document in documents]
        self.prompts = [[*before, *text, *after] for text in texts]
        self.params = SamplingParams(
            max_tokens=1, temperature=0.0, logprobs=0, logprob_token_ids=(yes, no), ignore_eos=True, detokenize=False
        )

    def ranked(self, outputs: Sequence[RequestOutput]) -> list[Relevance]:
        """The best first; of equal ones the one that was given first. Raises Aborted where a request has failed."""
        found = []
        for index, output in enumerate(outputs):
            (sample,) = output.outputs
            if not sample.logprobs:
                raise Aborted(f"document {index}: {sample.error or sample.finish_reason}")
            position = sample.logprobs[0]
            found.append(Relevance(index, _share(position[self._yes].logprob, position[self._no].logprob)))
        return sorted(found, key=lambda relevance: -relevance.score)[: self._top_n]


class Pairs:
    """The pairs of one call, for a cross-encoder, and the documents that their numbers put first."""

    params = _core.EmbeddingParams(pooling="cls", normalize=False)

    def __init__(
        self,
        tokenizer: Tokenizer,
        description: _core.ModelDescription,
        query: Any,
        documents: Any,
        instruction: Any = None,
        top_n: Any = None,
    ) -> None:
        _check(query, documents, instruction, top_n)
        if instruction is not None:
            raise InvalidArgument("instruction= is for models that read one; this one reads a query and a document")
        self._top_n = top_n
        second = description.vocab_size // 2 if has_segments(description.architecture) else 0
        self.prompts = []
        for document in documents:
            ids, segments = tokenizer.encode_pair(query, document)
            self.prompts.append([token + second * segment for token, segment in zip(ids, segments, strict=True)])
        self.requests: list[EmbeddingRequest] = []

    def ranked(self, outputs: Sequence[RequestOutput]) -> list[Relevance]:
        """Of ``requests``, which have ended: the best first, of equal ones the one that was given first. Raises Aborted
        where one has failed."""
        logits = [float(request.numbers().cast("f")[0]) for request in self.requests]
        order = sorted(range(len(logits)), key=lambda index: -logits[index])[: self._top_n]
        return [Relevance(index, _share(logits[index], 0.0)) for index in order]


def _share(yes: float, no: float) -> float:
    """Of yes, where there is nothing but yes and no."""
    if yes == no:  # as likely, or both impossible
        return 0.5
    difference = no - yes
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700.0 else 0.0
