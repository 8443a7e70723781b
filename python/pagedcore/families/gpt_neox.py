"""GPT-NeoX (Black et al., 2022) and Pythia: attention and MLP side by side, a quarter of each head rotated."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import FUSED_NAMES, QKVO, tiny_config
from .tensors import TensorNames
from .transforms import fused_qkv, grouped_qkv

__all__ = ["FAMILY"]

_NORMS = ("attn_norm", "mlp_norm", "final_norm")


def describe(config: Fields) -> Described:
    old = {"partial_rotary_factor": config.number("rotary_pct", 0.25), "rope_theta": config.get("rotary_emb_base")}
    config = config.defaulting(
        **{"max_position_embeddings": 2048, "hidden_act": "gelu"},
        **{name: value for name, value in old.items() if value is not None},
    )
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_eps")
    biases = QKVO if config.flag("attention_bias", True) else ()
    return _finish(description, config.flag("use_parallel_residual", True), biases)


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = from_gguf.described(fields, tensors, norm="layer", activation="gelu", gated=False)
    biases = from_gguf.biases(tensors, QKVO, FUSED_NAMES, {"attn.qkv": QKVO[:3]})
    return _finish(description, fields.flag("use_parallel_residual", True), biases)


def _finish(description: dict[str, Any], parallel: bool, biases: tuple[str, ...]) -> Described:
    description |= {"gated_mlp": False, "parallel_block": parallel}
    return Described(description, (*biases, "mlp.up", "mlp.down", *_NORMS))


FAMILY = Family(
    name="gpt_neox",
    huggingface=HuggingFace(
        architectures=("GPTNeoXForCausalLM",),
        model_type="gpt_neox",
        describe=describe,
        names=TensorNames(
            layers="gpt_neox.layers",
            outside={
                "gpt_neox.embed_in": "embed",
                "gpt_neox.final_layer_norm": "final_norm",
                "embed_out": "lm_head",
                "lm_head": "lm_head",
            },
            in_layer={
                "input_layernorm": "attn_norm",
                "attention.query_key_value": "attn.qkv",
                "attention.dense": "attn.o",
                "post_attention_layernorm": "mlp_norm",
                "mlp.dense_h_to_4h": "mlp.up",
                "mlp.dense_4h_to_h": "mlp.down",
            },
            ignored=r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        ),
        transforms={"attn.qkv": grouped_qkv},
    ),
    gguf=Gguf(
        architectures=("gptneox",),
        describe=describe_gguf,
        names=FUSED_NAMES,
        transforms={"attn.qkv": fused_qkv},
    ),
    tiny_config=lambda: tiny_config("gpt_neox", hidden_size=128, num_key_value_heads=None, hidden_act="gelu"),
    odd={
        **{"hidden_size": 120, "num_attention_heads": 3, "intermediate_size": 100, "use_parallel_residual": False},
        "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0, "partial_rotary_factor": 0.4},
    },
)
