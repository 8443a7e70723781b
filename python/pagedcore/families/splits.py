r"""How byte-level vocabularies cut text before merging, by the name that GGUF files give it (``tokenizer.ggml.pre``).

Merges were learned on these pieces, so any other cut gives other ids. The names are those of llama.cpp
(``src/llama-vocab.cpp``, ``llama_vocab::impl::load``). The expressions are facts of the trained models, from their
``tokenizer.json``; where that file's and llama.cpp's differ (letters by case instead of by ``[a-z]`` for tekken and
gpt-4o, digits apart for deepseek-llm), the model's is taken. ``default``, which no model was trained with, is
llama.cpp's.

Some group the digits of a number from its end. Their own expressions ask at every digit whether the rest of the number
is groups of three, which takes time quadratic in its length, and a request chooses that. Here it is asked once, at the
first digit of a number: that cuts the one or two digits that are left over, and threes follow.

Not here: encoders' names, vocabularies in raw UTF-8 (gemma4, sarvam-moe), and cuts of architectures that are not served
(kimi-k2, afmoe).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["APART", "CUTS_OF_NUMBERS", "GPT2", "LLAMA3", "SPLITS", "Split", "cased", "words"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
APART = r"\p{N}"  # every digit by itself
_THREES = r"\p{N}{1,3}"


@dataclass(frozen=True)
class Split:
    """Each of ``patterns`` in turn cuts the pieces that the ones before it left: what it matches is a piece, and what
    lies between two matches."""

    patterns: tuple[str, ...]
    behaviors: tuple[str, ...] = ()  # of each, as the library calls them; isolated where there are none
    ignore_merges: bool = False  # a piece that is in the vocabulary is one token, whatever the merges say
    add_bos: bool = False  # when the file does not say
    nfc: bool = False


def words(digits: str, *, contractions: str = f"{_CONTRACTIONS}|", tail: str = _TAIL) -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return rf"{contractions}{start}\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{tail}"


def cased(digits: str, suffix: str = "") -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}{_UPPER}*{_LOWER}+{suffix}|{start}{_UPPER}+{_LOWER}*{suffix}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
    )


GPT2 = Split((_GPT2_WORDS,))
LLAMA3 = Split((words(_THREES),), ignore_merges=True, add_bos=True)
_THREE_DIGITS = Split((words(_THREES),))
_ONE_DIGIT = Split((words(APART),))
_DIGITS_APART = Split((APART, _GPT2_WORDS))
_GPT4O = Split((cased(_THREES, f"{_CONTRACTIONS}?"),))
# Of tiny_aya, once a number that ends at the end of a word: what its digits have more than threes, and threes.
_LEFT_OVER = r"(?<!\d)\d{1,2}(?=(?>(?:\d{3})*)\b)"
_IN_THREES = r"(?<!\d)(?>(?:\d{3})+)\b"
_TINY_AYA = Split((_LEFT_OVER, _IN_THREES, *_GPT4O.patterns))
# Of superbpe: before every digit with threes behind it. Words are not cut.
_BEFORE_THREES = r"(?<!\d)(?:\d{1,2})?(?=(?>(?:\d{3})+)(?!\d))"
_SUPERBPE = Split(
    (r"\p{N}+", _BEFORE_THREES, r"\d{3}"), behaviors=("isolated", "merged_with_previous", "merged_with_next")
)
CUTS_OF_NUMBERS = frozenset((_LEFT_OVER, _IN_THREES, _BEFORE_THREES, r"\d{3}"))
"""They look as far as a number reaches, and no further than the character behind it."""
_BLOOM_WORDS = " ?[^(\\s|.,!?…。，、।۔،)]+"
_CJK_OF_DEEPSEEK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_TAIL}"
)
_DEEPSEEK3 = Split((_THREES, "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK3_WORDS))
_BAILING = Split(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
# Cased letters of the scripts that have cases, as deepseek-llm lists them.
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)


def _named(split: Split, *names: str) -> dict[str, Split]:
    return dict.fromkeys(names, split)


# Of vocabularies that are no served family's own.
SPLITS: dict[str, Split] = {
    **_named(GPT2, "gpt-2", "gpt2", "phi-2", "olmo", "dolma", "mpt", "jais", "gigachat", "a.x-4.0", "mellum"),
    **_named(GPT2, "exaone4", "trillion", "granite-docling"),
    **_named(_DIGITS_APART, "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
    **_named(LLAMA3, "pixtral", "lfm2", "falcon-h1"),
    **_named(_THREE_DIGITS, "dbrx", "glm4", "chatglm-bpe"),
    **_named(_ONE_DIGIT, "stablelm2", "megrez", "kormo", "hunyuan", "solar-open", "grok-2"),
    **_named(_GPT4O, "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
    **_named(_TINY_AYA, "tiny_aya", "cohere2moe"),
    "superbpe": _SUPERBPE,
    **_named(_DEEPSEEK3, "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
    **_named(_BAILING, "bailingmoe", "bailingmoe2", "llada-moe"),
    **_named(Split((_BLOOM_WORDS,)), "bloom", "poro-chat", "gpt3-finnish"),
    "viking": Split((_BLOOM_WORDS, APART)),
    "default": Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_WORDS, "[0-9][0-9][0-9]")),
    "deepseek-llm": Split(
        (
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _CJK_OF_DEEPSEEK,
            APART,
        )
    ),
    "deepseek-coder": Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_OF_DEEPSEEK, APART)),
    "jais-2": Split(
        (
            words(
                _THREES,
                tail=r"\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)"
                r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
            ),
        )
    ),
    "youtu": Split(
        (
            "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
            "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            cased(APART, f"{_CONTRACTIONS}?"),
        ),
        ignore_merges=True,
    ),
    "chameleon": Split(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            APART,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2_WORDS,
        ),
        add_bos=True,
    ),
    "qwen35": Split(
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}",
        ),
        nfc=True,
    ),
    "seed-coder": Split(
        (rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_TAIL}",)
    ),
    "ufakzeka": Split((words(APART, contractions=""),)),
    "laguna": Split((r"[^\n]+|[\n]+", words(APART))),
    "exaone-moe": Split(
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "minicpm5": Split((_THREES, words(r"\p{N}+")), ignore_merges=True),
}
