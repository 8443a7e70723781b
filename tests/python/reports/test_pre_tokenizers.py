r"""Texts are cut before merging as the models were trained, for every name of llama.cpp's list that is served.

Reported: the default model gave "\n\n3. item" as ``Ċ Ċ 3 .``; its tokenizer cuts digits apart before anything else.
What is expected comes from the expressions below, transcribed one by one from the models' ``tokenizer.json`` (where
llama.cpp quotes one, as "original regex from tokenizer.json") or else from llama.cpp's ``src/llama-vocab.cpp``, and run
by the ``regex`` module; the package runs its own through ``tokenizers``.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import regex
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from pagedcore import LLM
from pagedcore.families import SPLITS
from pagedcore.tokenizer import Tokenizer
from texts import tokenizer_texts

TEXTS = tokenizer_texts(2000)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
# deepseek-llm lists letters one by one: those that have a case, which the test names by category.
_ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

# Its tokenizer.json has \b. To Oniguruma, which it was trained with, all numbers are parts of words, and joiners are
# not.
_TINY_AYA_NUMBERS = r"\d{1,3}(?=(?:\d{3})*(?![\p{Alphabetic}\p{M}\p{N}\p{Pc}]))"

NAMES: dict[str, tuple[str, ...]] = {
    # architecture llama, and its relatives in other files
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0"), (_LLAMA3,)),
    "smaug-bpe": (_LLAMA3,),
    "smollm": (r"\p{N}", _GPT2),
    "minerva-7b": (r"\p{N}", _GPT2),
    "tekken": (_TEKKEN,),
    "megrez": (_QWEN2,),
    **dict.fromkeys(("trillion", "granite-docling", "mellum", "gpt-2"), (_GPT2,)),
    "deepseek-llm": (
        r"[\r\n]",
        r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e‘-‟\u3000-。]+",
        r"\s+$",
        _ASIAN,
        r"\p{N}",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _ASIAN, r"\p{N}"),
    "viking": (_BLOOM, r"\p{N}"),
    "seed-coder": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
    ),
    "minicpm5": (
        r"\p{N}{1,3}",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
    ),
    "ufakzeka": (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    # architectures qwen2 and qwen3
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "f2llmv2", "kormo"), (_QWEN2,)),
    "a.x-4.0": (_GPT2,),
    # other architectures' vocabularies, which files of the served ones may carry
    **dict.fromkeys(("phi-2", "olmo", "dolma", "mpt", "jais", "gigachat", "exaone4", "gpt2"), (_GPT2,)),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone", "mellum2"), (r"\p{N}", _GPT2)),
    **dict.fromkeys(("dbrx", "glm4", "chatglm-bpe", "lfm2", "falcon-h1"), (_LLAMA3,)),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), (_QWEN2,)),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_GPT4O,)),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), (_TINY_AYA_NUMBERS, _GPT4O)),
    "superbpe": (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), (_BLOOM,)),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "jais-2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)"
        r"|\s{1,2}(?!\S)|\s{1}",
    ),
    "youtu": (
        "[가-힣ㄱ-ㆎ]+|[\uff01…“”‘’—\uff1a\uff1b\uff0c、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+",
        _GPT4O.replace("{1,3}", ""),
    ),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    ),
    "qwen35": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "laguna": (r"[^\n]+|[\n]+", _QWEN2),
    "exaone-moe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
}
_NFC = {"qwen2", "deepseek-r1-qwen", "f2llmv2", "qwen35"}  # composed first, says their tokenizer.json
_IGNORE_MERGES = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0", "lfm2", "falcon-h1"}
_IGNORE_MERGES |= {"tekken", "youtu", "minicpm5"}  # all as llama.cpp sets it


@cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Merges learned without any cut, across spaces, digits and lines: every difference in a cut changes ids."""
    learned = tokenizers.Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, max_token_length=12
    )
    # Without the spellings of control tokens, which would be single tokens whatever the expressions say.
    learned.train_from_iterator([text[:200] for text in TEXTS if "<|" not in text], trainer)
    model = json.loads(learned.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _metadata(pre: str) -> dict[str, Any]:
    vocab, merges = _vocabulary()
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": list(vocab),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.add_bos_token": False,
    }


def _cut(text: str, patterns: tuple[str, ...]) -> list[str]:
    pieces = [text] if text else []
    for pattern in patterns:
        cut = []
        for piece in pieces:
            at = 0
            for match in regex.finditer(pattern, piece):
                cut += [piece[at : match.start()], match[0]]
                at = match.end()
            cut.append(piece[at:])
        pieces = [piece for piece in cut if piece]
    return pieces


@cache
def _expected(patterns: tuple[str, ...], nfc: bool, ignore_merges: bool) -> list[list[str]]:
    vocab, merges = _vocabulary()
    bpe = models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges)
    spelled = {byte: char for byte, char in zip(_ALPHABET_BYTES, _ALPHABET_CHARS, strict=True)}
    known: dict[str, list[str]] = {}
    found = []
    for text in TEXTS:
        tokens: list[str] = []
        for piece in _cut(unicodedata.normalize("NFC", text) if nfc else text, patterns):
            if piece not in known:
                known[piece] = [t.value for t in bpe.tokenize("".join(spelled[byte] for byte in piece.encode()))]
            tokens += known[piece]
        found.append(tokens)
    return found


# GPT-2's spelling of bytes (Radford et al., 2019, ``bytes_to_unicode``): what is printable in Latin-1 is itself.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_ALPHABET_BYTES = _PRINTABLE + [byte for byte in range(256) if byte not in _PRINTABLE]
_ALPHABET_CHARS = [*map(chr, _PRINTABLE), *(chr(256 + i) for i in range(256 - len(_PRINTABLE)))]


def test_the_list_is_what_is_served() -> None:
    from pagedcore.families import FAMILIES

    served = set(SPLITS) | {name for family in FAMILIES for name in family.splits}
    assert served == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_cited_expressions(name: str) -> None:
    tokenizer = Tokenizer.from_gguf(_metadata(name))
    expected = _expected(NAMES[name], name in _NFC, name in _IGNORE_MERGES)
    for text, tokens in zip(TEXTS, expected, strict=True):
        assert [tokenizer.id_to_token(i) for i in tokenizer.encode(text)] == tokens, repr(text)


def test_the_default_model_is_cut_as_it_was_trained(llm_bf16: LLM, gguf: Path) -> None:
    """SmolLM2's tokenizer.json: Digits(individual_digits), then ByteLevel with GPT-2's expression. Its vocabulary is
    read by the gguf package here."""
    import gguf as gguf_package

    fields = gguf_package.GGUFReader(gguf).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    reference = tokenizers.Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    reference.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"].contents()
    reference.add_special_tokens([token for token, kind in zip(tokens, types, strict=True) if kind == 3])
    tokenizer = llm_bf16.tokenizer
    assert tokenizer is not None
    assert reference.encode("\n\n3. item").tokens == ["ĊĊ", "3", ".", "Ġitem"]
    for text in ["\n\n3. item", *TEXTS]:
        assert tokenizer.encode(text) == reference.encode(text).ids, repr(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
