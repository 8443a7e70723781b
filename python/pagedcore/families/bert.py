"""BERT (Devlin et al., 2019) and RoBERTa, XLM-RoBERTa and CamemBERT, its relatives: encoders, whose tokens see all of a
text. Norms lie around the sums, and behind the embedding. The first segment's row of the table of segments is a part of
every token: it goes into the positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import from_config
from .family import Described, Family, HuggingFace, Tensors
from .fields import Fields
from .llama_like import QKVO
from .tensors import Tensor, TensorNames
from .transforms import sum_of_rows

__all__ = ["FAMILY", "ROBERTA", "SEGMENTS", "encoder", "with_segments"]

SEGMENTS, _POSITIONS = "embeddings.token_type_embeddings.weight", "embeddings.position_embeddings.weight"
_NORMS = ("embed_norm", "attn_post_norm", "mlp_post_norm")


def encoder(config: Fields) -> dict[str, Any]:
    """What encoders of BERT's kind have in common."""
    config = config.defaulting(hidden_act="gelu", layer_norm_eps=1e-12, max_position_embeddings=512)
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_eps", rotates=False) | {
        **{"bidirectional": True, "head": False, "pooling": "mean", "tied_embeddings": False},
        **{"norm_place": "outside", "embedding_norm": True, "final_norm": False, "gated_mlp": False},
    }
    description["learned_positions"] = description["max_context"]
    return description


def _describe(offset: Callable[[Fields], int]) -> Callable[[Fields], Described]:
    """``offset``: the row of the first position."""

    def describe(config: Fields) -> Described:
        kind = config.text("position_embedding_type", "absolute")
        if kind != "absolute":
            raise config.unsupported("position_embedding_type", ("absolute",))
        if config.flag("is_decoder", False):
            raise config.unsupported("is_decoder", ("false",))
        description = encoder(config)
        first = offset(config)
        if first >= description["max_context"]:
            raise config.refuse("max_position_embeddings", f"leaves nothing behind the first {first} rows")
        description |= {"learned_offset": first, "max_context": description["max_context"] - first}
        return Described(description, (*QKVO, "mlp.up", "mlp.down", *_NORMS))

    return describe


def with_segments(tensors: Tensors) -> Tensors:
    """Positions with the row of the first segment added."""
    made: dict[str, Tensor] = dict(tensors)
    for name in tensors:
        if name.endswith(SEGMENTS):
            positions = name.removesuffix(SEGMENTS) + _POSITIONS
            if positions in tensors:
                made[positions] = sum_of_rows(tensors[positions], tensors[name])
            del made[name]
    return made


def _family(name: str, prefix: str, names: tuple[str, ...], offset: Callable[[Fields], int], **tiny: Any) -> Family:
    heads = ("Model", "ForMaskedLM")
    return Family(
        name=name,
        huggingface=HuggingFace(
            architectures=tuple(each + head for each in names for head in heads),
            model_type=name,
            describe=_describe(offset),
            prepare=with_segments,
            names=TensorNames(
                layers="encoder.layer",
                outside={
                    "embeddings.word_embeddings": "embed",
                    "embeddings.position_embeddings": "positions",
                    "embeddings.LayerNorm": "embed_norm",
                },
                in_layer={
                    "attention.self.query": "attn.q",
                    "attention.self.key": "attn.k",
                    "attention.self.value": "attn.v",
                    "attention.output.dense": "attn.o",
                    "attention.output.LayerNorm": "attn_post_norm",
                    "intermediate.dense": "mlp.up",
                    "output.dense": "mlp.down",
                    "output.LayerNorm": "mlp_post_norm",
                },
                # What training needed, and ranges of numbers that older versions of transformers saved.
                ignored=r"(.*\.)?embeddings\.(position|token_type)_ids|(.*\.)?pooler\..*|(cls|lm_head)\..*",
                prefixes=((f"{prefix}.", ""),),
            ),
        ),
        gguf=None,
        tiny_config=lambda: {
            **{"model_type": name, "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 3},
            **{"num_attention_heads": 4, "intermediate_size": 96, "initializer_range": 0.15, "pad_token_id": 1},
            **tiny,
        },
        odd={"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 100, "hidden_act": "gelu_new"},
    )


FAMILY = _family("bert", "bert", ("Bert",), lambda config: 0, max_position_embeddings=128)
ROBERTA = _family(
    "roberta",
    "roberta",
    ("Roberta", "XLMRoberta", "Camembert"),
    lambda config: config.integer("pad_token_id", 1, minimum=0) + 1,
    max_position_embeddings=130,
)
