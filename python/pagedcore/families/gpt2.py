"""GPT-2 (Radford et al., 2019): learned positions, layer norm, biases everywhere, a plain MLP. Its matrices are stored
as [input, output]."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import FUSED_NAMES, QKVO
from .splits import GPT2
from .tensors import TensorNames
from .transforms import after, fused_qkv, turned

__all__ = ["FAMILY"]

_BIASES = (*QKVO, "mlp.up", "mlp.down", "attn_norm", "mlp_norm", "final_norm")


def _finish(description: dict[str, Any]) -> Described:
    return Described(description | {"gated_mlp": False, "learned_positions": description["max_context"]}, _BIASES)


def describe(config: Fields) -> Described:
    config = config.renamed(
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions",
        intermediate_size="n_inner",
        hidden_act="activation_function",
    )
    for name, served in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if config.flag(name, served) != served:
            raise config.unsupported(name, (str(served),))
    inner = config.get("intermediate_size") or 4 * config.integer("hidden_size")
    config = config.defaulting(max_position_embeddings=1024, hidden_act="gelu_new", tie_word_embeddings=True).replacing(
        intermediate_size=inner
    )
    return _finish(from_config.described(config, norm="layer", norm_eps="layer_norm_epsilon", rotates=False))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    return _finish(
        from_gguf.described(fields, tensors, norm="layer", activation="gelu_tanh", gated=False, rotates=False)
    )


FAMILY = Family(
    name="gpt2",
    huggingface=HuggingFace(
        architectures=("GPT2LMHeadModel",),
        model_type="gpt2",
        describe=describe,
        names=TensorNames(
            layers="h",
            outside={"wte": "embed", "wpe": "positions", "ln_f": "final_norm", "lm_head": "lm_head"},
            in_layer={
                "ln_1": "attn_norm",
                "attn.c_attn": "attn.qkv",
                "attn.c_proj": "attn.o",
                "ln_2": "mlp_norm",
                "mlp.c_fc": "mlp.up",
                "mlp.c_proj": "mlp.down",
            },
            ignored=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",  # masks
            prefixes=(("transformer.", ""),),
        ),
        transforms={
            "attn.qkv": after(turned, fused_qkv),
            **dict.fromkeys(("attn.o", "mlp.up", "mlp.down"), turned),
        },
    ),
    gguf=Gguf(
        architectures=("gpt2",),
        describe=describe_gguf,
        names=FUSED_NAMES.changed(outside={"position_embd": "positions"}),
        transforms={"attn.qkv": fused_qkv},
    ),
    tiny_config=lambda: {
        **{"model_type": "gpt2", "vocab_size": 320, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512},
        **{"initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2},
    },
    odd={"n_embd": 72, "n_head": 3, "n_inner": 100, "tie_word_embeddings": False},
    splits={"gpt-2": GPT2, "gpt2": GPT2},
)
