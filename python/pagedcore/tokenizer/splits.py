"""How byte-level vocabularies cut text before merging, by the name that GGUF files give it (``tokenizer.ggml.pre``).

The expressions are facts of the trained models (their ``tokenizer.json``): merges were learned on these pieces, so any
other cut gives other ids.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SPLITS", "Split"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


@dataclass(frozen=True)
class Split:
    pattern: str | None = None  # None: GPT-2's, which the byte-level pre-tokenizer has built in
    digits: bool = False  # every digit apart, before the pattern
    ignore_merges: bool = False  # a piece that is in the vocabulary is one token, whatever the merges say
    add_bos: bool = False  # when the file does not say
    nfc: bool = False


def _words(digits: str) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"


def _cased(digits: str, suffix: str = "") -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}{_UPPER}*{_LOWER}+{suffix}|{start}{_UPPER}+{_LOWER}*{suffix}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
    )


_GPT2 = Split()
_GPT2_DIGITS = Split(digits=True)
_LLAMA3 = Split(_words(r"\p{N}{1,3}"), ignore_merges=True, add_bos=True)
_QWEN2 = Split(_words(r"\p{N}"), nfc=True)
_GPT4O = Split(_cased(r"\p{N}{1,3}", f"{_CONTRACTIONS}?"))
_TEKKEN = Split(_cased(r"\p{N}"), ignore_merges=True, add_bos=True)

SPLITS: dict[str, Split] = {
    # SmolLM was trained with digits apart, but a piece such as " 12" has no merge across its digits, so that GPT-2's
    # cut gives the same ids but for runs of spaces before a digit. There the reference is the conversion that
    # transformers makes of these files: GPT-2's.
    "smollm": _GPT2,
    "default": _GPT2,
    "gpt-2": _GPT2,
    "gpt2": _GPT2,
    "phi-2": _GPT2,
    "olmo": _GPT2,
    "dolma": _GPT2,
    "mpt": _GPT2,
    "jais": _GPT2,
    "starcoder": _GPT2_DIGITS,
    "refact": _GPT2_DIGITS,
    "command-r": _GPT2_DIGITS,
    "codeshell": _GPT2_DIGITS,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "lfm2": _LLAMA3,
    "dbrx": Split(_words(r"\p{N}{1,3}")),
    "smaug-bpe": Split(_words(r"\p{N}{1,3}")),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": Split(_words(r"\p{N}")),
    "gpt-4o": _GPT4O,
    "llama4": _GPT4O,
    "tekken": _TEKKEN,
}
