"""GLM-4 (2024) and GLM-4-0414 (2025), dense: LLaMA with neighbours rotated in half of each head; the second has norms
after attention and MLP too."""

from __future__ import annotations

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama import NEIGHBOURS
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKV, tiny_config
from .phi3 import GATE_UP
from .transforms import after, fused_qkv

__all__ = ["FAMILY", "GLM4"]

_DEFAULTS = {"num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1.5625e-7}
_TRANSFORMS = {**NEIGHBOURS, "attn.qkv": after(fused_qkv, NEIGHBOURS), "mlp.gate_up": GATE_UP}
_NAMES = HUGGINGFACE_NAMES.changed(in_layer={"mlp.gate_up_proj": "mlp.gate_up"})
_GGUF_NAMES = GGUF_NAMES.changed(in_layer={"attn_qkv": "attn.qkv", "ffn_up": "mlp.gate_up"})


def describe(config: Fields) -> Described:
    config = config.defaulting(partial_rotary_factor=0.5, **_DEFAULTS)
    return Described(from_config.described(config), QKV if config.flag("attention_bias", True) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    biases = from_gguf.biases(tensors, QKV, _GGUF_NAMES, {"attn.qkv": QKV})
    return Described(from_gguf.described(fields, tensors), biases)


def with_norms_after(found: Described) -> Described:
    return Described(found.description | {"norm_place": "both"}, found.biases)


_ODD = {
    "hidden_size": 120,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 100,
    "head_dim": 40,
}
_ODD_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.35}}
FAMILY = Family(
    name="glm",
    huggingface=HuggingFace(("GlmForCausalLM",), "glm", describe, _NAMES, _TRANSFORMS),
    gguf=Gguf(("chatglm",), describe_gguf, _GGUF_NAMES, _TRANSFORMS),
    tiny_config=lambda: tiny_config("glm", head_dim=16, attention_bias=True, pad_token_id=0),
    odd=_ODD | _ODD_ROPE,
)
GLM4 = Family(
    name="glm4",
    huggingface=HuggingFace(
        architectures=("Glm4ForCausalLM",),
        model_type="glm4",
        describe=lambda config: with_norms_after(describe(config)),
        names=_NAMES.changed(
            in_layer={
                "post_self_attn_layernorm": "attn_post_norm",
                "post_attention_layernorm": "mlp_norm",
                "post_mlp_layernorm": "mlp_post_norm",
            }
        ),
        transforms=_TRANSFORMS,
    ),
    gguf=Gguf(
        architectures=("glm4",),
        describe=lambda fields, tensors: with_norms_after(describe_gguf(fields, tensors)),
        names=_GGUF_NAMES,
        transforms=_TRANSFORMS,
    ),
    tiny_config=lambda: tiny_config("glm4", head_dim=16, attention_bias=True, pad_token_id=0),
    odd=_ODD | _ODD_ROPE | {"attention_bias": False},
)
