"""How byte-level vocabularies cut text before merging, by the name that GGUF files give it (``tokenizer.ggml.pre``).

The expressions are facts of the trained models (their ``tokenizer.json``): merges were learned on these pieces, so any
other cut gives other ids.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPT2", "SPLITS", "Split", "cased", "words"]

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


def words(digits: str) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"


def cased(digits: str, suffix: str = "") -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}{_UPPER}*{_LOWER}+{suffix}|{start}{_UPPER}+{_LOWER}*{suffix}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
    )


GPT2 = Split()
_GPT2_DIGITS = Split(digits=True)
_LLAMA3 = Split(words(r"\p{N}{1,3}"), ignore_merges=True, add_bos=True)
_GPT4O = Split(cased(r"\p{N}{1,3}", f"{_CONTRACTIONS}?"))

# Of vocabularies that are no served family's own.
SPLITS: dict[str, Split] = {
    "default": GPT2,
    "gpt-2": GPT2,
    "gpt2": GPT2,
    "phi-2": GPT2,
    "olmo": GPT2,
    "dolma": GPT2,
    "mpt": GPT2,
    "jais": GPT2,
    "starcoder": _GPT2_DIGITS,
    "refact": _GPT2_DIGITS,
    "command-r": _GPT2_DIGITS,
    "codeshell": _GPT2_DIGITS,
    "pixtral": _LLAMA3,
    "lfm2": _LLAMA3,
    "dbrx": Split(words(r"\p{N}{1,3}")),
    "stablelm2": Split(words(r"\p{N}")),
    "gpt-4o": _GPT4O,
    "llama4": _GPT4O,
}
