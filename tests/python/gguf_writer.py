"""A transformers model as llama.cpp's converter writes it, with the names of the gguf package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """What the converter does to q and k of the llama architecture."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_gguf(
    path: Path, model: Any, arch: str, edit: Callable[[Any], None] | None = None, matrix: type = np.float16
) -> Path:
    """Matrices in ``matrix``, vectors in f32."""
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        names = ("norm_epsilon", "layer_norm_epsilon", "layer_norm_eps")
        writer.add_layer_norm_eps(next(getattr(config, name) for name in names if hasattr(config, name)))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if getattr(config, "head_dim", None) is not None:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if getattr(config, "sliding_window", None) is not None:
        writer.add_sliding_window(config.sliding_window)
    if edit is not None:
        edit(writer)
    (number,) = [number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    state = dict(model.state_dict())
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    for name, weight in state.items():
        array = weight.numpy()
        if arch == "llama" and "q_proj" in name:
            array = interleave(array, config.num_attention_heads)
        if arch == "llama" and "k_proj" in name:
            array = interleave(array, config.num_key_value_heads)
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(known or name, array.astype(matrix if array.ndim == 2 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
