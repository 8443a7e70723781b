"""Embeddings against transformers' hidden states in float64, pooled here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pagedcore import LLM, BeamSearchParams, SamplingParams
from pagedcore.errors import Corrupt, InvalidArgument, Unsupported
from pagedcore.families import ENCODERS, FAMILIES, of_config
from pagedcore.families.family import Family
from pagedcore.families.fields import Fields
from pagedcore.loading import load_checkpoint
from pagedcore.loading.container import save_container

Made = Callable[..., tuple[Path, Any]]
ids_of = np.random.default_rng(5).integers(3, 320, size=(8, 100)).tolist()
TEXTS = [ids_of[0][:1], ids_of[1][:2], ids_of[2][:17], ids_of[3][:64], ids_of[4][:65], ids_of[5], ids_of[6][:33]]
SMALL: dict[str, Any] = {"threads": 2, "block_size": 8, "kv_cache_memory": "4MiB"}
# Of 1 - cosine: f32 rounds products of some hundred terms, bf16 keeps 8 bits of them.
FAR = {"float32": 1e-6, "bfloat16": 2e-3}

DECODERS = [(f.name, f.tiny_config(), f.odd) for f in FAMILIES if f.name in ("qwen3", "llama", "gemma2", "gpt2")]
GEMMA = next(f.tiny_config() for f in FAMILIES if f.name == "gemma3") | {"use_bidirectional_attention": True}
BIDIRECTIONAL = [(f.name, f.tiny_config(), f.odd) for f in ENCODERS] + [
    ("embeddinggemma", GEMMA, {"sliding_window": 9})
]
each_decoder = pytest.mark.parametrize("model", DECODERS, ids=lambda model: model[0])
each_bidirectional = pytest.mark.parametrize("model", BIDIRECTIONAL, ids=lambda model: model[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A folder with a small random model without a head, and transformers' model in float64."""
    import transformers

    known: dict[str, tuple[Path, Any]] = {}

    def make(values: dict[str, Any], dtype: Any = torch.float32) -> tuple[Path, Any]:
        key = f"{sorted(values.items())} {dtype}"
        if key not in known:
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(**values)
            model = transformers.AutoModel.from_config(config, dtype=dtype).eval()
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name.lower() or "ln_" in name:
                    parameter.data += 0.2 * torch.randn_like(parameter)
            folder = tmp_path_factory.mktemp("model")
            model.save_pretrained(folder)
            known[key] = folder, model.double()
        return known[key]

    return make


def pooled(model: Any, ids: list[int], pooling: str) -> np.ndarray:
    with torch.inference_mode():
        rows = model(torch.tensor([ids])).last_hidden_state[0]
    row = {"last": rows[-1], "mean": rows.mean(0), "cls": rows[0]}[pooling]
    return row.numpy()


def far(found: np.ndarray, expected: np.ndarray) -> float:
    """1 - cosine."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check(found: np.ndarray, model: Any, pooling: str, most: float) -> None:
    for vector, ids in zip(found, TEXTS, strict=True):
        assert far(vector, pooled(model, ids, pooling)) < most


@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
@each_decoder
def test_decoders_equal_transformers(model: Any, odd: bool, made: Made) -> None:
    _, values, more = model
    folder, reference = made(values | (more if odd else {}))
    with LLM(folder, max_batched_tokens=24, **SMALL) as llm:  # prompts cross chunks
        for pooling in ("last", "mean"):
            found = llm.embed(TEXTS, pooling, normalize=False)
            assert found.dtype == np.float32 and found.shape == (len(TEXTS), llm.description.hidden_size)
            check(found, reference, pooling, FAR["float32"])
            np.testing.assert_allclose(found[3], pooled(reference, TEXTS[3], pooling), rtol=2e-4, atol=2e-4)
        np.testing.assert_array_equal(llm.embed(TEXTS), llm.embed(TEXTS, "last"))
        np.testing.assert_allclose(np.linalg.norm(llm.embed(TEXTS), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
@each_bidirectional
def test_encoders_equal_transformers(model: Any, odd: bool, made: Made, tmp_path: Path) -> None:
    _, values, more = model
    folder, reference = made(values | (more if odd else {}))
    with LLM(folder, **SMALL) as llm:
        for pooling in ("mean", "last", "cls"):
            check(llm.embed(TEXTS, pooling), reference, pooling, FAR["float32"])
        np.testing.assert_array_equal(found := llm.embed(TEXTS), llm.embed(TEXTS, "mean"))
        assert llm.stats()["blocks_cached"] == 0
    with load_checkpoint(folder) as opened:
        save_container(tmp_path / "model.safetensors", opened)
    with LLM(tmp_path / "model.safetensors", **SMALL) as llm:
        np.testing.assert_array_equal(llm.embed(TEXTS), found)


@pytest.mark.parametrize("model", [*DECODERS, *BIDIRECTIONAL], ids=lambda model: model[0])
def test_bfloat16_stays_close(model: Any, made: Made) -> None:
    folder, reference = made(model[1], torch.bfloat16)
    with LLM(folder, dtype="bfloat16", **SMALL) as llm:
        check(llm.embed(TEXTS, "mean"), reference, "mean", FAR["bfloat16"])


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("model", [DECODERS[0], *BIDIRECTIONAL], ids=lambda model: model[0])
def test_same_bits_however_disturbed(model: Any, pooling: str, made: Made) -> None:
    """Alone on one thread, against a batch on two in other steps, with what was cached, preempted."""
    folder, _ = made(model[1] | model[2])
    with LLM(folder, threads=1, kv_cache_memory="4MiB", enable_prefix_caching=False) as llm:
        expected = np.stack([llm.embed(ids, pooling) for ids in TEXTS])
    small = {} if llm.description.bidirectional else {"max_batched_tokens": 13}
    with LLM(folder, **SMALL, **small) as llm:
        for _ in range(2):
            np.testing.assert_array_equal(llm.embed(TEXTS, pooling), expected)
        llm.engine.force_preemption(2, "recompute")
        np.testing.assert_array_equal(llm.embed(TEXTS[::-1], pooling)[::-1], expected)


def test_a_decoder_embeds_beside_requests_that_generate(tiny: Made, tiny_llm: LLM) -> None:
    params = SamplingParams(max_tokens=24, ignore_eos=True, temperature=0)
    alone = [output.outputs[0].token_ids for output in tiny_llm.generate(TEXTS, params)]
    embedded = tiny_llm.embed(TEXTS)
    streams = [tiny_llm.stream(ids, params) for ids in TEXTS]
    np.testing.assert_array_equal(tiny_llm.embed(TEXTS), embedded)
    found = [[token for news in stream for token in news.outputs[0].token_ids] for stream in streams]
    assert found == alone
    before = tiny_llm.stats()["prefix_hit_tokens"]
    tiny_llm.embed(ids_of[7])
    tiny_llm.embed(ids_of[7][:80] + ids_of[0][:9])
    assert tiny_llm.stats()["prefix_hit_tokens"] - before >= 64  # the KV of a text is that of a prompt


@pytest.mark.parametrize("family", ENCODERS, ids=lambda family: family.name)
def test_an_architecture_leads_to_its_encoder(family: Family) -> None:
    import transformers

    for name in family.huggingface.architectures:
        assert hasattr(transformers, name)
        assert of_config(Fields({"architectures": [name]}, "config.json"))[1] is family
    assert of_config(Fields({"model_type": family.huggingface.model_type}, "config.json"))[1] is family


def test_dimensions_are_the_first_ones(tiny_llm: LLM) -> None:
    whole = tiny_llm.embed(TEXTS, normalize=False)
    cut = tiny_llm.embed(TEXTS, dimensions=7)
    expected = whole[:, :7].astype(np.float64)
    np.testing.assert_allclose(cut, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert tiny_llm.embed(TEXTS[0]).shape == (64,)
    assert tiny_llm.embed([]).shape[0] == 0


# sentence-transformers' modules


def modules(folder: Path, to: Path, *kinds: str, pooling: str = "mean_tokens", longest: int = 64) -> Path:
    """A copy of the model with a modules.json."""
    to.mkdir(exist_ok=True)
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    listed = [
        {"idx": at, "name": str(at), "path": "" if kind == "Transformer" else f"{at}_{kind}", "type": f"s.m.{kind}"}
        for at, kind in enumerate(kinds)
    ]
    (to / "modules.json").write_text(json.dumps(listed))
    (to / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))
    for at, kind in enumerate(kinds):
        (to / f"{at}_{kind}").mkdir(exist_ok=True)
        if kind == "Pooling":
            (to / f"{at}_{kind}" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return to


def dense(folder: Path, weight: torch.Tensor, bias: torch.Tensor | None, activation: str) -> None:
    config = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    (folder / "config.json").write_text(json.dumps(config | {"activation_function": f"torch.nn.modules.{activation}"}))
    held = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    save_file(held, str(folder / "model.safetensors"))


@each_bidirectional
def test_modules_json_is_honoured(model: Any, made: Made, tmp_path: Path) -> None:
    folder, reference = made(model[1])
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(150, 64, generator=generator), torch.randn(24, 150, generator=generator) / 8
    bias = torch.randn(150, generator=generator)
    to = modules(folder, tmp_path / "m", "Transformer", "Pooling", "Dense", "Dense", "Normalize", pooling="cls_token")
    dense(to / "2_Dense", first, bias, "activation.Tanh")
    dense(to / "3_Dense", second, None, "linear.Identity")
    with LLM(to, **SMALL) as llm:
        assert llm.max_context == 64
        found = llm.embed(TEXTS[:4])
        container = tmp_path / "model.safetensors"
        with load_checkpoint(to) as opened:
            save_container(container, opened)
    for vector, ids in zip(found, TEXTS[:4], strict=True):
        row = torch.from_numpy(pooled(reference, ids, "cls"))
        expected = second.double() @ torch.tanh(first.double() @ row + bias.double())
        assert vector.shape == (24,)
        assert far(vector, expected.numpy()) < FAR["float32"]
    with LLM(container, **SMALL) as llm:
        np.testing.assert_array_equal(llm.embed(TEXTS[:4]), found)


def test_wrong_modules_are_named(made: Made, tmp_path: Path) -> None:
    folder, _ = made(BIDIRECTIONAL[0][1])
    cases = [
        (modules(folder, tmp_path / "a", "Transformer", "Pooling", pooling="max_tokens"), "pools by max_tokens"),
        (modules(folder, tmp_path / "b", "Transformer", "WordWeights"), "its modules are Transformer, WordWeights"),
        (modules(folder, tmp_path / "c", "Pooling", "Transformer"), "in this order"),
        (modules(folder, tmp_path / "d", "Transformer", "Normalize", "Pooling"), "in this order"),
    ]
    both = modules(folder, tmp_path / "e", "Transformer", "Pooling")
    (both / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}'
    )
    for path, words in (*cases, (both, "pools by cls_token and mean_tokens")):
        with pytest.raises(Unsupported, match=words):
            LLM(path)
    outside = modules(folder, tmp_path / "f", "Transformer", "Pooling")
    (outside / "modules.json").write_text('[{"type": "s.Transformer", "path": "../x"}]')
    text = modules(folder, tmp_path / "g", "Transformer", "Pooling")
    (text / "modules.json").write_text("{}")
    shape = modules(folder, tmp_path / "h", "Transformer", "Pooling", "Dense")
    dense(shape / "2_Dense", torch.zeros(8, 63), None, "linear.Identity")
    for path, words in (
        (outside, "lies outside"),
        (text, "is not a list"),
        (shape, r"dense.0.weight has shape \[8, 63\]"),
    ):
        with pytest.raises(Corrupt, match=words):
            LLM(path)


# What is refused


def test_what_a_decoder_cannot_embed_is_refused(tiny_llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="'cls' takes the row of the first token"):
        tiny_llm.embed(TEXTS, "cls")
    with pytest.raises(InvalidArgument, match="dimensions = 65, but an embedding of this model has 64"):
        tiny_llm.embed(TEXTS, dimensions=65)
    with pytest.raises(InvalidArgument, match="pooling='max' is not one of"):
        tiny_llm.embed(TEXTS, "max")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"text 1: a text of 513 tokens is too long to embed.*at most 512"):
        tiny_llm.embed([TEXTS[0], [5] * 513])
    with pytest.raises(InvalidArgument, match="text 1: a prompt must have at least one token"):
        tiny_llm.embed([TEXTS[0], []])
    assert tiny_llm.embed(TEXTS[0]).shape == (64,)


def test_an_encoder_refuses_to_generate(made: Made) -> None:
    folder, _ = made(BIDIRECTIONAL[0][1])
    with LLM(folder, max_batched_tokens=32, **SMALL) as llm:
        for call in (
            lambda: llm.generate([TEXTS[1]], SamplingParams(max_tokens=4)),
            lambda: llm.beam_search([TEXTS[1]], BeamSearchParams(beam_width=2, max_tokens=4)),
            lambda: llm.score(TEXTS[2]),
            lambda: llm.register_prefix("p", TEXTS[1]),
        ):
            with pytest.raises(InvalidArgument, match="the model makes embeddings only"):
                call()
        with pytest.raises(
            InvalidArgument, match=r"its 33 tokens .* at most 32 \(max_batched_tokens\); raise that to 33"
        ):
            llm.embed([TEXTS[2], TEXTS[6]])
        assert llm.embed(TEXTS[2]).shape == (64,)
        assert llm.stats()["requests_failed"] == 0
