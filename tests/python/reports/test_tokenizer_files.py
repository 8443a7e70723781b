"""Tokenizers that nobody can trust: one Corrupt error that names file and field, and no process that dies.

Reported: GGUF fields of a wrong type raised whatever Python raises, and a tokenizer.json whose Replace
steps double a text 40 times ended the process.
"""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pagedcore import Corrupt, InvalidArgument
from pagedcore.tokenizer import Tokenizer, score_merges

GOOD: dict[str, Any] = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"],
    "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0, -2.0, -3.0],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}


def test_the_good_one_is_good() -> None:
    assert Tokenizer.from_gguf(GOOD).encode("a") == [1, 5]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 7),
        ("model", ["llama"]),
        ("pre", 3),
        ("tokens", "text"),
        ("tokens", 5),
        ("tokens", [1, 2, 3]),
        ("tokens", ["a", None]),
        ("merges", "a b"),
        ("merges", [["a", "b"]]),
        ("scores", "high"),
        ("scores", ["a"] * 6),
        ("scores", [0.0] * 5),
        ("scores", [float("nan")] * 6),
        ("token_type", 1),
        ("token_type", ["1"] * 6),
        ("token_type", [1] * 7),
        ("add_bos_token", "yes"),
        ("add_eos_token", 1),
        ("add_space_prefix", "no"),
        ("bos_token_id", "1"),
        ("eos_token_id", [2]),
        ("unknown_token_id", 0.5),
        ("padding_token_id", True),
    ],
)
def test_a_field_of_a_wrong_type_is_named(field: str, value: Any) -> None:
    with pytest.raises(Corrupt, match=rf"^model\.gguf.*tokenizer\.ggml\.{field}"):
        Tokenizer.from_gguf(GOOD | {f"tokenizer.ggml.{field}": value}, "model.gguf")


def test_a_token_that_is_there_twice_is_named() -> None:
    tokens = [*GOOD["tokenizer.ggml.tokens"][:5], "a"]
    with pytest.raises(Corrupt, match="'a' twice"):
        Tokenizer.from_gguf(GOOD | {"tokenizer.ggml.tokens": tokens}, "model.gguf")


def _merges_by_trying(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Every cut of every token, as SentencePiece joins: best score first, then the longer left part."""
    ids = {token: index for index, token in enumerate(tokens)}
    cuts = []
    for index, token in enumerate(tokens):
        for middle in range(1, len(token)):
            left, right = token[:middle], token[middle:]
            if left in ids and right in ids:
                cuts.append((-scores[index], -middle, middle - len(token), index, left, right))
    return [(left, right) for *_, left, right in sorted(cuts)]


def test_the_merges_of_scores_are_those_of_trying_every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    monkeypatch.setattr(score_merges, "_CHUNK", 64)
    for _ in range(100):
        tokens = list({"".join(rng.choices("abé\U0001f600", k=rng.randrange(7))) for _ in range(rng.randrange(1, 120))})
        scores = [rng.choice([0.0, -1.0, -2.0, rng.random()]) for _ in tokens]
        assert score_merges.merges_of_scores(tokens, scores) == _merges_by_trying(tokens, scores)


def test_tokens_that_join_in_too_many_ways_are_refused() -> None:
    """a, aa, ... to a length of 1,600: 1.3 million merges of 800 characters are a gigabyte. To 200 they are few."""
    few, many = (["a" * size for size in range(1, longest + 1)] for longest in (200, 1600))
    assert len(score_merges.merges_of_scores(few, [0.0] * 200)) == 200 * 199 // 2
    fields = {"tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *many], "tokenizer.ggml.scores": [0.0] * 1603}
    with pytest.raises(Corrupt, match=r"^model\.gguf: .*too many ways"):
        Tokenizer.from_gguf(GOOD | fields | {"tokenizer.ggml.token_type": [1] * 1603}, "model.gguf")
    long = ["a" * 60_000, *(chr(300 + i) * 5000 for i in range(20))]  # cut by trying, that is 2 GB to be hashed
    assert score_merges.merges_of_scores(long, [0.0] * len(long)) == []


def _json(normalizer: Any) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "normalizer": normalizer,
            "pre_tokenizer": None,
            "added_tokens": [],
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": None},
        }
    )


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Sequence", "normalizers": [_replace({"String": "a"}, "aa")] * 40},
        {
            "type": "Sequence",
            "normalizers": [{"type": "Sequence", "normalizers": [_replace({"Regex": "."}, "aaa")] * 9}],
        },
        _replace({"String": "a"}, "a" * 300),
        _replace({"Regex": ""}, "a" * 300),
        {"type": "Prepend", "prepend": "a" * 1000},
    ],
    ids=["doubled 40 times", "nested", "long", "between characters", "prepended"],
)
def test_what_multiplies_a_text_is_refused_before_it_is_built(tmp_path: Path, normalizer: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(_json(normalizer))
    with pytest.raises(Corrupt, match=r"tokenizer\.json.* times as long; at most 256"):
        Tokenizer.from_path(tmp_path)


def _precompiled(longest: int) -> dict[str, Any]:
    """As SentencePiece writes a map: the size of a table, the table (here: none), then texts."""
    data = (4).to_bytes(4, "little") + bytes(4) + b"x\0" + b"y" * longest + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


_CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}


def _template(pieces: list[Any], ids: list[int]) -> dict[str, Any]:
    tokens = {"[CLS]": {"id": "[CLS]", "ids": ids, "tokens": ["a"] * len(ids)}}
    return {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": tokens}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"decoder": {"type": "Sequence", "decoders": [_replace({"String": "a"}, "aa")] * 20}}, "decoders make a text"),
        ({"decoder": _replace({"Regex": "."}, "a" * 999)}, "decoders make a text"),
        ({"normalizer": _precompiled(300)}, "make a text up to 300 times"),
        ({"normalizer": {"type": "Sequence", "normalizers": [_precompiled(18)] * 3}}, "make a text up to 5832 times"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip"}] * 2000}}, "more than 1000"),
        ({"post_processor": _template([_CLS] * 1100 + [_TEXT], [0])}, "has 1101 tokens"),
        ({"post_processor": _template([_CLS, _TEXT], [0] * 2000)}, "has 2001 tokens"),
        ({"model": {"type": "BPE", "vocab": {"a": 2**31}, "merges": []}}, "a token has the id 2147483648"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 2**32 - 1}, "merges": []}}, "the id 4294967295"),
    ],
)
def test_other_steps_are_judged_too(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(_json(None)) | changes))
    with pytest.raises(Corrupt, match=rf"tokenizer\.json'.*: .*({says})"):
        Tokenizer.from_path(tmp_path)


def test_growth_times_the_length_of_a_text_is_bounded(tmp_path: Path) -> None:
    """2^28 characters: of a text that may become 256 times as long, 2^20 are possible."""
    (tmp_path / "tokenizer.json").write_text(_json(_replace({"String": "a"}, "a" * 256)))
    tokenizer = Tokenizer.from_path(tmp_path)
    assert tokenizer.encode("a") == [0] * 256
    with pytest.raises(InvalidArgument, match=r"1048577 characters is too long .* at most 1048576"):
        tokenizer.encode("b" * (2**20 + 1))


def test_what_published_files_have_is_served(tmp_path: Path) -> None:
    steps = [{"type": "NFKC"}, {"type": "Prepend", "prepend": "\u2581"}, _replace({"String": " "}, "\u2581")]
    (tmp_path / "tokenizer.json").write_text(_json({"type": "Sequence", "normalizers": steps}))
    assert Tokenizer.from_path(tmp_path).vocab_size == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"model": 5}', '{"version": "1.0", "model": {"type": "X"}}']
)
def test_what_is_no_tokenizer_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(Corrupt, match=r"tokenizer\.json' is not a tokenizer"):
        Tokenizer.from_path(tmp_path)


def test_a_text_is_neither_filled_nor_cut_to_a_length_that_a_container_names() -> None:
    """10^9 tokens after each text were 16 GB."""
    fill = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_token": "a"}
    cut = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    changes = {"padding": fill | {"pad_id": 0, "pad_type_id": 0}, "truncation": cut}
    assert Tokenizer.from_text(json.dumps(json.loads(_json(None)) | changes)).encode("aaa") == [0, 0, 0]
