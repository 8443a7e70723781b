"""Model files that people have: written to while they are read, in several parts, with tensors that no model needs, of
another format than the reader's, pipes and devices."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as reference_gguf
import numpy as np
import pytest

import pagedcore
from gguf_writer import write_gguf
from pagedcore import LLM, SamplingParams, _core
from pagedcore.errors import Corrupt, Io, Unsupported
from pagedcore.loading import load_checkpoint
from pagedcore.loading.container import save_container

Tiny = Callable[..., tuple[Path, Any]]
GREEDY = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)


def tokens(model: Path, **options: Any) -> list[int]:
    with LLM(model, dtype="float32", kv_cache_memory="1MiB", **options) as llm:
        return list(llm.generate([[1, 5, 7, 9]], GREEDY)[0].outputs[0].token_ids)


@pytest.fixture(params=["gguf", "safetensors", "container", "bin"])
def model_file(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> tuple[Path, Path]:
    """(what is opened, the file with its weights) of each format."""
    folder, model = tiny("llama")
    if request.param == "gguf":
        path = write_gguf(tmp_path / "model.gguf", model, "llama")
        return path, path
    if request.param == "container":
        path = tmp_path / "model.pagedcore"
        with load_checkpoint(folder) as checkpoint:
            save_container(path, checkpoint)
        return path, path
    shutil.copy(folder / "config.json", tmp_path)
    if request.param == "safetensors":
        shutil.copy(folder / "model.safetensors", tmp_path)
        return tmp_path, tmp_path / "model.safetensors"
    import torch

    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path, tmp_path / "pytorch_model.bin"


def test_a_file_that_is_shortened_or_overwritten_while_it_is_loaded_is_one_error(model_file: tuple[Path, Path]) -> None:
    """`cp new model` empties the file that is being read. Mapped, that was SIGBUS and the end of the process; now it is
    Io with the file's name. A file that is as long as before is refused too: half of its weights would be others."""
    model, file = model_file
    if file.suffix == ".bin":
        pytest.skip("torch reads the whole file when it is opened")
    whole = file.read_bytes()
    size = len(whole)
    for change in (lambda: os.truncate(file, 0), lambda: os.truncate(file, size // 2), lambda: os.utime(file, (1, 1))):
        weights = _core.WeightMap()
        with load_checkpoint(model) as checkpoint:
            description = _core.ModelDescription(**checkpoint.description)
            for name, (dtype, shape, buffer) in checkpoint.tensors.items():
                weights.add(name, dtype, shape, buffer)
        change()
        with pytest.raises(Io, match=rf"{file.name}: was changed while it was read \(it had {size} bytes"):
            _core.Engine(description, weights, _core.EngineConfig(kv_cache_memory=1 << 20))
        file.write_bytes(whole)
    tokens(model)


def test_mapping_gives_the_same_tokens_by_choice(model_file: tuple[Path, Path]) -> None:
    model, _ = model_file
    assert tokens(model, mmap=True) == tokens(model)
    with pytest.raises(pagedcore.InvalidArgument, match="mmap='yes' must be True or False"):
        LLM(model, mmap="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("shards", [2, 5])
def test_split_files_are_one_model(tiny: Tiny, tmp_path: Path, shards: int) -> None:
    """As gguf-split writes them: metadata in the first, each with split.no (from 0), split.count and
    split.tensors.count. Any one of them names the whole."""
    whole = write_gguf(tmp_path / "whole.gguf", tiny("llama")[1], "llama")
    paths = split(whole, shards)
    expected = tokens(whole)
    assert tokens(paths[0]) == expected
    assert tokens(paths[-1]) == expected
    paths[1].rename(tmp_path / "away")
    with pytest.raises(Io, match=rf"is part 1 of a model in {shards} files; missing in .*: {paths[1].name}"):
        LLM(paths[0])
    # A part under another name: which files are missing cannot be known, but what they must be called can.
    paths[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(Io, match=rf"is part 1 of a model in {shards} files, .*-00001-of-0000{shards}.gguf"):
        LLM(tmp_path / "renamed.gguf")


def test_parts_that_do_not_belong_together_are_corrupt(tiny: Tiny, tmp_path: Path) -> None:
    paths = split(write_gguf(tmp_path / "whole.gguf", tiny("llama")[1], "llama"), 3)
    shutil.copy(paths[1], paths[2])
    with pytest.raises(Corrupt, match=rf"{paths[2].name}: split.no = 1, but by its name it is number 2"):
        LLM(paths[0])


@pytest.mark.parametrize("count", [0, 100_000, 2**64 - 1, -1, "3", [3], True, 2.5])
def test_a_count_of_parts_that_is_none_is_named(tmp_path: Path, count: Any) -> None:
    writer = reference_gguf.GGUFWriter(tmp_path / "model-00001-of-00003.gguf", "llama")
    kind = reference_gguf.GGUFValueType.UINT64 if count in (0, 100_000, 2**64 - 1) and count is not True else None
    writer.add_key_value("split.count", count, kind or reference_gguf.GGUFValueType.get_type(count))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        Corrupt, match=r"00001-of-00003\.gguf: split\.count = .* is (outside \[1, 99999\]|not an integer)"
    ):
        LLM(tmp_path / "model-00001-of-00003.gguf")


def split(whole: Path, count: int) -> list[Path]:
    reader = reference_gguf.GGUFReader(whole)
    paths = []
    for number in range(count):
        paths.append(whole.parent / f"model-{number + 1:05}-of-{count:05}.gguf")
        writer = reference_gguf.GGUFWriter(paths[-1], "llama")
        if number == 0:
            for field in reader.fields.values():
                if field.name.startswith("GGUF.") or field.name == "general.architecture":
                    continue
                writer.add_key_value(field.name, field.contents(), field.types[0])
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, np.array(tensor.data))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


class With:
    """A model with more tensors than it has."""

    def __init__(self, model: Any, more: dict[str, Any]) -> None:
        self.config = model.config
        self._state = {**model.state_dict(), **more}

    def state_dict(self) -> dict[str, Any]:
        return self._state


@pytest.mark.parametrize("name", ["blk.0.attn_sub_norm.weight", "blk.7.attn_norm.weight", "v.patch_embd.weight", "x"])
def test_gguf_tensors_without_a_use_are_a_warning(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """They were an error. What an architecture has elsewhere (a bias of a norm) stays one: it would change results."""
    _, model = tiny("llama")
    expected = tokens(write_gguf(tmp_path / "plain.gguf", model, "llama"))
    more = With(model, {name: model.state_dict()["model.norm.weight"]})
    with caplog.at_level(logging.WARNING, logger="pagedcore"):
        assert tokens(write_gguf(tmp_path / "more.gguf", more, "llama")) == expected
    assert "1 tensors are not part of a LlamaForCausalLM of 3 layers and are ignored" in caplog.text
    assert "more.gguf" in caplog.text


def test_safetensors_without_a_use_are_a_warning(tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in transformers ("some weights of the checkpoint were not used"): layers beyond num_hidden_layers, biases that
    the configuration does not ask for, other modules."""
    from safetensors.torch import save_file

    folder, model = tiny("llama")
    shutil.copy(folder / "config.json", tmp_path)
    state = dict(model.state_dict())
    norm = state["model.norm.weight"]
    for name in ("model.layers.9.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias", "value_head.weight"):
        state[name] = norm.clone()
    save_file(state, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING, logger="pagedcore"):
        assert tokens(tmp_path) == tokens(folder)
    assert "3 tensors are not part of" in caplog.text
    assert "'value_head.weight'" in caplog.text


@pytest.mark.parametrize(
    ("kind", "factor", "expected"),
    [(None, 4.0, 4.0), (None, 0.0, 1.0), ("linear", 0.0, 1.0), ("none", 4.0, 1.0), ("linear", 2.5, 2.5)],
)
def test_rope_factor_without_type_is_linear_and_0_is_none(
    tiny: Tiny, tmp_path: Path, kind: str | None, factor: float, expected: float
) -> None:
    """As llama.cpp reads them: type linear if there is none, factor 0 as 1. inv_freq[i] = theta^(-2i / 16) / factor."""

    def edit(writer: Any) -> None:
        if kind is not None:
            writer.add_string("llama.rope.scaling.type", kind)
        writer.add_float32("llama.rope.scaling.factor", factor)

    with load_checkpoint(write_gguf(tmp_path / "m.gguf", tiny("llama")[1], "llama", edit)) as checkpoint:
        found = checkpoint.description["rope_inv_freq"]
    assert found == pytest.approx([10000.0 ** (-2 * i / 16) / expected for i in range(8)], rel=1e-6)


def test_rope_factors_that_are_none_are_corrupt(tiny: Tiny, tmp_path: Path) -> None:
    for factor in (-1.0, math.nan, math.inf):
        path = write_gguf(
            tmp_path / "m.gguf",
            tiny("llama")[1],
            "llama",
            lambda writer, factor=factor: writer.add_float32("llama.rope.scaling.factor", factor),
        )
        with pytest.raises(Corrupt, match=r"m\.gguf: llama\.rope\.scaling\.factor"):
            load_checkpoint(path)


def test_another_format_is_named(tiny: Tiny, tmp_path: Path) -> None:
    """A GGUF file was "a header of 14064895815 bytes"."""
    path = write_gguf(tmp_path / "m.gguf", tiny("llama")[1], "llama")
    with pytest.raises(Unsupported, match=r"m\.gguf: is a GGUF file, which pagedcore\.LLM opens"):
        pagedcore.ModelFile(str(path))
    (tmp_path / "m.bin").write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(Unsupported, match=r"m\.bin: is a zip archive, as PyTorch's checkpoints are"):
        pagedcore.ModelFile(str(tmp_path / "m.bin"))


def test_pipes_and_devices_are_no_model_files(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing waits for a writer, nothing reads without end. In a process of its own: a hang would be this one's."""
    folder, _ = tiny("llama")
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("model.safetensors", "pytorch_model.bin"):
        os.makedirs(tmp_path / name)
        shutil.copy(folder / "config.json", tmp_path / name)
        os.mkfifo(tmp_path / name / name)
    script = """
import sys, pagedcore
for path in sys.argv[1:]:
    try:
        pagedcore.LLM(path)
    except pagedcore.Error as error:
        print(type(error).__name__, error)
"""
    paths = [tmp_path / "pipe.gguf", "/dev/zero", tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout + done.stderr
    assert all(line.startswith("Io ") and "regular file" in line for line in lines), lines


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "intermediate_size"])
def test_sizes_that_no_model_has_name_the_file_and_the_field(tiny: Tiny, tmp_path: Path, field: str) -> None:
    """2^24 is the most of each (`kMostExtent`). The message was the native description's alone, without the file."""
    config = json.loads((tiny("llama")[0] / "config.json").read_text())
    for value in (2**24 + 1, 2**33):
        (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(Corrupt, match=rf"{tmp_path}.*{field} = {value}"):
            LLM.plan(tmp_path)


def test_a_gguf_vocabulary_of_two_to_the_33_rows(tmp_path: Path) -> None:
    """The file is as large as it says: a hole. Numbers beyond 2^31 reach no native integer."""
    path = tmp_path / "m.gguf"
    writer = reference_gguf.GGUFWriter(path, "llama")
    for key, value in (("block_count", 1), ("context_length", 64), ("embedding_length", 64)):
        writer.add_uint32(f"llama.{key}", value)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor_info("token_embd.weight", (2**33, 64), np.dtype(np.float16), 2**40)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, 2**40 + 4096)
    with pytest.raises(Corrupt, match=r"m\.gguf: .*vocab_size = 8589934592 is out of range"):
        LLM.plan(path)


def test_a_container_without_a_weight_names_the_file(tiny: Tiny, tmp_path: Path) -> None:
    with load_checkpoint(tiny("llama")[0]) as checkpoint:
        del checkpoint.tensors["layers.1.attn.k.weight"]
        save_container(tmp_path / "m.pagedcore", checkpoint)
    with pytest.raises(
        Corrupt, match=r"m\.pagedcore: 1 weights are missing, the first is 'layers\.1\.attn\.k\.weight'"
    ):
        LLM(tmp_path / "m.pagedcore")
