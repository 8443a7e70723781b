"""Mixtral (Jiang et al., 2024): Mistral with 8 experts, of which 2 take a row. GGUF files call it a llama."""

from __future__ import annotations

from . import experts, from_config
from .family import Described, Family, HuggingFace
from .fields import Fields
from .llama import GGUF
from .llama_like import HUGGINGFACE_NAMES, tiny_config

__all__ = ["FAMILY"]

_NAMES = HUGGINGFACE_NAMES.changed(
    in_layer=experts.HUGGINGFACE_NAMES
    | {
        "block_sparse_moe.gate": "mlp.router",
        "block_sparse_moe.experts.#.w1": "mlp.experts.#.gate",
        "block_sparse_moe.experts.#.w2": "mlp.experts.#.down",
        "block_sparse_moe.experts.#.w3": "mlp.experts.#.up",
    }
)


def describe(config: Fields) -> Described:
    config = config.defaulting(num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5)
    description = from_config.described(config)
    description["windows"] = from_config.windows_everywhere(config, description, None)
    mixture = experts.from_config(config, count=8, size="intermediate_size", per_token=2)
    return Described(description | mixture | {"router_renormalize": True})


FAMILY = Family(
    name="mixtral",
    huggingface=HuggingFace(
        architectures=("MixtralForCausalLM",),
        model_type="mixtral",
        describe=describe,
        names=_NAMES,
        transforms=experts.TRANSFORMS,
    ),
    gguf=GGUF,
    tiny_config=lambda: tiny_config("mixtral", num_local_experts=6, num_experts_per_tok=2),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
)
