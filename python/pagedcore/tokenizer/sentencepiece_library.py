"""Texts of a ``tokenizer.model`` that only the ``sentencepiece`` package encodes as its model was trained:
vocabularies of the kinds unigram, word and char, and any that normalizes texts.

The package knows nothing of tokens that files beside the model add, nor takes control symbols out of a text. So a text
is cut at those first, by the ``tokenizers`` library, whose vocabulary here is the model's with all that was added; what
lies between is one text each for the package.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Corrupt, InvalidArgument, Unsupported

if TYPE_CHECKING:
    import tokenizers

    from .sentencepiece import SentencePieceModel

__all__ = ["SentencePieceTexts", "vocabulary_alone"]

_SPACE = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # values of tokenizer.ggml.token_type
_LEAST_VERSION = (
    0,
    2,
    2,
)  # which encodes without the GIL, and survives a precompiled_charsmap that points beyond itself
_WITHOUT_PREFIX = b"\x1a\x02\x18\x00"  # normalizer_spec.add_dummy_prefix = 0; what comes last in a message holds
_FIRST_LOOK = 1 << 16  # characters
_MARGIN = 256  # tokens at the end of a text that may become fewer with more text behind them


class SentencePieceTexts:
    """Encodes and decodes. Thread-safe; other threads run meanwhile."""

    def __init__(self, model: SentencePieceModel, splitter: tokenizers.Tokenizer, source: str) -> None:
        """``splitter``: of :func:`vocabulary_alone`, to which tokens may have been added. Raises Unsupported where the
        package is missing, Corrupt for what it does not take."""
        processor = _processor_class(model.why, source)
        try:
            self._whole = processor(model_proto=model.data)
            self._continued = processor(model_proto=model.data + _WITHOUT_PREFIX)
        except MemoryError:
            raise
        except Exception as error:
            raise Corrupt(f"{source}: the sentencepiece package does not take it: {str(error)[:400]}") from None
        self._count: int = self._whole.get_piece_size()
        self._types: Sequence[int] = model.metadata["tokenizer.ggml.token_type"]
        if self._count != len(self._types):
            raise Corrupt(f"{source}: the sentencepiece package finds {self._count} pieces, not {len(self._types)}")
        self._splitter = splitter
        self._added = {index: token.content for index, token in splitter.get_added_tokens_decoder().items()}
        self._special = {index for index, token in splitter.get_added_tokens_decoder().items() if token.special}
        self._drops_spaces = model.drops_spaces
        self._longest = _longest(model)

    def least_tokens(self, text: str) -> int:
        """How many tokens the text has at least; 0 where that is not known before it is encoded."""
        return -(-len(text) // self._longest) if self._longest else 0

    def encode(self, text: str, *, continues: bool, at_most: int | None) -> list[int]:
        """All ids but the special ones around a text; those so far as soon as there are more than ``at_most``."""
        size = _FIRST_LOOK
        while at_most is not None and size < len(text):  # one that is far too long ends soon
            ids = self._encode_whole(text[:size], continues)
            if len(ids) - _MARGIN > at_most:
                return ids
            size *= 4
        return self._encode_whole(text, continues)

    def _encode_whole(self, text: str, continues: bool) -> list[int]:
        ids: list[int] = []
        for token, start, end in self._parts(text):
            if token is not None:
                ids.append(token)
                continue
            part = text[start:end]
            processor = self._whole
            if continues and start == 0 and not (self._drops_spaces and part.startswith(" ")):  # it is the prefix then
                processor = self._continued
            ids += processor.encode(part)
        return ids

    def _parts(self, text: str) -> Iterator[tuple[int | None, int, int]]:
        """Added tokens, and None for what lies between them; where each begins and ends."""
        if not self._added:
            yield None, 0, len(text)
            return
        (encoding,) = self._splitter.encode_batch(
            [text], add_special_tokens=False
        )  # a batch is encoded without the GIL
        hidden = self._special if self._splitter.encode_special_tokens else set()
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            yield (token if token in self._added and token not in hidden else None), start, end

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """As the package decodes what lies between added tokens."""
        texts: list[str] = []
        run: list[int] = []
        for token in ids:
            if isinstance(token, bool) or not hasattr(token, "__index__") or not 0 <= token < 2**31:
                raise InvalidArgument(f"cannot decode {token!r}: token ids are integers in [0, 2^31)")
            if token < self._count and token not in self._added:
                run.append(int(token))
                continue
            texts += [self._whole.decode(run)] if run else []
            run = []
            if token in self._added and not (skip_special_tokens and token in self._special):
                texts.append(self._added[token])
        return "".join([*texts, self._whole.decode(run) if run else ""])

    def token_bytes(self, token: int) -> bytes:
        """What a token adds to a text. An output continues its prompt, so a first token's space stays."""
        if token in self._added:
            return self._added[token].encode()
        if not 0 <= token < self._count:
            return b""
        piece: str = self._whole.id_to_piece(token)
        if self._types[token] == _BYTE:
            return bytes([int(piece[3:5], 16)])
        if self._types[token] in (_UNKNOWN, _CONTROL):
            return str(self._whole.decode([token])).encode()
        return piece.replace(_SPACE, " ").encode()


def vocabulary_alone(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A tokenizer that finds added tokens, and takes every text between them for one unknown token. It has the ids of
    the model, and its control symbols as special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    from .gguf import add_special_tokens

    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata["tokenizer.ggml.token_type"]
    vocab = {token: index for index, token in enumerate(tokens)}
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), tokens[0])
    splitter = Tokenizer(WordLevel(vocab=vocab, unk_token=unknown))
    # User-defined symbols are the package's own: it finds them in a text, and puts no space behind them.
    plain = dict(metadata) | {
        "tokenizer.ggml.token_type": [_CONTROL if kind == _CONTROL else _NORMAL for kind in types]
    }
    add_special_tokens(splitter, plain, tokens)
    return splitter


def _processor_class(why: str, source: str) -> Callable[..., Any]:
    needed = ".".join(map(str, _LEAST_VERSION))
    remedy = "pip install 'pagedcore[sentencepiece]', or name a tokenizer.json with tokenizer="
    try:
        package = importlib.import_module("sentencepiece")
    except ImportError:
        raise Unsupported(
            f"{source}: {why}, which takes the sentencepiece package: it is not installed: {remedy}"
        ) from None
    version = str(getattr(package, "__version__", "0"))
    if tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")[:3]) < _LEAST_VERSION:
        raise Unsupported(f"{source}: {why}, which takes sentencepiece {needed} or later, not {version}: {remedy}")
    processor: Callable[..., Any] = package.SentencePieceProcessor
    return processor


def _longest(model: SentencePieceModel) -> int:
    """Characters that a token can stand for at most; 0: there is no such limit, or it is not known."""
    if model.normalizes or not model.byte_fallback:
        return 0  # a text may lose characters, or become one unknown token
    return max(map(len, model.metadata["tokenizer.ggml.tokens"]))
