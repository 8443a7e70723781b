"""What families with mixtures of experts have in common: names of their weights, stacks cut into experts, and the
configuration of routers in both formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Corrupt
from .family import Parts, Tensors, Transform
from .fields import Fields
from .tensors import Tensor
from .transforms import rows_of

__all__ = ["GGUF_NAMES", "GGUF_TRANSFORMS", "HUGGINGFACE_NAMES", "TRANSFORMS", "from_config", "from_gguf", "stacked"]

# In a Hugging Face checkpoint each expert has tensors of its own; newer ones may have stacks.
HUGGINGFACE_NAMES = {
    "mlp.gate": "mlp.router",
    "mlp.experts.#.gate_proj": "mlp.experts.#.gate",
    "mlp.experts.#.up_proj": "mlp.experts.#.up",
    "mlp.experts.#.down_proj": "mlp.experts.#.down",
    "mlp.experts.gate_up_proj": "mlp.experts.gate_up",
    "mlp.experts.down_proj": "mlp.experts.down",
}
GGUF_NAMES = {
    "ffn_gate_inp": "mlp.router",
    **{f"ffn_{part}_exps": f"mlp.experts.{part}" for part in ("gate", "up", "down")},
    **{f"ffn_{part}.#": f"mlp.experts.#.{part}" for part in ("gate", "up", "down")},  # of early files
    **{f"ffn_{part}_shexp": f"mlp.shared.{part}" for part in ("gate", "up", "down")},
    "ffn_gate_inp_shexp": "mlp.shared_gate",
}
_GATING = {0: "softmax", 1: "softmax", 3: "chosen_softmax"}  # llama.cpp's numbers; 0: the architecture's usual one


def stacked(*parts: str) -> Transform:
    """The weights of all experts, one expert after another; of each, equally many rows of every part."""

    def cut(tensor: Tensor, description: Mapping[str, Any], source: str) -> Parts:
        count, shape = description.get("num_experts", 0), tensor.shape
        ranks = (2, 3) if description.get("mixture_biases") else (3,)  # a bias is a vector of each expert
        if len(shape) not in ranks or shape[0] != count or shape[1] % len(parts):
            raise Corrupt(f"{source} is of shape {shape}, not a stack of the matrices of {count} experts")
        rows, found = shape[1] // len(parts), {}
        for expert in range(count):
            matrix = rows_of(tensor, expert, 1)._replace(shape=shape[1:])
            for i, part in enumerate(parts):
                found[f"mlp.experts.{expert}.{part}"] = rows_of(matrix, i * rows, rows)
        return found

    return cut


def _as_row(tensor: Tensor, description: Mapping[str, Any], source: str) -> Tensor:
    return tensor._replace(shape=(1, *tensor.shape[-1:]))


TRANSFORMS = {"mlp.experts.gate_up": stacked("gate", "up"), "mlp.experts.down": stacked("down")}
GGUF_TRANSFORMS = {f"mlp.experts.{part}": stacked(part) for part in ("gate", "up", "down")}
GGUF_TRANSFORMS["mlp.shared_gate"] = _as_row


def from_config(config: Fields, *, count: int, size: str, per_token: int, router: str = "softmax") -> dict[str, Any]:
    """``count`` and ``per_token`` are the defaults; ``size`` is what the configuration calls the columns of one expert.
    Their number has two names in transformers."""
    if config.get("scoring_func") not in (None, "softmax"):
        raise config.unsupported("scoring_func", ("softmax",))
    name = "num_experts" if config.get("num_experts") is not None else "num_local_experts"
    experts = config.integer(name, count, maximum=1 << 16)
    return {
        "num_experts": experts,
        "experts_per_token": config.integer("num_experts_per_tok", per_token, maximum=experts),
        "expert_size": config.integer(size),
        "router": router,
        "router_renormalize": router == "softmax" and config.flag("norm_topk_prob", False),
        "router_scale": 1.0,
        "shared_expert_size": 0,
        "shared_expert_gate": False,
        "mixture_layers": [],
    }


def from_gguf(fields: Fields, tensors: Tensors, num_layers: int) -> dict[str, Any]:
    """Empty where the file has no experts. Layers without are those without a router."""
    experts = fields.integer("expert_count", 0, minimum=0, maximum=1 << 16)
    if experts == 0:
        return {}
    gating = fields.integer("expert_gating_func", 0, minimum=0)
    if gating not in _GATING:
        raise fields.unsupported("expert_gating_func", (f"{number} ({name})" for number, name in _GATING.items()))
    mixed = [int(f"blk.{layer}.ffn_gate_inp.weight" in tensors) for layer in range(num_layers)]
    gated = any(name.endswith(".ffn_gate_inp_shexp.weight") for name in tensors)
    shared = next((t.shape[0] for name, t in tensors.items() if name.endswith(".ffn_gate_shexp.weight")), 0)
    return {
        "num_experts": experts,
        "experts_per_token": fields.integer("expert_used_count", maximum=experts),
        "expert_size": fields.integer("expert_feed_forward_length", fields.integer("feed_forward_length")),
        "router": _GATING[gating],
        "router_renormalize": gating != 3 and fields.flag("expert_weights_norm", True),
        "router_scale": fields.number("expert_weights_scale", 0.0) or 1.0,
        "shared_expert_size": shared,
        "shared_expert_gate": gated,
        "mixture_layers": [] if all(mixed) else mixed,
    }
