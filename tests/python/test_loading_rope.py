"""Inverse frequencies against transformers' own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pagedcore.errors import Corrupt, Error, Unsupported
from pagedcore.families.fields import Fields
from pagedcore.families.rope import Rope, default_rope, rope_from_parameters

CASES: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "linear", "factor": 2.5, "rope_theta": 1e6},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 8192, "rope_theta": 500000.0},
    {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.5, "high_freq_factor": 3.0}
    | {"original_max_position_embeddings": 512},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6},
    {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096, "beta_fast": 64, "beta_slow": 2},
    {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707}
    | {"mscale_all_dim": 1.0},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096, "attention_factor": 1.25},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096, "truncate": False},
    {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 131072},
    {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16384},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 7},
]


def ours(parameters: dict[str, Any], head_dim: int, max_context: int = 131072) -> Rope:
    return rope_from_parameters(Fields(parameters, "config.json: rope_parameters"), head_dim, max_context)


@pytest.mark.parametrize("head_dim", [64, 128, 80])
@pytest.mark.parametrize("parameters", CASES)
def test_like_transformers(parameters: dict[str, Any], head_dim: int) -> None:
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_theta": 10000.0} | parameters
    config = transformers.LlamaConfig(
        hidden_size=head_dim * 2,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=131072,
        rope_parameters=dict(parameters),
    )
    expected, magnitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, device="cpu")
    rope = ours(parameters, head_dim)
    # transformers computes in f32: a few units in the last place apart, more where a blend of two frequencies cancels.
    rtol = 4e-6 if parameters["rope_type"] in ("llama3", "yarn") else 1e-6
    np.testing.assert_allclose(rope.inv_freq, expected.numpy(), rtol=rtol, atol=0)
    assert rope.magnitude == pytest.approx(magnitude, rel=1e-7)


@pytest.mark.parametrize(
    "nameless", [{}, {"type": ""}, {"rope_type": ""}, {"type": None}, {"rope_type": "", "type": ""}]
)
def test_a_factor_without_a_kind_is_linear(nameless: dict[str, Any]) -> None:
    """As llama.cpp has it (ggml's rope.scaling.factor without rope.scaling.type); 0 is no scaling."""
    theta = {"rope_theta": 1e4}
    assert ours(nameless | theta | {"factor": 4.0}, 64) == ours({"rope_type": "linear", "factor": 4.0} | theta, 64)
    for factor in ({"factor": 0}, {"factor": 0.0}, {"factor": None}, {}):
        assert ours(nameless | theta | factor, 64) == default_rope(1e4, 64)
    for name in ("low_freq_factor", "beta_fast", "short_factor", "mscale"):
        with pytest.raises(Corrupt, match=f"{name} = 1.0 belongs to a rope_type, and none is named"):
            ours(nameless | theta | {"factor": 4.0, name: 1.0}, 64)
    assert ours({"rope_type": "", "type": "linear", "factor": 3.0} | theta, 64).inv_freq[0] == pytest.approx(1 / 3)


def test_default() -> None:
    import torch

    expected = 1.0 / (10000.0 ** (torch.arange(0, 64, 2, dtype=torch.float64) / 64))
    rope = default_rope(10000.0, 64)
    assert rope.magnitude == 1.0
    assert np.array_equal(np.array(rope.inv_freq, np.float32), expected.to(torch.float32).numpy())
    assert all(value == np.float32(value) for value in rope.inv_freq)


def test_dynamic_is_unscaled_within_the_original_context() -> None:
    assert ours({"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}, 64) == default_rope(1e4, 64)


def test_unserved_kinds_are_named() -> None:
    with pytest.raises(Unsupported, match=r"rope_type 'ntk'.*default, linear, dynamic, yarn, llama3, longrope"):
        ours({"rope_type": "ntk", "rope_theta": 1e4}, 64)


def test_heads_may_be_rotated_in_part() -> None:
    half = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    assert ours(half, 64) == default_rope(1e4, 32)
    with pytest.raises(Corrupt, match="must be even"):
        ours(half, 6)


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_theta": 0},
        {"rope_theta": 1.0},
        {"rope_theta": float("nan")},
        {"rope_theta": "10000"},
        {"rope_theta": 10**400},
        {"rope_type": "linear"},
        {"rope_type": "linear", "factor": 0},
        {"rope_type": "linear", "factor": 1e-300},
        {"rope_type": "linear", "factor": True},
        {"rope_type": 3},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0},
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": -1},
        {"rope_type": "yarn", "factor": 4.0, "mscale": 1e308, "mscale_all_dim": 1.0},
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(Error) as caught:
        ours({"rope_theta": 10000.0} | parameters, 64)
    assert caught.type is Corrupt
    assert "config.json" in str(caught.value)


def test_longrope_like_transformers_beyond_the_original_context() -> None:
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {
        **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096},
        **{"partial_rotary_factor": 0.75, "short_factor": [1.0] * 48},
        "long_factor": [1.0 + 0.7 * i for i in range(48)],
    }
    config = transformers.Phi3Config(
        **{"hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 131072, "pad_token_id": 0},
        **{"original_max_position_embeddings": 4096, "rope_parameters": dict(parameters)},
    )
    expected, magnitude = ROPE_INIT_FUNCTIONS["longrope"](config, device="cpu", seq_len=4097)
    rope = ours(parameters, 128)
    np.testing.assert_allclose(rope.inv_freq, expected.numpy(), rtol=1e-6, atol=0)  # transformers computes in f32
    assert rope.magnitude == pytest.approx(magnitude, rel=1e-7)
    with pytest.raises(Corrupt, match=r"long_factor = .* is not a list of 32 numbers"):
        ours(parameters | {"partial_rotary_factor": 0.5}, 128)
