"""OLMoE (Muennighoff et al., 2024): 64 small experts, norms over the whole of q and k."""

from __future__ import annotations

from . import experts, from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config

__all__ = ["FAMILY"]

_QK_NORM = {"qk_norm": True, "qk_norm_span": "row"}


def describe(config: Fields) -> Described:
    config = config.defaulting(max_position_embeddings=4096, rms_norm_eps=1e-5)
    if config.get("clip_qkv") is not None:
        raise config.unsupported("clip_qkv", ("null",))
    mixture = experts.from_config(config, count=64, size="intermediate_size", per_token=8)
    biases = QKVO if config.flag("attention_bias", False) else ()
    return Described(from_config.described(config) | _QK_NORM | mixture, biases)


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    if fields.number("attention.clamp_kqv", 0.0) != 0.0:
        raise fields.unsupported("attention.clamp_kqv", ("0",))
    found = from_gguf.describe(fields.defaulting(expert_weights_norm=False), tensors)
    return Described(found.description | _QK_NORM, found.biases)


FAMILY = Family(
    name="olmoe",
    huggingface=HuggingFace(
        architectures=("OlmoeForCausalLM",),
        model_type="olmoe",
        describe=describe,
        names=HUGGINGFACE_NAMES.changed(in_layer=experts.HUGGINGFACE_NAMES),
        transforms=experts.TRANSFORMS,
    ),
    gguf=Gguf(architectures=("olmoe",), describe=describe_gguf, names=GGUF_NAMES, transforms=experts.GGUF_TRANSFORMS),
    tiny_config=lambda: tiny_config(
        "olmoe", num_experts=8, num_experts_per_tok=4, intermediate_size=64, pad_token_id=0, norm_topk_prob=False
    ),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 50},
)
