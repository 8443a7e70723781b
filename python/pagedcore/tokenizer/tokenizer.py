"""One face for every tokenizer, over the ``tokenizers`` library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import shown
from ..checks import check_text
from ..config_files import exists, is_there, read_bytes, short_name
from ..errors import Corrupt, InvalidArgument, Io, Unsupported
from .byte_level import bytes_of_token
from .gguf_fields import checked_fields
from .json_file import TRIED, build_from_json
from .judge import MOST_GROWTH
from .library import corrupt_unless_it_works
from .pieces import Pieces
from .sentencepiece_library import SentencePieceTexts
from .settings import read_settings
from .special_ids import without_foreign_ids
from .unnamed_split import with_split_named
from .vocabulary_files import build_from_files, has_vocabulary

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer"]

_ID_END = 2**31
_MOST_CHARACTERS = 1 << 28  # that a text may become
_MOST_BYTES = 256 << 20


class Tokenizer:
    """Encodes and decodes. Thread-safe."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str | list[str]] | None = None,
        texts: SentencePieceTexts | None = None,
    ) -> None:
        """``special_tokens``: what chat templates may name, such as ``{"bos_token": "<s>"}``. ``texts``: encodes and
        decodes them, where ``backend`` has the vocabulary alone."""
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self._special_ids = {id_ for id_, token in backend.get_added_tokens_decoder().items() if token.special}
        self._to_bytes = bytes_of_token(backend)
        self._texts = texts
        self._pieces = texts or Pieces(backend)
        self._bytes: dict[int, bytes] = {}
        self._longest = _MOST_CHARACTERS

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """From a ``tokenizer.json``, or a directory that holds one, a ``tokenizer.model``, or ``vocab.json`` and
        ``merges.txt`` (and perhaps a ``tokenizer_config.json``)."""
        given = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(given, str) or not given:
            raise InvalidArgument(f"a tokenizer is a path or a Tokenizer, not {shown(path)}")
        check_text("tokenizer", given, path=True)
        file = Path(given)
        if exists(file) and file.is_dir():
            if not is_there(file / "tokenizer.json") and has_vocabulary(file):
                return cls._from_vocabulary(file)
            file /= "tokenizer.json"
        if not exists(file) and not is_there(file):
            raise Io(f"no tokenizer at '{short_name(file)}': name a tokenizer.json or a directory that holds one")
        settings = read_settings(file.parent)
        backend, growth = build_from_json(read_bytes(file, most=_MOST_BYTES), f"'{file}'")
        settings.apply(backend)
        with corrupt_unless_it_works(f"'{file}' is a tokenizer that does not work"):
            return cls(backend, settings.for_templates())._that_works(growth)

    @classmethod
    def _from_vocabulary(cls, directory: Path) -> Tokenizer:
        settings = read_settings(directory)
        with corrupt_unless_it_works(f"{directory}: its tokenizer cannot be built"):
            backend, named, model = build_from_files(directory, settings)
            texts = None if model is None else SentencePieceTexts(model, backend, str(directory / "tokenizer.model"))
            growth = 1 if model is None else min(model.growth, MOST_GROWTH)
            return cls(backend, named | settings.for_templates(), texts)._that_works(growth)

    @classmethod
    def from_text(cls, text: str, special_tokens: Mapping[str, Any] | None = None) -> Tokenizer:
        """From the text of a ``tokenizer.json``, as :meth:`to_text` gives it."""
        backend, growth = build_from_json(text.encode(errors="replace"), "this")
        with corrupt_unless_it_works("this is a tokenizer that does not work"):
            return cls(backend, special_tokens)._that_works(growth)

    def to_text(self) -> str:
        """As a ``tokenizer.json``: what programs without pagedcore encode and decode with. Raises Unsupported for a
        vocabulary whose texts the sentencepiece package encodes."""
        if self._texts is not None:
            raise Unsupported(
                "this tokenizer cannot be written as a tokenizer.json, for sentencepiece encodes its texts: "
                "name one that stands for it with tokenizer="
            )
        return self.backend.to_str()

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], source: str = "the GGUF file") -> Tokenizer:
        """From the metadata of a GGUF file, by its keys. ``source``: the file, for messages."""
        from .gguf import build_from_gguf

        metadata = checked_fields(metadata, source)
        tokens = metadata.get("tokenizer.ggml.tokens") or ()
        if not tokens:
            raise Corrupt(f"{source} has no vocabulary (tokenizer.ggml.tokens): name a tokenizer with tokenizer=")
        metadata = with_split_named(without_foreign_ids(metadata, len(tokens), source), source)
        names = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # (sic)
        special: dict[str, str | list[str]] = {}
        for name in ("bos", "eos", "eot", "eom", "unk", "pad", "sep", "cls", "mask"):
            index = metadata.get(f"tokenizer.ggml.{names.get(name, name)}_token_id")
            if index is not None:
                special[f"{name}_token"] = tokens[index]
        try:
            with corrupt_unless_it_works("its tokenizer cannot be built"):
                return cls(build_from_gguf(metadata), special)._that_works()
        except (Corrupt, Unsupported) as error:
            raise type(error)(f"{source}: {error}") from None

    def _that_works(self, growth: int = 1) -> Tokenizer:
        """Encodes and decodes some texts: a file may describe steps that the library finds impossible when it takes
        them. ``growth``: how many times as long a text may become."""
        self._longest = _MOST_CHARACTERS // growth
        for text in TRIED:
            self.decode(self.encode(text))
        if not all(0 <= token < _ID_END for side in self._around for token in side):
            raise Corrupt("a special token that it puts around a text has an id beyond 2^31")
        return self

    def encode(
        self, text: str, *, add_special_tokens: bool = True, continues: bool = False, at_most: int | None = None
    ) -> list[int]:
        """Special tokens that are spelled in the text become themselves; ``add_special_tokens`` adds those that the
        model expects around every text, such as one for its beginning. ``continues``: the text goes on where another
        ends. ``at_most``: encoding ends early once there are more tokens; what it returns is then longer than that.

        Other threads run meanwhile: a long text is encoded in pieces."""
        if not isinstance(text, str):
            raise InvalidArgument(f"cannot encode {type(text).__name__}: text must be a str")
        if len(text) > self._longest:
            raise InvalidArgument(
                f"a text of {len(text)} characters is too long for this tokenizer, which may make it longer: at most "
                f"{self._longest} are possible"
            )
        try:
            text.encode()  # the library says of a lone surrogate that it is no str
            with corrupt_unless_it_works(f"the tokenizer failed on a text of {len(text)} characters"):
                ids = self._pieces.encode(text, continues=continues, at_most=at_most)
        except UnicodeEncodeError:
            raise InvalidArgument("the text is not valid Unicode: it holds half of a surrogate pair") from None
        if not add_special_tokens:
            return ids
        before, after = self._around
        return [*before, *ids, *after]

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Two texts as the model expects a pair of them, with the special tokens around and between, and for each token
        the segment that it belongs to (``token_type_ids``)."""
        texts = [self.encode(text, add_special_tokens=False) for text in (first, second)]
        ids: list[int] = []
        segments: list[int] = []
        for token, text, segment in self._around_pairs:
            more = [token] if text is None else texts[text]
            ids += more
            segments += [segment] * len(more)
        return ids, segments

    @cached_property
    def _around_pairs(self) -> list[tuple[int, int | None, int]]:
        """In order: a special token, None, its segment; or 0, which of the texts stands there, its segment."""
        made = self.backend.encode("a", "a")
        found: list[tuple[int, int | None, int]] = []
        for token, text, segment in zip(made.ids, made.sequence_ids, made.type_ids, strict=True):
            if text is None:
                found.append((token, None, segment))
            elif not found or found[-1][1] != text:
                found.append((0, text, segment))
        return found

    def least_tokens(self, text: str) -> int:
        """How many tokens the text has at least, without encoding it; 0 where that cannot be said."""
        return self._pieces.least_tokens(text)

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens before and behind every text."""
        alone = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a").ids
        for start in range(len(whole) - len(alone) + 1):
            if whole[start : start + len(alone)] == alone:
                return whole[:start], whole[start + len(alone) :]
        return [], []

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Bytes that are not UTF-8 become U+FFFD."""
        ids = list(token_ids)
        try:
            with corrupt_unless_it_works(f"the tokenizer failed on {len(ids)} tokens"):
                if self._texts is not None:
                    return self._texts.decode(ids, skip_special_tokens=skip_special_tokens)
                return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)
        except Corrupt:
            for token in ids:
                if isinstance(token, bool) or not hasattr(token, "__index__") or not 0 <= token < _ID_END:
                    raise InvalidArgument(f"cannot decode {token!r}: token ids are integers in [0, 2^31)") from None
            raise

    def token_to_id(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """The token's spelling in the vocabulary; None for an id that has none."""
        return self.backend.id_to_token(token_id) if 0 <= token_id < _ID_END else None

    def added_tokens(self) -> dict[int, str]:
        """Spellings, by id, of the tokens that a text is searched for before anything else."""
        return {id_: token.content for id_, token in self.backend.get_added_tokens_decoder().items()}

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._special_ids)

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_ids

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text, in UTF-8; it may begin or end inside a character. Empty for unused ids."""
        found = self._bytes.get(token_id)
        if found is None:
            token = self.id_to_token(token_id)
            if self._texts is not None:
                found = self._texts.token_bytes(token_id)
            elif token is None:
                found = b""
            elif self._to_bytes is not None:
                found = self._to_bytes(token)
            else:
                found = self._bytes_in_context(token_id)
            self._bytes[token_id] = found
        return found

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode(errors="replace")

    def _bytes_in_context(self, token_id: int) -> bytes:
        # For decoders of other kinds (word pieces and the like, which know no partial characters): what the token adds
        # after a copy of itself, since it may look different at the start of a text.
        once = self.backend.decode([token_id], skip_special_tokens=False)
        twice = self.backend.decode([token_id, token_id], skip_special_tokens=False)
        return twice[len(once) :].encode()
