"""gpt-oss (2025): experts with biases and a clamped SwiGLU, of numbers of four bits; a sink in each head's softmax;
windows in every other layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Corrupt
from . import experts, from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Parts, Tensors, Transform
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .rope import to_f32
from .tensors import Tensor
from .transforms import every, rows_of

__all__ = ["FAMILY"]

_NAMES = HUGGINGFACE_NAMES.changed(
    in_layer={
        "self_attn.sinks": "attn.sinks",
        "mlp.router": "mlp.router",
        "mlp.experts.gate_up_proj": "mlp.experts.gate_up",
        "mlp.experts.gate_up_proj_bias": "mlp.experts.gate_up!bias",
        "mlp.experts.down_proj": "mlp.experts.down",
        "mlp.experts.down_proj_bias": "mlp.experts.down!bias",
    }
)
_YARN = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}


def _experts(*parts: str) -> Transform:
    """A stack of all experts, or their biases, whose rows the parts take turns in. Matrices of 16 or 32 bits lie
    turned."""

    def cut(tensor: Tensor, description: Mapping[str, Any], source: str) -> Parts:
        count, shape = description["num_experts"], tensor.shape
        turned = len(shape) == 3 and tensor.dtype != "mxfp4"
        rows = shape[-1 if turned or len(shape) == 2 else 1] if len(shape) in (2, 3) else 1
        if shape[0] != count or len(shape) not in (2, 3) or rows % len(parts):
            raise Corrupt(f"{source} is of shape {shape}, not a stack of the weights of {count} experts")
        found = {}
        for expert in range(count):
            own = rows_of(tensor, expert, 1)._replace(shape=shape[1:])
            for i, part in enumerate(parts):
                found[f"mlp.experts.{expert}.{part}"] = every(own, i, len(parts), turned=turned)
        return found

    return cut


def _finish(description: dict[str, Any], alpha: float, limit: float) -> Described:
    return Described(
        description
        | {
            "activation": "clamped_swiglu",
            "swiglu_alpha": to_f32(alpha),
            "swiglu_limit": to_f32(limit),
            "attention_sinks": True,
            "mixture_biases": True,
        },
        QKVO,
    )


def describe(config: Fields) -> Described:
    defaults = {"num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5}
    config = config.defaulting(**defaults, rope_theta=150000.0)
    if config.get("rope_scaling") is None and config.get("rope_parameters") is None:
        config = config.replacing(rope_scaling=_YARN)
    description = from_config.described(config)
    description |= experts.from_config(
        config, count=128, size="intermediate_size", per_token=4, router="chosen_softmax"
    )
    slides = [layer % 2 == 0 for layer in range(description["num_layers"])]
    description["windows"] = from_config.windows_of_types(config, description, 128, slides)
    described = _finish(
        description, config.number("swiglu_alpha", 1.702, above=0.0), config.number("swiglu_limit", 7.0, above=0.0)
    )
    return described if config.flag("attention_bias", True) else described._replace(biases=())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    fields = fields.defaulting(expert_gating_func=3, **{"rope.scaling.yarn_truncate": False})
    description = from_gguf.described(fields, tensors)
    description["windows"] = from_gguf.windows(fields, description, 2)
    return _finish(description, 1.702, 7.0)


FAMILY = Family(
    name="gpt_oss",
    huggingface=HuggingFace(
        architectures=("GptOssForCausalLM",),
        model_type="gpt_oss",
        describe=describe,
        names=_NAMES,
        transforms={"mlp.experts.gate_up": _experts("gate", "up"), "mlp.experts.down": _experts("down")},
    ),
    gguf=Gguf(
        architectures=("gpt-oss",),
        describe=describe_gguf,
        names=GGUF_NAMES.changed(in_layer={"attn_sinks": "attn.sinks", "post_attention_norm": "mlp_norm"}),
        transforms=experts.GGUF_TRANSFORMS,
    ),
    tiny_config=lambda: tiny_config(
        "gpt_oss",
        **{"head_dim": 32, "num_local_experts": 6, "num_experts_per_tok": 3, "sliding_window": 24},
        rope_parameters=_YARN | {"rope_theta": 150000.0, "factor": 4.0, "original_max_position_embeddings": 128},
    ),
    odd={
        **{"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 50},
        **{"num_local_experts": 5, "num_experts_per_tok": 2},
    },
)
