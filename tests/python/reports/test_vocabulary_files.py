"""Directories without a tokenizer.json: tokenizer.model, or vocab.json and merges.txt.

The reference of tokenizer.model is the sentencepiece library, which trains one here; of the others transformers'
AutoTokenizer on the same files. Both opened silently without a tokenizer.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
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


def train(folder: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    folder.mkdir(exist_ok=True)
    defaults = {
        "model_type": "bpe",
        "vocab_size": 900,
        "character_coverage": 0.98,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        "user_defined_symbols": ["<mark>"],
        "control_symbols": ["<turn>"],
    }
    lines = [line for text in TEXTS for line in text.split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), **defaults | options
    )
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def sentencepieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sentencepiece.SentencePieceProcessor]:
    folder = tmp_path_factory.mktemp("sentencepiece") / "model"
    return folder, train(folder)


def test_a_sentencepiece_model_encodes_as_its_library_does(
    sentencepieces: tuple[Path, sentencepiece.SentencePieceProcessor],
) -> None:
    folder, reference = sentencepieces
    ours = Tokenizer.from_path(folder)
    assert ours.vocab_size == reference.get_piece_size()
    assert ours.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for text in TEXTS:
        if any(mark in text for mark in ("<mark>", "<turn>", "<s>", "</s>", "<unk>", "<0x", "\u2581")):
            continue  # a special token is one here
        expected = reference.encode(text)
        assert ours.encode(text, add_special_tokens=False) == expected, text
        assert ours.encode(text) == [reference.bos_id(), *expected]
        assert ours.decode(expected) == reference.decode(expected)
    mark, turn = reference.piece_to_id("<mark>"), reference.piece_to_id("<turn>")
    ids = ours.encode("a<mark>b<turn>", add_special_tokens=False)
    assert ids.count(mark) == ids.count(turn) == 1
    assert ours.is_special(turn) and not ours.is_special(mark)


def test_settings_beside_a_sentencepiece_model_hold(
    sentencepieces: tuple[Path, sentencepiece.SentencePieceProcessor], tmp_path: Path
) -> None:
    folder, reference = sentencepieces
    shutil.copy(folder / "tokenizer.model", tmp_path)
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True, "eos_token": "<turn>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.from_path(tmp_path)
    assert ours.encode("a b") == [*reference.encode("a b"), reference.piece_to_id("<turn>")]
    assert ours.special_tokens["eos_token"] == "<turn>"


@pytest.mark.parametrize("prefix", [True, False])
def test_a_space_before_the_text_is_the_models(tmp_path: Path, prefix: bool) -> None:
    reference = train(tmp_path / "m", add_dummy_prefix=prefix, vocab_size=800)
    ours = Tokenizer.from_path(tmp_path / "m")
    for text in ("a b", " a", "  a b  c ", "", " "):
        assert ours.encode(text, add_special_tokens=False) == reference.encode(text), text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model_type": "unigram"}, "type unigram; served is bpe"),
        ({"normalization_rule_name": "nmt_nfkc"}, "texts are normalized"),
        ({"remove_extra_whitespaces": True}, "texts are normalized"),
    ],
)
def test_other_sentencepiece_models_are_named(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    train(tmp_path / "m", **options)
    with pytest.raises(Unsupported, match=rf"tokenizer\.model: .*{says}"):
        Tokenizer.from_path(tmp_path / "m")


def test_broken_sentencepiece_models_are_one_error(
    sentencepieces: tuple[Path, sentencepiece.SentencePieceProcessor], tmp_path: Path
) -> None:
    data = (sentencepieces[0] / "tokenizer.model").read_bytes()
    rng = random.Random(1)
    path = tmp_path / "tokenizer.model"
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    contents = [b"", b"\x0a", b"\xff" * 40, pointer, data[:-1], data[: len(data) // 2]]
    for _ in range(150):
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
    assert refused > 6


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
        ("vocab.json", "[1]", r"vocab\.json: is a list"),
        ("vocab.json", "{", r"vocab\.json: is not JSON"),
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
