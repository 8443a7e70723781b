"""The text of Mistral Small 3.1 and later (2025), and Ministral 3, a Mistral whose queries grow with the position, by
steps of the original context. Within the first of them nothing grows: it is served up to there. Directories only."""

from __future__ import annotations

from . import mistral
from .family import Described, Family, HuggingFace
from .fields import Fields
from .from_config import text_part
from .llama_like import HUGGINGFACE_NAMES, tiny_config

__all__ = ["FAMILY"]


_SMALL = {
    **{"vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40},
    **{"num_attention_heads": 32, "head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e9, "sliding_window": None},
}


def describe(config: Fields) -> Described:
    if "text_config" in config and config.mapping("text_config").text("model_type", "mistral") == "mistral":
        return mistral.describe(text_part(config).defaulting(**_SMALL))
    config = text_part(config).defaulting(
        max_position_embeddings=262144, head_dim=128, rms_norm_eps=1e-5, sliding_window=None
    )
    found = mistral.describe(config)
    rope = config.mapping("rope_parameters")
    if rope.number("llama_4_scaling_beta", 0.0) != 0.0:
        original = rope.integer("original_max_position_embeddings", found.description["max_context"])
        found.description["max_context"] = min(found.description["max_context"], original)
    return found


FAMILY = Family(
    name="ministral3",
    huggingface=HuggingFace(
        ("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"), "ministral3", describe, HUGGINGFACE_NAMES
    ),
    gguf=None,
    tiny_config=lambda: tiny_config(
        "ministral3",
        rope_parameters={
            **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 256},
            **{"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1},
        },
        head_dim=16,
    ),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 34},
)
