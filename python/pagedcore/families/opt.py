"""OPT (Zhang et al., 2022): learned positions that begin at the third row. The one of 350M parameters normalises after
attention and MLP, and its embeddings are narrower than its layers. GGUF has no such architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import from_config
from .family import Described, Family, HuggingFace, Transform
from .fields import Fields
from .llama_like import QKVO
from .tensors import Tensor, TensorNames

__all__ = ["FAMILY"]


def describe(config: Fields) -> Described:
    config = config.renamed(intermediate_size="ffn_dim", hidden_act="activation_function")
    config = config.defaulting(max_position_embeddings=2048, hidden_act="relu", tie_word_embeddings=True)
    description = from_config.described(config, norm="layer", rotates=False)
    before = config.flag("do_layer_norm_before", True)
    width = config.integer("word_embed_proj_dim", description["hidden_size"])
    description |= {
        "gated_mlp": False,
        "learned_offset": 2,
        "learned_positions": description["max_context"] + 2,
        "norm_place": "before" if before else "outside",
        "norm_weights": config.flag("layer_norm_elementwise_affine", True),
        "final_norm": before and not config.flag("_remove_final_layer_norm", False),
        "embedding_size": 0 if width == description["hidden_size"] else width,
    }
    biases = (*QKVO, "mlp.up", "mlp.down") if config.flag("enable_bias", True) else ()
    norms: tuple[str, ...] = ("attn_norm", "mlp_norm") if before else ("attn_post_norm", "mlp_post_norm")
    if description["final_norm"]:
        norms = (*norms, "final_norm")
    return Described(description, (*biases, *(norms if description["norm_weights"] else ())))


def _placed(module: str) -> Transform:
    """A norm before attention or MLP, or after it, under the same name."""

    def place(tensor: Tensor, description: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        is_before = description["norm_place"] == "before"
        return {module if is_before else module.replace("_norm", "_post_norm"): tensor}

    return place


FAMILY = Family(
    name="opt",
    huggingface=HuggingFace(
        architectures=("OPTForCausalLM",),
        model_type="opt",
        describe=describe,
        names=TensorNames(
            layers="layers",
            outside={
                **{"embed_tokens": "embed", "embed_positions": "positions", "lm_head": "lm_head"},
                **{"project_in": "embed_in", "project_out": "embed_out", "final_layer_norm": "final_norm"},
            },
            in_layer={
                "self_attn.q_proj": "attn.q",
                "self_attn.k_proj": "attn.k",
                "self_attn.v_proj": "attn.v",
                "self_attn.out_proj": "attn.o",
                "self_attn_layer_norm": "attn_norm",
                "final_layer_norm": "mlp_norm",
                "fc1": "mlp.up",
                "fc2": "mlp.down",
            },
            prefixes=(("model.decoder.", ""), ("decoder.", "")),
        ),
        transforms={module: _placed(module) for module in ("attn_norm", "mlp_norm")},
    ),
    gguf=None,
    tiny_config=lambda: {
        **{"model_type": "opt", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 3, "ffn_dim": 96},
        **{"num_attention_heads": 4, "max_position_embeddings": 512, "word_embed_proj_dim": 64, "init_std": 0.15},
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    },
    odd={
        **{"hidden_size": 72, "num_attention_heads": 3, "ffn_dim": 100, "word_embed_proj_dim": 40},
        "do_layer_norm_before": False,
    },
)
