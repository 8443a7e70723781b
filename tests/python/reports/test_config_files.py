"""Files beside a model that are no configuration: one error that names the file, at once, without blocking.

Expected: an Io error for what is no regular file, a Corrupt error with file and field for what is no JSON object or no
value of its field.
"""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, Error, InvalidArgument, ModelFile
from pagedcore.errors import Corrupt, Io
from pagedcore.families import FAMILIES
from pagedcore.families.family import Family
from pagedcore.families.fields import Fields
from pagedcore.loading.huggingface import describe
from pagedcore.loading.sentence_modules import sentence_modules

FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates",
    "additional_chat_templates/tool_use.jinja",
]
JSON_FILES = [name for name in FILES if name.endswith(".json")]


@pytest.fixture
def folder(tiny: Callable[..., tuple[Path, Any]], llm: LLM, tmp_path: Path) -> Path:
    """A small model with a tokenizer."""
    shutil.copytree(tiny("llama", vocab_size=49152)[0], tmp_path / "model")
    assert llm.tokenizer is not None
    llm.tokenizer.backend.save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def refused(folder: Path, error: type[Error], *words: str) -> None:
    with pytest.raises(error) as raised:
        LLM(folder, kv_cache_memory="1MiB").close()
    for word in words:
        assert word in str(raised.value), raised.value


@pytest.mark.parametrize("name", FILES)
def test_fifos_devices_directories_and_lost_links(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    refused(folder, Io, name.split("/")[-1])
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(folder, Io, name.split("/")[-1])
    path.unlink()
    path.symlink_to("nowhere")
    refused(folder, Io, name.split("/")[-1])
    if name != "additional_chat_templates":
        path.unlink()
        path.mkdir()
        refused(folder, Io, name.split("/")[-1], "directory")


def test_a_model_that_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    refused(tmp_path / "model.gguf", Io, "model.gguf", "FIFO")
    refused(Path("/dev/zero"), Io, "/dev/zero", "device")


CONTENTS = {
    "list": b"[1, 2]",
    "text": b'"x"',
    "null": b"null",
    "deep": b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
    "deeper": b'{"a": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    "cut": b'{"a": ',
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "many": b'{"a": [' + b"[]," * 600000 + b"0]}",
    "latin1": b'{"a": "\xe9"}',
    "empty": b"",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", JSON_FILES)
def test_what_is_no_object(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(CONTENTS[content])
    refused(folder, Corrupt, name)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("generation_config.json", "temperature", "hot"),
        ("generation_config.json", "temperature", 1e400),
        ("generation_config.json", "top_p", [0.5]),
        ("generation_config.json", "top_k", 2.5),
        ("generation_config.json", "do_sample", "yes"),
        ("generation_config.json", "max_new_tokens", True),
        ("generation_config.json", "eos_token_id", "</s>"),
        ("generation_config.json", "eos_token_id", [1, None]),
        ("config.json", "eos_token_id", 1.5),
        ("config.json", "bos_token_id", {}),
        ("tokenizer_config.json", "chat_template", 3),
        ("tokenizer_config.json", "chat_template", {"default": "x"}),
        ("tokenizer_config.json", "chat_template", [{"name": "a"}]),
        ("tokenizer_config.json", "chat_template", [{"name": "a", "template": "x"}] * 2),
        ("chat_template.json", "chat_template", ["x"]),
    ],
)
def test_what_is_no_value_of_its_field(folder: Path, name: str, field: str, value: Any) -> None:
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | {field: value}))
    refused(folder, Corrupt, name, field)


ABSURD: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 2**31 - 1, "num_attention_heads": 3}, r"head_dim is missing; .* 715827882, is outside"),
    ({"num_attention_heads": 2**30, "num_key_value_heads": 2**30}, "num_attention_heads = 1073741824 is outside"),
    ({"num_hidden_layers": 2**30}, "num_hidden_layers = 1073741824 is outside"),
    ({"rope_scaling": {"type": "default", "partial_rotary_factor": 1e9}}, "partial_rotary_factor = 1000000000.0"),
]


@pytest.mark.parametrize(("values", "says"), ABSURD)
def test_sizes_that_no_model_has_are_named(values: dict[str, Any], says: str) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4}
    config |= {"vocab_size": 320, "intermediate_size": 96, "num_hidden_layers": 2}
    describe(Fields(config, "config.json"))
    with pytest.raises(Corrupt, match=rf"^config\.json.*{says}"):
        describe(Fields(config | values, "config.json"))


@pytest.mark.parametrize("values", [values for values, _ in ABSURD])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_sizes_that_no_model_has_take_no_memory(family: Family, values: dict[str, Any]) -> None:
    """Lists of 2^30 frequencies or slopes were made before anything was checked: 30 GB for a file of a kilobyte."""
    names = {"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}
    own = family.tiny_config()
    config = own | {names[key] if names.get(key) in own else key: value for key, value in values.items()}
    config = {key: value for key, value in config.items() if key != "head_dim"}
    tracemalloc.start()
    try:
        with suppress(Error):
            describe(Fields(config | {"architectures": [family.huggingface.architectures[0]]}, "config.json"))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [1, 0, -3])
def test_a_model_of_fewer_than_two_positions_names_the_file(folder: Path, value: int) -> None:
    """A prompt token and a generated one. The message was of a max_context that nobody had given."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": value}))
    refused(folder, Corrupt, "config.json", "max_position_embeddings")


@pytest.mark.parametrize("value", [1, 0])
def test_texts_of_fewer_than_two_tokens_name_the_file(tmp_path: Path, value: int) -> None:
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": value}))
    with pytest.raises(Corrupt, match=rf"sentence_bert_config\.json: max_seq_length = {value} "):
        sentence_modules(tmp_path)


@pytest.mark.parametrize("name", ["\ud800.safetensors", "\udfff"])
def test_a_name_that_no_file_can_have(folder: Path, name: str) -> None:
    """From a file: it was a UnicodeEncodeError. The message can be printed."""
    (folder / "model.safetensors").unlink()
    index = json.dumps({"weight_map": {"model.norm.weight": name}})
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(Corrupt, match=r"index\.json: the tensor .* which is no file name") as raised:
        LLM(folder, kv_cache_memory="1MiB").close()
    str(raised.value).encode()
    with pytest.raises(InvalidArgument, match=r"ModelFile\(\): path = .* is not valid Unicode"):
        ModelFile("/tmp/" + name)
    (folder / "modules.json").write_text(json.dumps([{"path": name, "type": "x.Pooling"}]))
    with pytest.raises(Io, match="is no name that a file can have") as raised:
        sentence_modules(folder)
    str(raised.value).encode()
