"""BERT and RoBERTa with a head for sequences: cross-encoders, which read a pair of texts and give it one score. The row
of the first token goes through two products, and comes out as an embedding of one number. BERT tells the second text by
another segment; its tokens are a second half of the vocabulary, words with that segment's row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import Unsupported
from .bert import FAMILY, ROBERTA, SEGMENTS, with_segments
from .family import Described, Family, Tensors
from .fields import Fields
from .tensors import Tensor
from .transforms import with_second_segment

__all__ = ["CROSS_ENCODERS", "has_segments", "is_cross_encoder"]

_WORDS = "embeddings.word_embeddings.weight"
_IGNORED = r"(.*\.)?embeddings\.(position|token_type)_ids"
_HEAD = "ForSequenceClassification"


def _describe(encoder: Callable[[Fields], Described], segments: bool) -> Callable[[Fields], Described]:
    def describe(config: Fields) -> Described:
        labels = config.get("id2label")
        count = len(labels) if isinstance(labels, dict) else config.integer("num_labels", 2)
        if count != 1:
            raise Unsupported(
                f"{config.source}: num_labels = {count}: it sorts texts into classes; supported are models that give a "
                "pair of texts one score"
            )
        if segments and config.integer("type_vocab_size", 2) < 2:
            raise config.unsupported("type_vocab_size", ("2, one for each text of a pair",))
        description, biases = encoder(config)
        description |= {"pooling": "cls", "dense_sizes": [description["hidden_size"], 1], "dense_tanh": [1, 0]}
        description["vocab_size"] *= 1 + segments
        return Described(description, (*biases, "dense.0", "dense.1"))

    return describe


def _with_both_segments(tensors: Tensors) -> Tensors:
    made: dict[str, Tensor] = dict(tensors)
    for name in tensors:
        words = name.removesuffix(SEGMENTS) + _WORDS
        if name.endswith(SEGMENTS) and words in tensors:
            made[words] = with_second_segment(tensors[words], tensors[name])
    return with_segments(made)


def _family(encoder: Family, segments: bool, products: dict[str, str]) -> Family:
    form = encoder.huggingface
    heads = (name.removesuffix("Model") + _HEAD for name in form.architectures if name.endswith("Model"))

    def tiny() -> dict[str, Any]:
        return encoder.tiny_config() | {"num_labels": 1, "type_vocab_size": 1 + segments}

    return replace(
        encoder,
        name=f"{encoder.name}_cross_encoder",
        huggingface=replace(
            form,
            architectures=tuple(heads),
            describe=_describe(form.describe, segments),
            prepare=_with_both_segments if segments else with_segments,
            names=replace(form.names.changed(outside=products), ignored=_IGNORED),
        ),
        tiny_config=tiny,
    )


_BERT = _family(FAMILY, True, {"pooler.dense": "dense.0", "classifier": "dense.1"})
_ROBERTA = _family(ROBERTA, False, {"classifier.dense": "dense.0", "classifier.out_proj": "dense.1"})
CROSS_ENCODERS: tuple[Family, ...] = (_BERT, _ROBERTA)


def is_cross_encoder(architecture: str) -> bool:
    return any(architecture in family.huggingface.architectures for family in CROSS_ENCODERS)


def has_segments(architecture: str) -> bool:
    """Of a cross-encoder: whether the tokens of a pair's second text are those of the vocabulary's second half."""
    return architecture in _BERT.huggingface.architectures
