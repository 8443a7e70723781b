"""DistilBERT (Sanh et al., 2019): BERT's encoder without segments, under names of its own."""

from __future__ import annotations

from .bert import encoder
from .family import Described, Family, HuggingFace
from .fields import Fields
from .llama_like import QKVO
from .tensors import TensorNames

__all__ = ["FAMILY"]


def describe(config: Fields) -> Described:
    config = config.renamed(
        hidden_size="dim",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        intermediate_size="hidden_dim",
        hidden_act="activation",
    )
    config = config.defaulting(
        **{"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12},
        intermediate_size=3072,
    )
    norms = ("embed_norm", "attn_post_norm", "mlp_post_norm")
    return Described(encoder(config), (*QKVO, "mlp.up", "mlp.down", *norms))


FAMILY = Family(
    name="distilbert",
    huggingface=HuggingFace(
        architectures=("DistilBertModel", "DistilBertForMaskedLM"),
        model_type="distilbert",
        describe=describe,
        names=TensorNames(
            layers="transformer.layer",
            outside={
                "embeddings.word_embeddings": "embed",
                "embeddings.position_embeddings": "positions",
                "embeddings.LayerNorm": "embed_norm",
            },
            in_layer={
                "attention.q_lin": "attn.q",
                "attention.k_lin": "attn.k",
                "attention.v_lin": "attn.v",
                "attention.out_lin": "attn.o",
                "sa_layer_norm": "attn_post_norm",
                "ffn.lin1": "mlp.up",
                "ffn.lin2": "mlp.down",
                "output_layer_norm": "mlp_post_norm",
            },
            ignored=r"vocab_(transform|layer_norm|projector)\..*",
            prefixes=(("distilbert.", ""),),
        ),
    ),
    gguf=None,
    tiny_config=lambda: {
        **{"model_type": "distilbert", "vocab_size": 320, "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 96},
        **{"max_position_embeddings": 128, "initializer_range": 0.15, "pad_token_id": 0},
    },
    odd={"dim": 72, "n_heads": 3, "hidden_dim": 100, "activation": "relu"},
)
