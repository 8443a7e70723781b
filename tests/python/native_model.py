"""A small random model for the native classes, without files."""

import numpy as np

import pagedcore


def make_model(seed=1, vocab=64, hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48):
    head = hidden // heads
    model = pagedcore.ModelDescription(
        architecture="test",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head,
        max_context=256,
        tied_embeddings=True,
        rope_inv_freq=[10000.0 ** (-2 * i / head) for i in range(head // 2)],
    )
    shapes = {"embed.weight": (vocab, hidden), "final_norm.weight": (hidden,)}
    for i in range(layers):
        shapes |= {
            f"layers.{i}.attn_norm.weight": (hidden,),
            f"layers.{i}.attn.q.weight": (hidden, hidden),
            f"layers.{i}.attn.k.weight": (kv_heads * head, hidden),
            f"layers.{i}.attn.v.weight": (kv_heads * head, hidden),
            f"layers.{i}.attn.o.weight": (hidden, hidden),
            f"layers.{i}.mlp_norm.weight": (hidden,),
            f"layers.{i}.mlp.gate.weight": (intermediate, hidden),
            f"layers.{i}.mlp.up.weight": (intermediate, hidden),
            f"layers.{i}.mlp.down.weight": (hidden, intermediate),
        }
    random = np.random.default_rng(seed)
    weights = pagedcore.WeightMap()
    for name, shape in shapes.items():
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, 0.3, shape)
        weights.add(name, "f32", shape, values.astype(np.float32))  # nobody else holds the array
    return model, weights
