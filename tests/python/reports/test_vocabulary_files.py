"""Directories without a tokenizer.json: tokenizer.model, or vocab.json and merges.txt.

The reference of tokenizer.model is the sentencepiece library (0.2.2): tests/data/sentencepiece has two models that it
trained (BPE, byte_fallback, with add_dummy_prefix and without, a user-defined <mark> and a control symbol <turn>), and
what it makes of 128 texts. That of the others is transformers' AutoTokenizer on the same files. All of them opened
silently without a tokenizer.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from pagedcore import LLM, SamplingParams
from pagedcore.errors import Corrupt, Error, Unsupported
from pagedcore.loading import load_description
from pagedcore.tokenizer import Tokenizer
from texts import tokenizer_texts

Tiny = Callable[..., tuple[Path, Any]]
TEXTS = [text for text in tokenizer_texts(400) if "\0" not in text]
DATA = Path(__file__).parents[2] / "data" / "sentencepiece"


@pytest.mark.parametrize("name", ["prefix", "plain"])
def test_a_sentencepiece_model_encodes_as_its_library_does(name: str) -> None:
    expected = json.loads((DATA / name / "expected.json").read_text())
    tokenizer = Tokenizer.from_path(DATA / name)
    assert tokenizer.vocab_size == expected["size"]
    assert tokenizer.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for text, ids, decoded in expected["texts"]:
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.encode(text) == [expected["bos"], *ids]
        assert tokenizer.decode(ids) == decoded
    mark, turn = expected["mark"], expected["turn"]
    ids = tokenizer.encode("a<mark>b<turn>", add_special_tokens=False)
    assert ids.count(mark) == ids.count(turn) == 1
    assert tokenizer.is_special(turn) and not tokenizer.is_special(mark)


def test_settings_beside_a_sentencepiece_model_hold(tmp_path: Path) -> None:
    shutil.copy(DATA / "prefix" / "tokenizer.model", tmp_path)
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True, "eos_token": "<turn>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    expected = json.loads((DATA / "prefix" / "expected.json").read_text())
    (ids,) = [ids for text, ids, _ in expected["texts"] if text == "a b"]
    tokenizer = Tokenizer.from_path(tmp_path)
    assert tokenizer.encode("a b") == [*ids, expected["turn"]]
    assert tokenizer.special_tokens["eos_token"] == "<turn>"


def test_broken_sentencepiece_models_are_one_error(tmp_path: Path) -> None:
    data = (DATA / "prefix" / "tokenizer.model").read_bytes()
    rng = random.Random(1)
    path = tmp_path / "tokenizer.model"
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    contents = [b"", b"\x0a", b"\xff" * 40, pointer, data[:-1], data[: len(data) // 2]]
    for _ in range(100):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(len(data))] = rng.randrange(256)
        contents.append(bytes(broken))
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            Tokenizer.from_path(tmp_path)
        except Error as error:
            refused += 1
            assert "tokenizer.model" in str(error) or str(tmp_path) in str(error)
    assert refused >= 6


def byte_level(folder: Path, kind: str | None, **config: Any) -> None:
    """vocab.json and merges.txt, trained here, of a vocabulary whose special token stands in it."""
    folder.mkdir(exist_ok=True)
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.model.save(str(folder))
    settings = config | ({} if kind is None else {"tokenizer_class": kind})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"])
def test_a_vocabulary_and_merges_are_what_auto_tokenizer_makes_of_them(tmp_path: Path, kind: str) -> None:
    byte_level(tmp_path, kind, added_tokens_decoder={"600": {"content": "<|im_end|>", "special": True}})
    reference, ours = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_path(tmp_path)
    assert ours.vocab_size == len(reference)
    for text in [*TEXTS, "a<|endoftext|>b<|im_end|>"]:
        expected = reference(text)["input_ids"]
        assert ours.encode(text) == expected, text
        assert ours.decode(expected) == reference.decode(expected, clean_up_tokenization_spaces=False)


def test_a_model_without_a_tokenizer_json_takes_texts(tiny: Tiny, tmp_path: Path) -> None:
    """Through LLM, which opened it without a tokenizer; the ids of the prompt are the reference's."""
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama", vocab_size=1024)[0], folder)
    byte_level(folder, "GPT2Tokenizer")
    expected = AutoTokenizer.from_pretrained(folder)("Hello there")["input_ids"]
    with LLM(folder, kv_cache_memory="1MiB") as llm:
        (output,) = llm.generate("Hello there", SamplingParams(max_tokens=2))
    assert output.prompt_token_ids == expected


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("merges.txt", None, r"vocab\.json: is one half of a tokenizer; merges\.txt is missing"),
        ("vocab.json", None, r"merges\.txt: is one half of a tokenizer; vocab\.json is missing"),
        ("vocab.json", "[1]", r"vocab\.json: .* it is no object of tokens"),
        ("vocab.json", "{", r"vocab\.json: it is no JSON"),
        ("vocab.json", '{"a": 0, "b": 0}', r"vocab\.json: its ids are not the numbers from 0 to 1"),
        ("vocab.json", '{"a": "0"}', r"vocab\.json: its ids are not the numbers"),
        ("vocab.json", '{"a": 4294967296}', r"vocab\.json: its ids are not the numbers"),
        ("merges.txt", "a\n", r"merges\.txt: the merge 'a' does not join"),
        ("merges.txt", "qq zz\n", r"merges\.txt: the merge 'qq zz' does not join"),
        ("merges.txt", b"\xff", r"merges\.txt: is not UTF-8"),
        ("tokenizer_config.json", "{}", r"vocab\.json: how a tokenizer without a tokenizer_class cuts texts"),
        ("tokenizer_config.json", '{"tokenizer_class": "BertTokenizer"}', "how a BertTokenizer cuts texts is not"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_the_file(
    tmp_path: Path, name: str, content: str | bytes | None, says: str
) -> None:
    byte_level(tmp_path, "GPT2Tokenizer")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((Corrupt, Unsupported), match=says):
        Tokenizer.from_path(tmp_path)


@pytest.mark.parametrize("name", ["tekken.json", "vocab.txt", "spiece.model"])
def test_other_kinds_are_warned_of(tiny: Tiny, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(tiny("llama")[0], tmp_path / "model")
    (tmp_path / "model" / name).write_text("{}")
    assert load_description(tmp_path / "model").build_tokenizer() is None
    assert f"{name}: a tokenizer of this kind is not read" in caplog.text
