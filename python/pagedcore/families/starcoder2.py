"""StarCoder 2 (2024): LLaMA with layer norm, biases everywhere and a plain MLP."""

from __future__ import annotations

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config

__all__ = ["FAMILY"]

_NORMS = ("attn_norm", "mlp_norm", "final_norm")
_MLP = ("mlp.up", "mlp.down")
_DEFAULTS = {"max_position_embeddings": 4096, "hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 2}


def describe(config: Fields) -> Described:
    config = config.defaulting(tie_word_embeddings=True, **_DEFAULTS)
    description = from_config.described(config, norm="layer", norm_eps="norm_epsilon")
    description["gated_mlp"] = False
    slides = [True] * description["num_layers"]
    description["windows"] = from_config.windows_of_types(config, description, None, slides)
    return Described(description, (*_NORMS, *((*QKVO, *_MLP) if config.flag("use_bias", True) else ())))


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = from_gguf.described(fields, tensors, norm="layer", activation="gelu_tanh", gated=False)
    return Described(description, (*_NORMS, *from_gguf.biases(tensors, (*QKVO, *_MLP))))


FAMILY = Family(
    name="starcoder2",
    huggingface=HuggingFace(
        architectures=("Starcoder2ForCausalLM",),
        model_type="starcoder2",
        describe=describe,
        names=HUGGINGFACE_NAMES.changed(in_layer={"mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}),
    ),
    gguf=Gguf(architectures=("starcoder2",), describe=describe_gguf, names=GGUF_NAMES),
    tiny_config=lambda: tiny_config("starcoder2", hidden_act="gelu_pytorch_tanh", sliding_window=40),
    odd={
        **{"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
        "sliding_window": None,
    },
)
