"""A tokenizer.json that ends in an error takes at most 4 times its size and 64 MiB: the library is not what refuses it.

The library took up to 56 times the file: its objects are made before it looks whether they fit each other. Sizes and
limit are arithmetic. That nothing is left for the library to refuse is shown by small files, mutated, and the library's
own answer.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from pagedcore import Corrupt
from pagedcore.tokenizer import Tokenizer, json_file
from peak_memory import peak_of

SIZE = 10_000_000
LIBRARY = tokenizers.Tokenizer
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
TOKEN = {"id": 5, "content": "<s>"} | FLAGS


def file(**fields: str) -> str:
    empty = {"normalizer": "null", "pre_tokenizer": "null", "post_processor": "null", "decoder": "null"}
    values = {"version": '"1.0"', "added_tokens": "[]", **empty, "model": bpe()} | fields
    return "{" + ",".join(f'"{name}":{value}' for name, value in values.items()) + "}"


def bpe(vocab: str = '{"a":0}', merges: str = "[]", more: str = "") -> str:
    return f'{{"type":"BPE",{more}"vocab":{vocab},"merges":{merges}}}'


def vocabulary(count: int, last: str = "") -> str:
    return "{" + ",".join(f'"{i:x}":{i}' for i in range(count)) + last + "}"


def many(member: str, last: str) -> str:
    return "[" + f"{member}," * (SIZE // (len(member) + 1)) + last + "]"


SOME = 400_000
TOKENS = vocabulary(SOME)
PAIRS = many('["1","2"]', '["1","2"]')
WORDS = '{"type":"WordLevel","unk_token":"?","vocab":%s}'
UNIGRAM = '{"type":"Unigram","unk_id":0,"vocab":%s}'
KINDS: dict[str, tuple[Callable[[], str], str]] = {
    "objects that nothing names": (lambda: file(other=many("{}", "{}")), "too large"),
    "steps": (lambda: file(decoder=f'{{"type":"Sequence","decoders":{many("{}", "{}")}}}'), "too large"),
    "one long text": (lambda: file(normalizer='"' + "\U0001f600" * (SIZE // 4) + '"'), "too large"),
    "the id of the last token": (lambda: file(model=bpe(vocabulary(SOME, ',"a":-1'))), "has the id -1"),
    "tokens beyond those served": (lambda: file(model=bpe(vocabulary(SIZE // 14))), "more than 524288 tokens"),
    "ids that are objects": (lambda: file(model=bpe("{" + '"a":{},' * (SIZE // 7) + '"b":{}}')), "has the id {}"),
    "the last merge": (lambda: file(model=bpe(TOKENS, many('["1","2"]', '["1"]'))), "does not join"),
    "the last merge, a text": (lambda: file(model=bpe(TOKENS, many('"1 2"', '"1  2"'))), "does not join"),
    "the last added token": (lambda: file(added_tokens=many(json.dumps(TOKEN), "5")), "an added token is 5"),
    "the last score": (lambda: file(model=UNIGRAM % ("[" + '["a",0.5],' * SOME + '["a",1e999]]')), "finite score"),
    "no unknown token": (lambda: file(model=WORDS % TOKENS), "'?' is not in"),
    "none, and texts need it": (lambda: file(model=bpe(TOKENS, more='"unk_token":"?",')), "has no token for ' '"),
    "the decoder, behind all": (lambda: file(model=bpe(TOKENS, PAIRS), decoder='{"type":"X"}'), "PyDecoderWrapper"),
    "an end in the middle": (lambda: file(model=bpe(TOKENS, PAIRS))[:-60], "end early"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_in_an_error_takes_little(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    make, says = KINDS[kind]
    path.write_text(make())
    peak, ended = peak_of(lambda: Tokenizer.from_path(path))
    most = 4 * path.stat().st_size + (64 << 20)
    assert ended.startswith("Corrupt: ") and "tokenizer.json" in ended and says in ended, ended
    assert peak < most, f"{peak >> 20} MiB of {most >> 20}: {ended}"


PIECES = {"a": 0, "b": 1, "ab": 2, " ": 3, "\u00e9": 4}
REPLACE = {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}
CUT = {"type": "Split", "pattern": {"Regex": "a|b"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
ROBERTA = {
    "type": "RobertaProcessing",
    "sep": ["a", 0],
    "cls": ["b", 1],
    "trim_offsets": True,
    "add_prefix_space": True,
}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}},
}
MODELS: list[dict[str, Any]] = [
    {"type": "BPE", "unk_token": "a", "byte_fallback": False, "vocab": PIECES, "merges": [["a", "b"]]},
    {"merges": ["a b"], "continuing_subword_prefix": "", "vocab": PIECES},
    {"type": "WordLevel", "vocab": PIECES, "unk_token": "a"},
    {"type": "WordPiece", "vocab": PIECES, "unk_token": "a", "continuing_subword_prefix": "#"}
    | {"max_input_chars_per_word": 9},
    {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5], ["b", -2]], "unk_id": 0},
]  # fmt: skip
STEPS: dict[str, list[Any]] = {
    "normalizer": [
        None,
        {"type": "NFC"},
        REPLACE,
        {"type": "Sequence", "normalizers": [REPLACE, {"type": "Lowercase"}]},
    ],
    "pre_tokenizer": [None, BYTES, CUT],
    "post_processor": [None, AROUND, BYTES, ROBERTA],
    "decoder": [None, BYTES, {"type": "Sequence", "decoders": [REPLACE, {"type": "Fuse"}]}],
}
JUNK = [
    None, True, 0, -1, 5, 2**32, 1.5, "", "a", "q", "##", "\ud800", [], {}, [["a", "b"]], ["a b"], ["a  b"], {"a": 0},
    [["a", 0.5]], [None], [[]], "BPE", "Unigram", [["a", "q"]], ["#version: 0.2"], [["a", "b", "ab"]],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def mutated(random_: random.Random) -> dict[str, Any]:
    steps = {name: random_.choice(choices) for name, choices in STEPS.items()}
    added = [TOKEN] if random_.random() < 0.8 else [TOKEN] * 130  # more than a piece of them
    values = copy.deepcopy({"version": "1.0", "added_tokens": added, **steps, "model": random_.choice(MODELS)})
    for _ in range(random_.choice([0, 1, 1, 1, 2])):
        *path, last = random_.choice(list(places(values)))
        target: Any = values
        for key in path:
            target = target[key]
        if random_.random() < 0.2:
            del target[last]
        else:
            target[last] = copy.deepcopy(random_.choice(JUNK))
    return values


def library(text: str) -> str:
    """What the library says of a file and of the texts that are tried; empty if all is well."""
    try:
        backend = LIBRARY.from_str(text)
        for tried in json_file.TRIED:
            backend.encode(tried)
    except BaseException as error:  # panics are no Exception
        return f"{type(error).__name__}: {error}"
    return ""


def test_nothing_is_left_for_the_library_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it refuses with its tokens is refused before it sees them; what it accepts is accepted, but for ids beyond
    2^31."""
    built: list[bytes] = []

    class Recording:
        from_str = LIBRARY.from_str

        @staticmethod
        def from_buffer(data: bytes) -> Any:
            built.append(data)
            return LIBRARY.from_buffer(data)

    monkeypatch.setattr(tokenizers, "Tokenizer", Recording)
    random_ = random.Random(1)
    accepted = refused = 0
    for _ in range(1500):
        values = mutated(random_)
        text = json.dumps(values)
        says = library(text)
        built.clear()
        try:
            json_file.build_from_json(text.encode(), "f")
            ended = ""
        except Corrupt as error:
            ended = str(error)
        assert bool(built) == (not says) or "below 2^31" in ended, (text, says, ended)
        accepted += not says
        refused += bool(says)
    assert accepted > 200 and refused > 200


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: bytes) -> bytes:
    """Of a protocol buffer, with a length."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def pieces(last: bytes) -> bytes:
    """A tokenizer.model of many pieces, and one more."""
    texts = [*(b"%x" % i for i in range(SOME)), last]
    scored = [field(1, field(1, text) + b"\x15\0\0\0\0") for text in texts]
    return b"".join([*scored, field(2, b"\x18\2"), field(3, b"\x20\0")])


NUMBERS = b"".join(varint(i << 3) + b"\0" for i in range(1, SIZE // 4))
CLASS = b'{"tokenizer_class": "GPT2Tokenizer"}'
OTHERS: dict[str, tuple[Callable[[], dict[str, bytes]], str]] = {
    "empty pieces": (lambda: {"tokenizer.model": b"\x0a\0" * (SIZE // 2)}, "more than 524288 pieces"),
    "many fields": (lambda: {"tokenizer.model": field(1, NUMBERS)}, "more than 1000 kinds"),
    "a piece twice": (lambda: {"tokenizer.model": pieces(b"1")}, "twice"),
    "an end in a piece": (lambda: {"tokenizer.model": pieces(b"")[:-1]}, "ends in the middle"),
    "the last id": (lambda: {"vocab.json": vocabulary(SOME, ',"a":-1').encode(), "merges.txt": b""}, "its ids"),
    "an emoji": (lambda: {"vocab.json": b'{"\xf0\x9f\x98\x80' + b"a" * 2 * SIZE, "merges.txt": b""}, "no JSON"),
    "the last line": (lambda: {"vocab.json": TOKENS.encode(), "merges.txt": b"1 2\n" * 10**6 + b"1\n"}, "not join"),
    "many lines": (lambda: {"vocab.json": TOKENS.encode(), "merges.txt": b"1 2\n" * (SIZE // 4)}, "at most 1048576"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_so_does_a_vocabulary_of_another_form(kind: str, tmp_path: Path) -> None:
    make, says = OTHERS[kind]
    files = make() | {"tokenizer_config.json": CLASS}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    peak, ended = peak_of(lambda: Tokenizer.from_path(tmp_path))
    most = 4 * sum(map(len, files.values())) + (64 << 20)
    assert ended.startswith("Corrupt: ") and says in ended, ended
    assert peak < most, f"{peak >> 20} MiB of {most >> 20}: {ended}"
