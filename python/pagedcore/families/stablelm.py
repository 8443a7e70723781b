"""StableLM (2024): LLaMA with layer norm, a quarter of each head rotated. The one of 12B has attention beside the MLP,
and norms of each head of q and k."""

from __future__ import annotations

import re
from typing import Any

from ..errors import Corrupt
from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKV, tiny_config
from .tensors import Tensor
from .transforms import flat, input_norm

__all__ = ["FAMILY"]


def _finish(description: dict[str, Any], parallel: bool, qk_norm: bool, biases: tuple[str, ...]) -> Described:
    description |= {"parallel_block": parallel}
    if qk_norm:
        description |= {"qk_norm": True, "qk_norm_kind": "layer", "qk_norm_span": "heads"}
    return Described(description, (*biases, "attn_norm", "mlp_norm", "final_norm"))


def describe(config: Fields) -> Described:
    factor = config.number("rope_pct", 0.25)
    config = config.defaulting(num_key_value_heads=32, max_position_embeddings=4096, partial_rotary_factor=factor)
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_eps")
    parallel, qk_norm = (config.flag(name, False) for name in ("use_parallel_residual", "qk_layernorm"))
    return _finish(description, parallel, qk_norm, QKV if config.flag("use_qkv_bias", False) else ())


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = from_gguf.described(fields, tensors, norm="layer")
    has_norms = "blk.0.attn_q_norm.weight" in tensors
    biases = from_gguf.biases(tensors, QKV)
    return _finish(description, "blk.0.ffn_norm.weight" not in tensors, has_norms, biases)


def heads_together(tensors: Tensors) -> Tensors:
    """The norm of each head has a tensor of its own: one vector of them all."""
    heads: dict[str, dict[int, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+\.[qk]_layernorm)\.norms\.(\d{1,4})\.weight", name)
        if match is None:
            rest[name] = tensor
        else:
            heads.setdefault(f"{match[1]}.weight", {})[int(match[2])] = tensor
    for name, parts in heads.items():
        if sorted(parts) != list(range(len(parts))) or len({part.dtype for part in parts.values()}) > 1:
            raise Corrupt(f"'{name}': norms of heads {sorted(parts)} in types that differ, or with gaps")
        buffer = b"".join(bytes(parts[i].read()) for i in range(len(parts)))
        length = sum(part.shape[0] for part in parts.values())
        rest[name] = Tensor(parts[0].dtype, (length,), memoryview(buffer))
    return rest


_QK_NORMS = {"self_attn.q_layernorm": "attn.q_norm", "self_attn.k_layernorm": "attn.k_norm"}
FAMILY = Family(
    name="stablelm",
    huggingface=HuggingFace(
        architectures=("StableLmForCausalLM",),
        model_type="stablelm",
        describe=describe,
        names=HUGGINGFACE_NAMES.changed(in_layer=_QK_NORMS),
        transforms={"attn_norm": input_norm},
        prepare=heads_together,
    ),
    gguf=Gguf(
        architectures=("stablelm",),
        describe=describe_gguf,
        names=GGUF_NAMES,
        transforms={"attn_norm": input_norm, "attn.q_norm": flat, "attn.k_norm": flat},
    ),
    tiny_config=lambda: tiny_config("stablelm", hidden_size=128, initializer_range=0.1, use_qkv_bias=True),
    odd={
        **{"hidden_size": 120, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
        **{"use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": False},
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4},
    },
)
