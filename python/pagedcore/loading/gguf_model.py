"""GGUF metadata and tensor names to a decoder's description and canonical names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import Corrupt, Unsupported
from .checkpoint import (
    Checkpoint,
    Tensor,
    TokenizerSource,
    check_description,
    check_names,
    expected_names,
    source_dtype,
)
from .fields import Fields
from .gguf import GgufFile
from .rope import Rope, linear_rope, to_f32, yarn_magnitude, yarn_rope

__all__ = ["load_gguf"]

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_MAX_LAYERS = 10_000

_TOP = {"token_embd": "embed", "output_norm": "final_norm", "output": "lm_head"}
_IN_LAYER = {
    "attn_norm": "attn_norm",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_output": "attn.o",
    "attn_q_norm": "attn.q_norm",
    "attn_k_norm": "attn.k_norm",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}
_NAME = re.compile(r"(?:blk\.(0|[1-9][0-9]{0,5})\.)?([a-z_]+)\.(weight|bias)")
_ROPE_FACTORS = "rope_freqs.weight"


def load_gguf(path: Path, *, with_tensors: bool) -> Checkpoint:
    file = GgufFile(path)
    metadata = Fields(file.metadata, str(path))
    description = _describe(file, metadata)
    tensors: dict[str, Tensor] = {}
    if with_tensors:
        tensors = _canonical_tensors(file, description)
    tokens = Fields(file.metadata, str(path), "tokenizer.ggml.")
    # Besides the end of the text: the ends of a turn and of a message, where generation stops just as well.
    ends = [i for name in ("eos", "eot", "eom") for i in tokens.token_ids(f"{name}_token_id")]
    bos = tokens.token_ids("bos_token_id")
    return Checkpoint(
        description=description,
        tensors=tensors,
        source_dtype=source_dtype(file.tensors.values()),
        tokenizer=TokenizerSource("gguf", metadata=file.metadata),
        name=metadata.text("general.name", path.stem),
        chat_template=metadata.text("tokenizer.chat_template", "") or None,
        eos_token_ids=list(dict.fromkeys(ends)),
        bos_token_id=bos[0] if bos else None,
    )


def _describe(file: GgufFile, metadata: Fields) -> dict[str, Any]:
    architecture = metadata.text("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise Unsupported(
            f"{file.path}: the architecture '{architecture[:80]}' is not supported; supported are "
            f"{', '.join(_ARCHITECTURES)}"
        )
    fields = Fields(file.metadata, str(file.path), f"{architecture}.")
    if fields.integer("expert_count", 0, minimum=0):
        raise Unsupported(f"{file.path}: mixtures of experts are not supported")
    hidden_size = fields.integer("embedding_length")
    num_heads = fields.integer("attention.head_count")
    head_dim = fields.integer("attention.key_length", max(hidden_size // num_heads, 1), maximum=65536)
    if fields.integer("attention.value_length", head_dim) != head_dim:
        raise Unsupported(f"{file.path}: values of another length than keys are not supported")
    if fields.integer("rope.dimension_count", head_dim) != head_dim:
        raise Unsupported(f"{file.path}: rotating a part of a head (rope.dimension_count) is not supported")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise Corrupt(f"{file.path}: has no tensor 'token_embd.weight'")
    description: dict[str, Any] = {
        "architecture": _ARCHITECTURES[architecture],
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_layers": fields.integer("block_count", maximum=_MAX_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": fields.integer("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_context": fields.integer("context_length"),
        "norm": "rms",
        "norm_eps": fields.number("attention.layer_norm_rms_epsilon", above=0.0),
        "activation": "silu",
        "gated_mlp": True,
        "tied_embeddings": "output.weight" not in file.tensors,
        "qk_norm": architecture == "qwen3",
    }
    check_description(description, str(file.path))
    rope = _with_factors(_rope(fields, head_dim, description["max_context"]), file, head_dim)
    description["rope_inv_freq"] = rope.inv_freq
    description["rope_magnitude"] = rope.magnitude
    window = fields.integer("attention.sliding_window", 0, minimum=0)
    limited = 0 < window < description["max_context"]
    description["windows"] = [window] * description["num_layers"] if limited else []
    return description


def _rope(fields: Fields, head_dim: int, max_context: int) -> Rope:
    theta = fields.number("rope.freq_base", 10000.0, above=1.0)
    kind = fields.text("rope.scaling.type", "none")
    try:
        if kind == "none":
            # "scale_linear" is the key that files had before "scaling.type".
            return linear_rope(theta, head_dim, fields.number("rope.scale_linear", 1.0, above=0.0))
        factor = fields.number("rope.scaling.factor", 1.0, above=0.0)
        if kind == "linear":
            return linear_rope(theta, head_dim, factor)
        if kind == "yarn":
            return yarn_rope(
                theta,
                head_dim,
                factor,
                fields.integer("rope.scaling.original_context_length", max_context),
                beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0, above=0.0),
                beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0, above=0.0),
                magnitude=yarn_magnitude(factor) * fields.number("rope.scaling.attn_factor", 1.0, above=0.0),
            )
    except (OverflowError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, (Corrupt, Unsupported)):
            raise
        raise Corrupt(f"{fields.source}: the {kind} rope parameters give no frequencies: {error}") from None
    raise Unsupported(f"{fields.source}: rope scaling '{kind[:80]}'; supported are none, linear, yarn")


def _with_factors(rope: Rope, file: GgufFile, head_dim: int) -> Rope:
    """Llama 3.1's scaling comes as a divisor for each frequency."""
    tensor = file.tensors.get(_ROPE_FACTORS)
    if tensor is None:
        return rope
    if tensor.dtype != "f32" or tensor.shape != (head_dim // 2,):
        raise Corrupt(
            f"{file.path}: '{_ROPE_FACTORS}' is {tensor.dtype} of shape {tensor.shape}, not f32 of ({head_dim // 2},)"
        )
    factors = tensor.buffer.cast("f").tolist()
    if not all(1e-6 < factor < 1e6 for factor in factors):
        raise Corrupt(f"{file.path}: '{_ROPE_FACTORS}' has a factor that is not a positive number of usual size")
    return Rope([to_f32(f / factor) for f, factor in zip(rope.inv_freq, factors, strict=True)], rope.magnitude)


def _canonical_tensors(file: GgufFile, description: dict[str, Any]) -> dict[str, Tensor]:
    interleaved = file.metadata["general.architecture"] == "llama"
    heads = {"attn.q": description["num_heads"], "attn.k": description["num_kv_heads"]}
    tensors: dict[str, Tensor] = {}
    biases: set[str] = set()
    for name, tensor in file.tensors.items():
        if name == _ROPE_FACTORS:
            continue
        match = _NAME.fullmatch(name)
        layer, part, kind = match.groups() if match else (None, "", "")
        canonical = (_TOP if layer is None else _IN_LAYER).get(part)
        if canonical is None or (kind == "bias" and not canonical.startswith(("attn.", "mlp."))):
            raise Corrupt(f"{file.path}: the tensor '{name[:200]}' is not part of a {description['architecture']}")
        if kind == "bias":
            biases.add(canonical)
        if interleaved and canonical in heads:
            tensor = _split_halves(tensor, heads[canonical], description["head_dim"], f"{file.path}: '{name}'")
        tensors[f"{canonical}.{kind}" if layer is None else f"layers.{layer}.{canonical}.{kind}"] = tensor
    check_names(tensors, expected_names(description, sorted(biases)), str(file.path))
    return tensors


def _split_halves(tensor: Tensor, num_heads: int, head_dim: int, source: str) -> Tensor:
    """Files of the llama architecture interleave the two halves of a head, as their runtime rotates neighbours: row
    2 i + j of a head is row i of half j. Whole rows move, so block formats need no decoding."""
    import numpy as np

    rows = tensor.shape[0]
    if rows != num_heads * head_dim:
        raise Corrupt(f"{source} has {rows} rows, not {num_heads} heads of {head_dim} dimensions")
    pairs = np.frombuffer(tensor.buffer, dtype=np.uint8).reshape(num_heads, head_dim // 2, 2, -1)
    return tensor._replace(buffer=memoryview(pairs.swapaxes(1, 2).reshape(-1)))
