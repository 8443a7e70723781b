"""Seeded mutations of valid files and configurations: nothing but pagedcore's errors may come out, and soon.

A long run (PAGEDCORE_LONG_TESTS=1) takes 100,000 of each.
"""

from __future__ import annotations

import copy
import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as reference_gguf
import numpy as np
import pytest
from transformers import AutoConfig

from long_run import LONG_RUN
from pagedcore import _core
from pagedcore.errors import Error
from pagedcore.families import FAMILIES
from pagedcore.families.family import Family
from pagedcore.families.fields import Fields
from pagedcore.loading import load_checkpoint, load_description
from pagedcore.loading.huggingface import describe
from pagedcore.tokenizer import Tokenizer

ARCHITECTURES = [name for family in FAMILIES for name in family.huggingface.architectures]
SLOWEST = 2.0  # seconds of work for one input of a few kilobytes


def only_pagedcore_errors(read: Callable[[], Any], context: object) -> bool:
    """Whether the input was accepted."""
    start = time.process_time()
    try:
        read()
        accepted = True
    except Error as error:
        assert str(error)
        accepted = False
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} escaped: {context!r}") from error
    assert time.process_time() - start < SLOWEST, context
    return accepted


def mutate(random_: random.Random, data: bytes) -> bytes:
    """A few edits; most of them in the header, where the structure is."""
    out = bytearray(data)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        at = random_.randrange(len(out) or 1)
        kind = random_.randrange(6)
        if not out:
            break
        if kind == 0:
            out[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            out[at] = random_.choice([0, 1, 8, 9, 0x7F, 0x80, 0xFF])
        elif kind == 2 and random_.random() < 0.3:
            del out[at:]
        elif kind == 3:  # a length, count or offset
            value = random_.choice([0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, 2**64 - 32, len(out)])
            out[at : at + 8] = struct.pack("<Q", value)
        elif kind == 4:
            del out[at : at + random_.randrange(1, 16)]
        else:
            source = random_.randrange(len(data))
            out[at:at] = data[source : source + random_.randrange(1, 64)]
    return bytes(out)


@pytest.fixture(scope="module")
def valid_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "valid.gguf"
    writer = reference_gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_rope_scaling_type(reference_gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(2.0)
    writer.add_token_list(["a", "b", "é", "<s>"])
    writer.add_token_scores([0.0, 1.0, 2.0, 3.0])
    writer.add_eos_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages }}")
    writer.add_array("x.nested", [[1, 2], [3]])
    rows = {"attn_q": 32, "attn_k": 16, "attn_v": 16, "attn_output": 32, "ffn_gate": 32, "ffn_up": 32, "ffn_down": 32}
    q8_0 = reference_gguf.GGMLQuantizationType.Q8_0
    for name, n in rows.items():
        weight = np.ones((n, 32), np.float32)
        writer.add_tensor(f"blk.0.{name}.weight", reference_gguf.quantize(weight, q8_0), raw_dtype=q8_0)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float16))
    writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def read_everything(path: Path) -> None:
    with load_checkpoint(path) as checkpoint:
        _core.ModelDescription(**checkpoint.description).validate()
        for tensor in checkpoint.tensors.values():
            _core.to_f32(*tensor)


def test_gguf(valid_gguf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mutated.gguf"
    path.write_bytes(valid_gguf)
    read_everything(path)
    random_ = random.Random(1)
    accepted = 0
    rounds = 100_000 if LONG_RUN else 1500
    header = valid_gguf[: len(valid_gguf) // 3]
    for round_ in range(rounds):
        part = header if round_ % 4 else valid_gguf
        content = mutate(random_, part) + valid_gguf[len(part) :]
        path.write_bytes(content)
        accepted += only_pagedcore_errors(lambda: read_everything(path), content)
    assert 0 < accepted < rounds


def test_gguf_cut_anywhere(valid_gguf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    for size in range(0, len(valid_gguf), 67):
        path.write_bytes(valid_gguf[:size])
        assert not only_pagedcore_errors(lambda: read_everything(path), size)


VALID_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "use_sliding_window": True,
    "sliding_window": 64,
    "max_window_layers": 2,
    "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "truncate": True,
    },
    "eos_token_id": [2, 3],
    "bos_token_id": 1,
    "torch_dtype": "bfloat16",
    "quantization_config": None,
}

JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, 2**63, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), "", "x", "default", "linear", "dynamic", "llama3", "longrope", "\ud800", "é" * 300, [],
    {}, [None], [[]], {"a": 1}, ["LlamaForCausalLM"], ARCHITECTURES, [1, 2, 3],
]  # fmt: skip


OF_NO_MODEL = {"return_dict", "output_hidden_states", "transformers_version", "chunk_size_feed_forward", "problem_type"}


def mutated_config(random_: random.Random) -> dict[str, Any]:
    config = copy.deepcopy(VALID_CONFIG)
    config["architectures"] = [random_.choice(ARCHITECTURES)]
    for _ in range(random_.choice([1, 1, 2, 3])):
        target: Any = config["rope_parameters"] if random_.random() < 0.4 else config
        if not isinstance(target, dict) or not target:
            continue
        key = random_.choice(list(target))
        if random_.random() < 0.15:
            del target[key]
            config.setdefault("rope_parameters", None)
        else:
            target[key] = random_.choice(JUNK)
    return config


def test_config_values() -> None:
    random_ = random.Random(2)
    accepted = 0
    rounds = 100_000 if LONG_RUN else 4000

    def read(config: dict[str, Any]) -> None:
        _, described = describe(Fields(config, "config.json"))
        _core.ModelDescription(**described.description).validate()

    read(VALID_CONFIG)
    for _ in range(rounds):
        config = mutated_config(random_)
        accepted += only_pagedcore_errors(lambda config=config: read(config), config)
    assert 0 < accepted < rounds


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_fields_of_a_family(family: Family) -> None:
    """One field of its own configuration at a time: what no other family has, too."""
    config = AutoConfig.for_model(**family.tiny_config()).to_dict()
    config = json.loads(json.dumps(config)) | {"architectures": [family.huggingface.architectures[0]]}

    def read(config: dict[str, Any]) -> None:
        _, described = describe(Fields(config, "config.json"))
        _core.ModelDescription(**described.description).validate()

    read(config)
    fields = [field for field in config if "id" not in field.split("_") and field not in OF_NO_MODEL]
    every = [(field, junk) for field in fields for junk in [*JUNK, -1e39, 1e-39, [0.5] * 8, ["sliding_attention"] * 3]]
    random_ = random.Random(family.name)
    for field, junk in every if LONG_RUN else random_.sample(every, 100):
        only_pagedcore_errors(lambda junk=junk, field=field: read(config | {field: junk}), (field, junk))
    for field in fields:  # numbers that a float of 32 bits does not have
        if isinstance(config[field], float):
            for junk in (1e308, -1e308, 1e39, 1e-320, 1e-39):
                only_pagedcore_errors(lambda junk=junk, field=field: read(config | {field: junk}), (field, junk))


def test_json_files(tmp_path: Path) -> None:
    """Bytes of every JSON file that a directory may have."""
    files = {
        "config.json": json.dumps(VALID_CONFIG).encode(),
        "generation_config.json": b'{"eos_token_id": [2, 3], "bos_token_id": 1}',
        "tokenizer_config.json": b'{"chat_template": [{"name": "default", "template": "{{ messages }}"}]}',
        "chat_template.json": b'{"chat_template": "x"}',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    load_description(tmp_path)
    random_ = random.Random(3)
    for _ in range(100_000 if LONG_RUN else 400):
        name = random_.choice(list(files))
        content = mutate(random_, files[name])
        (tmp_path / name).write_bytes(content)
        only_pagedcore_errors(lambda: load_description(tmp_path), (name, content))
        (tmp_path / name).write_bytes(files[name])


def test_weight_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(VALID_CONFIG))
    index = tmp_path / "model.safetensors.index.json"
    valid = b'{"metadata": {}, "weight_map": {"lm_head.weight": "model-1.safetensors", "a": "b"}}'
    random_ = random.Random(4)
    for _ in range(100_000 if LONG_RUN else 200):
        content = mutate(random_, valid)
        index.write_bytes(content)
        assert not only_pagedcore_errors(lambda: load_checkpoint(tmp_path), content)


REPLACE = {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), True)
VALID_TOKENIZERS = {
    "tokenizer.json": json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": 4, "content": "<s>"} | FLAGS],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, REPLACE]},
            "pre_tokenizer": BYTES,
            "post_processor": None,
            "decoder": BYTES,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3}, "merges": [["a", "b"]]},
        }
    ).encode(),
    "tokenizer.model": (
        Path(__file__).parents[1] / "data" / "sentencepiece" / "prefix" / "tokenizer.model"
    ).read_bytes(),
}


@pytest.mark.parametrize("name", VALID_TOKENIZERS)
def test_tokenizers(name: str, tmp_path: Path) -> None:
    valid = VALID_TOKENIZERS[name]
    random_ = random.Random(5)
    accepted = 0
    rounds = 100_000 if LONG_RUN else 400
    for _ in range(rounds):
        content = mutate(random_, valid)
        (tmp_path / name).write_bytes(content)
        accepted += only_pagedcore_errors(lambda: Tokenizer.from_path(tmp_path), content)
    assert 0 < accepted < rounds
