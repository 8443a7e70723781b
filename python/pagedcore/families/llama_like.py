"""What LLaMA's relatives have in common: names of weights in both formats, which may have biases, and the configuration
of a small random checkpoint."""

from __future__ import annotations

from typing import Any

from . import experts
from .tensors import TensorNames

__all__ = ["FUSED_NAMES", "GGUF_NAMES", "HUGGINGFACE_NAMES", "MLP", "QKV", "QKVO", "tiny_config"]

QKV = ("attn.q", "attn.k", "attn.v")
QKVO = (*QKV, "attn.o")
MLP = ("mlp.gate", "mlp.up", "mlp.down")

HUGGINGFACE_NAMES = TensorNames(
    layers="model.layers",
    outside={"model.embed_tokens": "embed", "model.norm": "final_norm", "lm_head": "lm_head"},
    in_layer={
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "mlp_norm",
        "self_attn.q_proj": "attn.q",
        "self_attn.k_proj": "attn.k",
        "self_attn.v_proj": "attn.v",
        "self_attn.o_proj": "attn.o",
        "self_attn.q_norm": "attn.q_norm",
        "self_attn.k_norm": "attn.k_norm",
        "mlp.gate_proj": "mlp.gate",
        "mlp.up_proj": "mlp.up",
        "mlp.down_proj": "mlp.down",
    },
    # Buffers that older versions of transformers saved; they follow from the configuration. And what sees.
    ignored=r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
    r"|(model\.)?(vision_tower|multi_modal_projector)\..+",
    # Of models that also see.
    prefixes=(
        ("model.language_model.", "model."),
        ("language_model.model.", "model."),
        ("language_model.lm_head", "lm_head"),
        # Of models without a head.
        *((f"{module}.", f"model.{module}.") for module in ("layers", "embed_tokens", "norm")),
    ),
)

GGUF_NAMES = TensorNames(
    layers="blk",
    outside={"token_embd": "embed", "output_norm": "final_norm", "output": "lm_head"},
    in_layer={
        "attn_norm": "attn_norm",
        "attn_q": "attn.q",
        "attn_k": "attn.k",
        "attn_v": "attn.v",
        "attn_output": "attn.o",
        "attn_q_norm": "attn.q_norm",
        "attn_k_norm": "attn.k_norm",
        "post_attention_norm": "attn_post_norm",
        "post_ffw_norm": "mlp_post_norm",
        "ffn_norm": "mlp_norm",
        "ffn_gate": "mlp.gate",
        "ffn_up": "mlp.up",
        "ffn_down": "mlp.down",
        **experts.GGUF_NAMES,
    },
    ignored=r"rope_freqs\.weight|rope_factors_(long|short)\.weight",  # a part of the configuration
)

# Of files in which one tensor holds q, k and v, and whose MLP has no gate.
FUSED_NAMES = TensorNames(
    layers="blk",
    outside=GGUF_NAMES.outside,
    in_layer={
        **{"attn_norm": "attn_norm", "attn_qkv": "attn.qkv", "attn_output": "attn.o"},
        **{"ffn_norm": "mlp_norm", "ffn_up": "mlp.up", "ffn_down": "mlp.down"},
    },
)


def tiny_config(model_type: str, **settings: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,  # far from uniform: a wrong term changes tokens, rounding does not
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **settings,
    }
