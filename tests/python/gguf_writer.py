"""A transformers model as llama.cpp's converter writes it, with the names of the gguf package."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """What the converter does to q and k where llama.cpp rotates neighbours."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def ungroup(weight: np.ndarray, kv_heads: int, group: int) -> np.ndarray:
    """Of fused q, k and v that come by KV head: all q, all k, all v."""
    heads = weight.reshape(kv_heads, group + 2, -1, *weight.shape[1:])
    parts = [heads[:, :group], heads[:, group], heads[:, group + 1]]
    return np.concatenate([part.reshape(-1, *weight.shape[1:]) for part in parts])


def falcon_groups(config: Any) -> int:
    """KV heads."""
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


INTERLEAVED = ("llama", "smollm3", "granite", "granitemoe", "mistral3", "olmo")
NORMS_PLUS_ONE = ("gemma", "gemma2", "gemma3")


def converted(arch: str, name: str, array: np.ndarray, config: Any) -> np.ndarray:
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if arch in INTERLEAVED and "q_proj" in name:
        return interleave(array, heads)
    if arch in INTERLEAVED and "k_proj" in name:
        return interleave(array, kv_heads)
    if arch in NORMS_PLUS_ONE and "norm" in name:
        return array + 1
    if arch == "gpt2" and any(part in name for part in ("c_attn", "c_proj", "c_fc")):
        return array.T
    if arch in ("gptneox", "bloom") and "query_key_value" in name:
        return ungroup(array, heads, 1)
    if arch == "falcon" and "query_key_value" in name:
        groups = falcon_groups(config)
        return ungroup(array, groups, heads // groups)
    return array


def unstacked(state: dict[str, Any]) -> dict[str, Any]:
    """With gate and up of experts apart. Those of gpt-oss take turns, and its matrices lie turned."""
    found: dict[str, Any] = {}
    takes_turns = any(name.endswith("experts.gate_up_proj_bias") for name in state)
    for name, weight in state.items():
        stem, expert, rest = name.partition("experts.") if takes_turns else ("", "", "")
        if expert:
            matrix = weight.transpose(1, 2) if weight.ndim == 3 else weight
            parts = {"gate": matrix[:, ::2], "up": matrix[:, 1::2]} if rest.startswith("gate_up") else {"down": matrix}
            kind = ".bias" if rest.endswith("bias") else ".weight"
            found |= {f"{stem}{expert}{part}_proj{kind}": half for part, half in parts.items()}
            continue
        stem, fused, rest = name.rpartition("experts.gate_up_proj") if "experts" in name else ("", "", name)
        if not fused:
            stem, fused, rest = name.rpartition("shared_mlp.input_linear")
        if fused and not rest.removesuffix(".weight"):
            for part, half in zip(("gate", "up"), weight.chunk(2, dim=-2), strict=True):
                found[f"{stem}{fused.split('.')[0]}.{part}_proj"] = half
        else:
            found[name] = weight
    return found


def expert_name(name: str) -> str | None:
    """llama.cpp's name of a weight of a mixture."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)?\.?(.+?)(?:\.(weight|bias))?", name)
    if match is None:
        return None
    names = {"gate": "gate_inp", "router": "gate_inp", "shared_expert_gate": "gate_inp_shexp"}
    for part in ("gate", "up", "down"):
        names |= {f"experts.{part}_proj": f"{part}_exps", f"shared_expert.{part}_proj": f"{part}_shexp"}
        names[f"shared_mlp.{part}_proj"] = f"{part}_shexp"
        names[f"{part}_proj"] = part  # of the layers without experts
    names["shared_mlp.output_linear"] = "down_shexp"
    return f"blk.{match[1]}.ffn_{names[match[2]]}.{match[3] or 'weight'}" if match[2] in names else None


def _add_metadata(writer: gguf.GGUFWriter, arch: str, config: Any) -> None:
    """What a model's configuration says, under llama.cpp's keys."""
    heads = config.num_attention_heads

    def first(*names: str, default: Any = None) -> Any:
        found = [getattr(config, name) for name in names if getattr(config, name, None) is not None]
        return found[0] if found else default

    head_dim = first("head_dim", default=config.hidden_size // heads)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(first("max_position_embeddings", default=2048))
    writer.add_embedding_length(config.hidden_size)
    inner = first("intermediate_size", "n_inner", "ffn_hidden_size", default=4 * config.hidden_size)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(falcon_groups(config) if arch == "falcon" else first("num_key_value_heads", default=heads))
    rms, layer = first("rms_norm_eps"), first("norm_epsilon", "layer_norm_epsilon", "layer_norm_eps")
    if rms is not None:
        writer.add_layer_norm_rms_eps(rms)
    else:
        writer.add_layer_norm_eps(1e-5 if layer is None else layer)
    ropes = getattr(config, "rope_parameters", None) or {}
    rope = ropes.get("full_attention", ropes)
    if "rope_theta" in rope:
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if first("num_local_experts", "num_experts") is not None:
        writer.add_expert_count(first("num_local_experts", "num_experts"))
        writer.add_expert_used_count(config.num_experts_per_tok)
        if arch == "gpt-oss":
            writer.add_expert_feed_forward_length(config.intermediate_size)
        if first("moe_intermediate_size") is not None:
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if arch in ("granite", "granitemoe"):
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    elif first("logit_scale") is not None:
        writer.add_logit_scale(config.logit_scale)
    if first("use_parallel_residual") is not None:
        writer.add_parallel_residual(config.use_parallel_residual)
    if first("sliding_window") is not None:
        writer.add_sliding_window(config.sliding_window)
    if first("attn_logit_softcapping") is not None:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if first("final_logit_softcapping") is not None:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def write_gguf(
    path: Path,
    model: Any,
    arch: str,
    edit: Callable[[Any], None] | None = None,
    matrix: Any = np.float16,
    experts: Any = None,
) -> Path:
    """Matrices in ``matrix``, a type of numpy's or of gguf's or a function of them, those of experts in ``experts``. In
    f32: vectors, and matrices whose rows are no blocks of 32. ``edit`` adds to the metadata."""
    others = matrix
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    _add_metadata(writer, arch, config)
    if edit is not None:
        edit(writer)
    (number,) = [number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    state = dict(model.state_dict())
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    for name in [name for name in state if "layernorm.norms.0." in name]:  # StableLM's norms of each head: one tensor
        begin, end = name.split("norms.0.")
        heads = [
            state.pop(f"{begin}norms.{i}.{end}")
            for i in range(config.num_attention_heads)
            if f"{begin}norms.{i}.{end}" in state
        ]
        state[begin + end] = torch.stack(heads)
    for name, weight in unstacked(state).items():
        array = converted(arch, name, weight.float().numpy(), config)
        if arch == "bloom":
            name = name.removeprefix("transformer.")
        known = expert_name(name) or names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        if "_gate_inp_shexp" in known:
            array = array.reshape(-1)  # as the converter squeezes it
        matrix = experts if experts is not None and "_exps" in known else others
        is_numpy = isinstance(matrix, type)
        if (
            array.ndim < 2
            or "_gate_inp" in known
            or (not is_numpy and array.shape[-1] % 32)
            or known == "position_embd.weight"
            or "_norm" in known
            or known.endswith(".bias")
        ):
            writer.add_tensor(known, array.astype(np.float32))
        elif isinstance(matrix, gguf.GGMLQuantizationType):
            writer.add_tensor(known, gguf.quants.quantize(array, matrix), raw_dtype=matrix)
        else:
            writer.add_tensor(known, np.ascontiguousarray(array.astype(matrix) if is_numpy else matrix(array)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
