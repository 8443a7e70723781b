"""Directories as transformers saves them: every architecture, in one file, in shards and as pickles."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import _core
from pagedcore.default_model import default_model
from pagedcore.errors import Corrupt, Error, InvalidArgument, Io, Unsupported
from pagedcore.families.fields import Fields
from pagedcore.families.llama_like import HUGGINGFACE_NAMES
from pagedcore.loading import Checkpoint, load_checkpoint, load_description
from pagedcore.loading.container import save_container
from pagedcore.loading.huggingface import describe

Tiny = Callable[..., tuple[Path, Any]]


def check_against(model: Any, checkpoint: Checkpoint) -> None:
    """Every parameter of the model, under its canonical name, with its values; and the description."""
    state = dict(model.state_dict())
    config = model.config
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert checkpoint.tensors.keys() == {HUGGINGFACE_NAMES.canonical(name) for name in state}
    for name, weight in state.items():
        tensor = checkpoint.tensors[HUGGINGFACE_NAMES.canonical(name)]
        assert tensor.shape == tuple(weight.shape)
        assert np.array_equal(_core.to_f32(*tensor), weight.float().numpy()), name
    d = checkpoint.description
    rotary = model.model.rotary_emb
    np.testing.assert_allclose(d["rope_inv_freq"], rotary.inv_freq.numpy(), rtol=1e-6)
    assert d["rope_magnitude"] == pytest.approx(rotary.attention_scaling)
    assert (
        d["head_dim"] * 2 * config.num_key_value_heads == 2 * state["model.layers.0.self_attn.k_proj.weight"].shape[0]
    )
    assert d["num_layers"] == config.num_hidden_layers
    assert d["max_context"] == config.max_position_embeddings
    assert d["norm_eps"] == config.rms_norm_eps
    assert d["tied_embeddings"] == config.tie_word_embeddings
    _core.ModelDescription(**d).validate()


CHECKPOINTS = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-5}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 64, "head_dim": 8}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}),
    ("qwen3", {"head_dim": 32}),
    ("qwen3", {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True}),
    (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 128,
            }
        },
    ),
    (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}}
        | {"max_position_embeddings": 2048},
    ),
]


@pytest.mark.parametrize(("kind", "settings"), CHECKPOINTS)
def test_checkpoints(tiny: Tiny, kind: str, settings: dict[str, Any]) -> None:
    folder, model = tiny(kind, **settings)
    with load_checkpoint(folder) as checkpoint:
        check_against(model, checkpoint)
        assert checkpoint.description["architecture"] == type(model).__name__
        assert checkpoint.source_dtype == "f32"
        assert checkpoint.eos_token_ids == [2]
        assert checkpoint.bos_token_id == 1
        assert checkpoint.tokenizer is not None and checkpoint.tokenizer.path == folder
        described = load_description(folder)
        assert described.description == checkpoint.description
        assert described.tensors == {}


def test_bfloat16(tiny: Tiny) -> None:
    import torch

    folder, model = tiny("llama", dtype=torch.bfloat16)
    with load_checkpoint(folder) as checkpoint:
        assert checkpoint.source_dtype == "bf16"
        assert load_description(folder).source_dtype == "bf16"
        check_against(model, checkpoint)


def test_shards(tiny: Tiny, tmp_path: Path) -> None:
    _, model = tiny("qwen2")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    with load_checkpoint(tmp_path) as checkpoint:
        check_against(model, checkpoint)

    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    good = json.dumps(content)
    name, file = next(iter(content["weight_map"].items()))
    content["weight_map"][name] = "../" + file
    index.write_text(json.dumps(content))
    with pytest.raises(Corrupt, match="no file name"):
        load_checkpoint(tmp_path)
    content["weight_map"][name] = next(f for f in content["weight_map"].values() if f not in (file, "../" + file))
    index.write_text(json.dumps(content))
    with pytest.raises(Corrupt, match=f"has no tensor '{name}', which the index"):
        load_checkpoint(tmp_path)
    index.write_text(good)
    (tmp_path / file).unlink()
    with pytest.raises(Io, match=file):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles(tiny: Tiny, tmp_path: Path, legacy: bool) -> None:
    import torch

    folder, model = tiny("llama", dtype=torch.bfloat16)
    shutil.copy(folder / "config.json", tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    with load_checkpoint(tmp_path) as checkpoint:
        check_against(model, checkpoint)


def test_sharded_pickles(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    folder, model = tiny("llama")
    shutil.copy(folder / "config.json", tmp_path)
    weight_map = {}
    for index, (name, weight) in enumerate(model.state_dict().items()):
        file = f"pytorch_model-{index:05}.bin"
        torch.save({name: weight}, tmp_path / file)
        weight_map[name] = file
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with load_checkpoint(tmp_path) as checkpoint:
        check_against(model, checkpoint)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code from a checkpoint ran",)


def test_pickles_run_no_code(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    folder, _ = tiny("llama")
    shutil.copy(folder / "config.json", tmp_path)
    path = tmp_path / "pytorch_model.bin"
    for content in ({"x": Evil()}, [1, 2], {"x": 3}):
        torch.save(content, path)
        with pytest.raises(Corrupt, match=r"pytorch_model\.bin"):
            load_checkpoint(tmp_path)
    path.write_bytes(b"garbage")
    with pytest.raises(Corrupt, match=r"pytorch_model\.bin"):
        load_checkpoint(tmp_path)
    assert "code from a checkpoint ran" not in capsys.readouterr().out


def test_pickles_without_torch(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = tiny("llama")
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'pagedcore\[torch\]'"):
        load_checkpoint(tmp_path)


# The configuration alone. ---------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def parsed(**changes: Any) -> dict[str, Any]:
    _, described = describe(Fields(BASE | changes, "config.json"))
    return described.description


def test_windows_follow_transformers() -> None:
    import transformers

    cases: list[dict[str, Any]] = [
        {"model_type": "mistral", "sliding_window": 64},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "mistral", "sliding_window": 512},
        {"model_type": "qwen2", "sliding_window": 64},
        {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2},
        {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True},
        {"model_type": "qwen3", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0},
        {"model_type": "qwen3", "sliding_window": 64, "use_sliding_window": True}
        | {"layer_types": ["full_attention", "sliding_attention"] * 2},
        {"model_type": "llama", "sliding_window": 64},
    ]
    names = {"mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}
    for case in cases:
        kind = case["model_type"]
        found = parsed(**case, architectures=[f"{names[kind]}ForCausalLM"], num_key_value_heads=2)["windows"]
        settings = {key: value for key, value in case.items() if key != "model_type"}
        config = transformers.AutoConfig.for_model(
            kind, **{k: v for k, v in BASE.items() if k != "architectures"}, **settings
        )
        window = config.sliding_window if kind != "llama" else None
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * 4
        expected = [window if window and kind == "sliding_attention" else 0 for kind in kinds]
        if not any(0 < w < 512 for w in expected):
            expected = []
        assert found == expected, case


def test_mistral_has_a_window_unless_it_says_otherwise() -> None:
    mistral = {"architectures": ["MistralForCausalLM"], "max_position_embeddings": 8192, "num_key_value_heads": 2}
    assert parsed(**mistral)["windows"] == [4096] * 4
    assert parsed(**mistral, sliding_window=None)["windows"] == []


def test_old_and_new_rope_layout() -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    old = parsed(rope_theta=1e6, rope_scaling=yarn)
    new = parsed(rope_parameters={"rope_type": "yarn", "rope_theta": 1e6} | yarn)
    assert old["rope_inv_freq"] == new["rope_inv_freq"]
    assert old["rope_magnitude"] == new["rope_magnitude"] > 1
    assert parsed(rope_theta=1e6)["rope_inv_freq"] == parsed(rope_parameters={"rope_theta": 1e6})["rope_inv_freq"]
    assert parsed()["rope_inv_freq"] == parsed(rope_scaling=None, rope_theta=10000.0)["rope_inv_freq"]


def test_defaults_and_null() -> None:
    assert parsed()["num_kv_heads"] == 4
    assert parsed(num_key_value_heads=None)["num_kv_heads"] == 4
    assert parsed(head_dim=None)["head_dim"] == 16
    qwen3 = {"architectures": ["Qwen3ForCausalLM"], "num_key_value_heads": 2}
    assert parsed(**qwen3)["head_dim"] == 128
    assert parsed(**qwen3, head_dim=None)["head_dim"] == 16
    assert parsed(architectures=None, model_type="qwen2", num_key_value_heads=2)["architecture"] == "Qwen2ForCausalLM"
    assert parsed(hidden_act="gelu_pytorch_tanh")["activation"] == "gelu_tanh"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"architectures": ["MambaForCausalLM"]},
            Unsupported,
            "'MambaForCausalLM' is not supported; supported are Llama",
        ),
        ({"architectures": []}, Corrupt, "architectures"),
        ({"hidden_act": "mish"}, Unsupported, "'mish'"),
        (
            {"quantization_config": {"quant_method": "hqq"}},
            Unsupported,
            "quant_method 'hqq' is not supported; supported are gptq, awq",
        ),
        ({"hidden_size": None}, Corrupt, "hidden_size is missing"),
        ({"hidden_size": "64"}, Corrupt, "hidden_size = '64' is not an integer"),
        ({"hidden_size": 0}, Corrupt, "hidden_size = 0 is outside"),
        ({"num_attention_heads": 2**31}, Corrupt, "num_attention_heads"),
        ({"num_hidden_layers": 10**9}, Corrupt, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, Corrupt, "not a multiple of 3 KV heads"),
        ({"head_dim": 15}, Corrupt, "must be even"),
        ({"rms_norm_eps": 0}, Corrupt, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, Corrupt, "tie_word_embeddings"),
        ({"rope_parameters": []}, Corrupt, "rope_parameters"),
    ],
)
def test_configurations_that_are_refused(changes: dict[str, Any], error: type[Error], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        parsed(**changes)
    assert "config.json" in str(caught.value)


# Directories that lack something. ----------------------------------------------------------------------------------


def test_incomplete_directories(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Io, match=r"has no config\.json"):
        load_checkpoint(tmp_path)
    folder, _ = tiny("llama")
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(Io, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_checkpoint(tmp_path)
    assert load_description(tmp_path).description["num_layers"] == 3
    shutil.copy(folder / "model.safetensors", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, message in [
        ({"num_hidden_layers": 4}, r"missing, the first is 'layers\.3\.attn\.k\.weight'"),
        ({"attention_bias": True}, r"missing, the first is 'layers\.0\.attn\.k\.bias'"),
        ({"architectures": ["Qwen3ForCausalLM"]}, r"layers\.0\.attn\.k_norm\.weight"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(Corrupt, match=message):
            load_checkpoint(tmp_path)
    for content in (b"", b"{", b"[]", b"[" * 100000, b"\xff\xfe{}", b'{"a": 1' + b"0" * 5000 + b"}"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(Corrupt, match=r"config\.json"):
            load_checkpoint(tmp_path)


def test_end_of_text_and_templates(tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = tiny("llama")
    shutil.copy(folder / "config.json", tmp_path)
    assert load_description(tmp_path).eos_token_ids == [2]
    assert load_description(tmp_path).chat_template is None
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9, 7], "bos_token_id": 5}')
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [{"name": "default", "template": "A"}]}')
    checkpoint = load_description(tmp_path)
    assert (checkpoint.eos_token_ids, checkpoint.bos_token_id, checkpoint.chat_template) == ([2, 7, 9], 5, "A")
    (tmp_path / "chat_template.jinja").write_text("B")
    assert load_description(tmp_path).chat_template == "B"
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [{"name": "default", "template": "A"}, {}]}')
    with pytest.raises(Corrupt, match=r"tokenizer_config\.json: chat_template\[1\]"):
        load_description(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    for name in ("generation_config.json", "config.json"):
        content = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(content | {"eos_token_id": [1, "2"]}))
        with pytest.raises(Corrupt, match=rf"{name}: eos_token_id"):
            load_description(tmp_path)
        (tmp_path / "generation_config.json").write_text("{}")


def test_names_that_are_no_path() -> None:
    with pytest.raises(Io, match="no such file or directory, and it is no hub id"):
        load_checkpoint("./no/such/model")
    with pytest.raises(Io, match="no such file"):
        load_checkpoint("model")


def test_hub_ids_go_through_the_hub(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder, _ = tiny("llama")
    calls = []

    def snapshot_download(hub_id: str, allow_patterns: list[str]) -> str:
        calls.append((hub_id, "*.safetensors" in allow_patterns))
        if hub_id == "some/missing":
            raise ValueError("no such repository")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_checkpoint("some/model").name == "some/model"
    load_description("some/model")
    assert calls == [("some/model", True), ("some/model", False)]
    with pytest.raises(Io, match="'some/missing' could not be downloaded"):
        load_checkpoint("some/missing")


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_containers_keep_everything(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    source = default_model() if kind == "gguf" else tiny("qwen2")[0]
    path = tmp_path / "model.safetensors"
    with load_checkpoint(source) as original:
        save_container(path, original)
        with load_checkpoint(path) as copy:
            for name, value in original.description.items():
                assert copy.description[name] == (np.float32(value) if isinstance(value, float) else value), name
            assert copy.tensors.keys() == original.tensors.keys()
            for name, tensor in original.tensors.items():
                assert copy.tensors[name][:2] == tensor[:2]
                assert bytes(copy.tensors[name].read()) == bytes(tensor.read())
            for field in ("source_dtype", "name", "chat_template", "bos_token_id", "sampling"):
                assert getattr(copy, field) == getattr(original, field)
            # Those that end a text by their spelling are in the container: C++ programs have no tokenizer to ask.
            tokens = ["<|im_end|>", "<|endoftext|>", "<reponame>"]
            vocabulary = original.build_tokenizer()
            spelled = [vocabulary.token_to_id(token) for token in tokens] if vocabulary else original.eos_token_ids
            assert copy.eos_token_ids == spelled
            if kind == "gguf":
                ours = copy.build_tokenizer()  # kept as a tokenizer.json, which needs no GGUF metadata
                assert [ours.token_to_id(token) for token in tokens] == spelled
        assert load_description(path).tensors == {}


def test_importing_needs_no_numpy_and_no_torch() -> None:
    code = (
        "import sys; before = set(sys.modules); import pagedcore, pagedcore.loading; "
        "print([m for m in ('numpy', 'torch', 'huggingface_hub', 'safetensors') if m in set(sys.modules) - before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
