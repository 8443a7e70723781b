"""The small random models that the runs serve, as version 0.1 describes them. They are kept as containers in
tests/data/v0.1, which every later version opens; this is what wrote them."""

from __future__ import annotations

from typing import Any

import numpy as np

import pagedcore


def full() -> tuple[Any, Any]:
    """Like a Llama: grouped queries, RMS norms, a gated MLP, tied embeddings, full attention."""
    model = pagedcore.ModelDescription(
        architecture="random-full",
        vocab_size=320,
        hidden_size=24,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_context=4096,
        tied_embeddings=True,
        rope_inv_freq=[10000.0 ** (-i / 4) for i in range(4)],
    )
    return model, _weights(model, seed=1)


def windows() -> tuple[Any, Any]:
    """What the first one lacks: windows in every other layer, layer norms, an MLP without gate, biases, norms of the
    heads, soft caps, a head of its own."""
    model = pagedcore.ModelDescription(
        architecture="random-windows",
        vocab_size=320,
        hidden_size=24,
        intermediate_size=16,
        num_layers=4,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        max_context=4096,
        norm="layer",
        activation="gelu_tanh",
        gated_mlp=False,
        qk_norm=True,
        embedding_scale=1.5,
        attention_softcap=30.0,
        logit_softcap=20.0,
        rope_inv_freq=[5000.0 ** (-i / 2) for i in range(2)],  # half of each head is rotated
        windows=[24, 0, 24, 0],
    )
    return model, _weights(model, seed=2)


def _weights(model: Any, seed: int) -> Any:
    hidden, inner, head = model.hidden_size, model.intermediate_size, model.head_dim
    queries, keys = model.num_heads * head, model.num_kv_heads * head
    with_bias = model.norm == "layer"
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (model.vocab_size, hidden), "final_norm.weight": (hidden,)}
    if not model.tied_embeddings:
        shapes["lm_head.weight"] = (model.vocab_size, hidden)
    if with_bias:
        shapes["final_norm.bias"] = (hidden,)
    for i in range(model.num_layers):
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (hidden,),
            "attn.q.weight": (queries, hidden),
            "attn.k.weight": (keys, hidden),
            "attn.v.weight": (keys, hidden),
            "attn.o.weight": (hidden, queries),
            "mlp_norm.weight": (hidden,),
            "mlp.up.weight": (inner, hidden),
            "mlp.down.weight": (hidden, inner),
        }
        if model.gated_mlp:
            layer["mlp.gate.weight"] = (inner, hidden)
        if model.qk_norm:
            layer |= {"attn.q_norm.weight": (head,), "attn.k_norm.weight": (head,)}
        if with_bias:
            layer |= {"attn_norm.bias": (hidden,), "mlp_norm.bias": (hidden,)}
            layer |= {
                "attn.q.bias": (queries,),
                "attn.k.bias": (keys,),
                "attn.v.bias": (keys,),
                "attn.o.bias": (hidden,),
            }
            layer |= {"mlp.up.bias": (inner,), "mlp.down.bias": (hidden,)}
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    random = np.random.default_rng(seed)
    weights = pagedcore.WeightMap()
    for name, shape in shapes.items():
        if len(shape) == 2:
            weights.add(name, "f16", shape, random.normal(0, 0.35, shape).astype(np.float16))
        else:
            middle = 0.0 if name.endswith("bias") else 1.0
            weights.add(name, "f32", shape, random.normal(middle, 0.2, shape).astype(np.float32))
    return weights
