"""A tokenizer from the metadata of a GGUF file: vocabulary, merges or scores, token types and special ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Corrupt, Unsupported
from ..families import find_split
from .byte_level import BYTE_TO_CHAR
from .control_tokens import is_control

if TYPE_CHECKING:
    import tokenizers

__all__ = ["add_special_tokens", "add_template", "build_from_gguf"]

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # values of tokenizer.ggml.token_type
_SPACE = "\u2581"  # how SentencePiece spells a space


def build_from_gguf(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """``metadata`` maps the file's keys (``tokenizer.ggml.*``, ``general.architecture``) to their values; there are
    tokens, and the special ids are among them."""
    kind = metadata.get("tokenizer.ggml.model")
    tokens = metadata["tokenizer.ggml.tokens"]
    if kind == "gpt2":
        tokenizer, add_bos = _byte_level(metadata, tokens)
    elif kind == "llama":
        tokenizer, add_bos = _sentencepiece(metadata, tokens)
    else:
        raise Unsupported(
            f"GGUF tokenizer type {kind!r} (served: 'gpt2', 'llama'): name a directory with a tokenizer.json with "
            "tokenizer="
        )
    add_special_tokens(tokenizer, metadata, tokens)
    add_template(tokenizer, metadata, add_bos)
    return tokenizer


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str]) -> tuple[tokenizers.Tokenizer, bool]:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    split = find_split(metadata.get("tokenizer.ggml.pre", "default"))
    types = metadata.get("tokenizer.ggml.token_type") or ()
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=_merges(metadata, vocab, types), ignore_merges=split.ignore_merges))
    if split.nfc:
        tokenizer.normalizer = normalizers.NFC()
    behaviors = split.behaviors or ["isolated"] * len(split.patterns)
    cuts = [
        pre_tokenizers.Split(Regex(pattern), behavior=behavior)
        for pattern, behavior in zip(split.patterns, behaviors, strict=True)
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, split.add_bos


def _merges(metadata: Mapping[str, Any], vocab: Mapping[str, int], types: Sequence[int]) -> list[tuple[str, str]]:
    pairs = []
    spelled = {token: token for token in vocab}  # so that a merge takes no texts of its own
    for merge in metadata.get("tokenizer.ggml.merges") or ():
        left, separator, right = merge.partition(" ")
        if not separator or left not in vocab or right not in vocab or left + right not in vocab:
            raise Corrupt(f"the merge {merge[:80]!r} of the GGUF file does not join two of its tokens into a third")
        pairs.append((spelled[left], spelled[right]))
    if not pairs and len(vocab) > len(BYTE_TO_CHAR) + sum(kind in (_CONTROL, _USER_DEFINED) for kind in types):
        raise Corrupt("the GGUF file has a byte-level vocabulary but no merges (tokenizer.ggml.merges)")
    return pairs


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str]) -> tuple[tokenizers.Tokenizer, bool]:
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    from .score_merges import merges_of_scores  # imports numpy, which starts threads

    scores = metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise Corrupt("the GGUF file has no score for every token (tokenizer.ggml.scores)")
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    tokenizer = Tokenizer(
        BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=merges_of_scores(tokens, scores),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        # As SentencePiece was trained with it (add_dummy_prefix): before any text, one that begins with a space too.
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
        steps.append(decoders.Strip(content=" ", left=1))
    else:
        tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, True


def add_special_tokens(tokenizer: tokenizers.Tokenizer, metadata: Mapping[str, Any], tokens: Sequence[str]) -> None:
    """Control tokens are special; user-defined ones are matched whole in text too, but are text themselves."""
    from tokenizers import AddedToken

    types = metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    named = {metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot")}
    special, plain = [], []
    for index, (token, kind) in enumerate(zip(tokens, types, strict=False)):
        if kind == _CONTROL or (kind != _USER_DEFINED and (index in named or is_control(token))):
            special.append(AddedToken(token, normalized=False, special=True))
        elif kind == _USER_DEFINED:
            plain.append(AddedToken(token, normalized=False, special=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)


def add_template(tokenizer: tokenizers.Tokenizer, metadata: Mapping[str, Any], add_bos: bool) -> None:
    """What is put around a text."""
    from tokenizers.processors import TemplateProcessing

    wanted = {
        "bos": metadata.get("tokenizer.ggml.add_bos_token", add_bos),
        "eos": metadata.get("tokenizer.ggml.add_eos_token", False),
    }
    ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name, on in wanted.items() if on}
    special = {name: (tokenizer.id_to_token(index), index) for name, index in ids.items() if index is not None}
    if special:
        order = [special[name][0] if name in special else None for name in ("bos", "eos")]
        template = [piece for piece in (order[0], "$A", order[1]) if piece is not None]
        tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=list(special.values()))
