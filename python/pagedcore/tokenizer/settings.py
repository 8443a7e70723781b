"""What stands beside a tokenizer.json: tokenizer_config.json, special_tokens_map.json, added_tokens.json.

Read as transformers' AutoTokenizer (5.x) reads them: tokenizer_config.json's ``added_tokens_decoder`` stands for the
two other files; tokens that tokenizer.json lacks are added in the order of their ids; a special token that is no added
token becomes one. ``add_bos_token`` and ``add_eos_token`` hold for vocabularies without a tokenizer.json only: such a
file says itself what is put around a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config_files import is_there, read_object
from ..errors import Corrupt

if TYPE_CHECKING:
    import tokenizers

__all__ = ["TokenizerSettings", "read_settings"]

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")

# What transformers' classes take for tokens that no file names.
_DEFAULTS = {
    "Qwen2Tokenizer": dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
    "GPT2Tokenizer": dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
}
_CLASSES = {"qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer"}  # of models, where no file names one


@dataclass
class TokenizerSettings:
    named: dict[str, tokenizers.AddedToken]
    """Special tokens by name, such as ``bos_token``, with those of the model's own kind."""
    extra: list[tokenizers.AddedToken]
    """Special tokens without names."""
    added: dict[int, tokenizers.AddedToken] = field(default_factory=dict)
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    split_special_tokens: bool = False
    kind: str = ""
    """The class that AutoTokenizer takes, without "Fast"; empty where nothing names one."""

    def for_templates(self) -> dict[str, str | list[str]]:
        texts: dict[str, str | list[str]] = {name: token.content for name, token in self.named.items()}
        if self.extra:
            texts["additional_special_tokens"] = [token.content for token in self.extra]
        return texts

    def apply(self, backend: tokenizers.Tokenizer) -> None:
        """Adds the tokens that the tokenizer does not have."""
        present = {repr(token) for token in backend.get_added_tokens_decoder().values()}
        spelled = {token.content for token in backend.get_added_tokens_decoder().values()}
        new = [token for _, token in sorted(self.added.items()) if repr(token) not in present]
        spelled |= {token.content for token in new}
        specials = {token.content for token in self.named.values()}
        for token in (*self.named.values(), *self.extra):
            if token.content not in spelled:
                new.append(token)
                spelled.add(token.content)
        for token in new:
            token.special = token.special or token.content in specials
        backend.add_tokens(new)
        backend.encode_special_tokens = self.split_special_tokens


def read_settings(directory: Path) -> TokenizerSettings:
    """Raises Corrupt, with file and field, for what transformers would not understand either."""
    config = _File(directory / "tokenizer_config.json")
    values = dict(config.values)
    added: dict[int, Any] = {}
    if "added_tokens_decoder" in values:
        added = {_id(config, key): config.token(value, key) for key, value in config.pairs("added_tokens_decoder")}
    else:
        names = _File(directory / "special_tokens_map.json")
        values |= {key: names.special(value, key) for key, value in names.values.items()}
        spellings = _File(directory / "added_tokens.json")
        specials = {
            _content(value) for name in (*_NAMED, "additional_special_tokens") for value in _all(values.get(name))
        }
        for spelling, index in spellings.values.items():
            special = spelling in specials
            token = {"content": spelling, "special": special, "normalized": not special}
            added[_id(spellings, index)] = spellings.token(token, spelling)
    by_spelling = {token.content: token for token in added.values()}
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        values |= extra
        extra = []
    elif not isinstance(extra, list):
        raise Corrupt(f"{config.path}: additional_special_tokens is no list of tokens")
    kind, defaults = _class_of(directory, values)
    values = defaults | values
    named = {}
    own = [
        name for name in values if name.endswith("_token") and name not in (*_NAMED, "add_bos_token", "add_eos_token")
    ]
    for name in (*_NAMED, *own):
        value = values.get(name)
        if value is None or (name in own and not isinstance(value, (str, dict))):
            continue
        token = config.one(value, name)
        named[name] = by_spelling.get(token.content, token)
    return TokenizerSettings(
        named=named,
        extra=[config.one(token, "additional_special_tokens") for token in extra],
        added=added,
        add_bos_token=config.flag("add_bos_token"),
        add_eos_token=config.flag("add_eos_token"),
        split_special_tokens=config.flag("split_special_tokens") or False,
        kind=kind,
    )


def _class_of(directory: Path, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class that AutoTokenizer takes, the one that is named or the model's, and what it adds of its own accord."""
    model = _File(directory / "config.json").values.get("model_type")
    named = str(values.get("tokenizer_class") or _CLASSES.get(str(model), "")).removesuffix("Fast")
    if model == "qwen2":
        named = "Qwen2Tokenizer"
    return named, {} if model == "mistral" else dict(_DEFAULTS.get(named, {}))


class _File:
    """A JSON object that may not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = read_object(path) if is_there(path) else {}

    def pairs(self, name: str) -> Iterator[tuple[str, Any]]:
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise Corrupt(f"{self.path}: {name} is no object")
        yield from (value or {}).items()

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise Corrupt(f"{self.path}: {name} = {str(value)[:80]!r} is neither true nor false")
        return value

    def special(self, value: Any, name: str) -> Any:
        """A special token or a list of them, as far as this is what the value is."""
        if isinstance(value, list):
            return [self.one(token, name) for token in value]
        named = name == "extra_special_tokens" and isinstance(value, dict)
        return value if value is None or named else self.one(value, name)

    def one(self, value: Any, name: str) -> Any:
        """A special token from its spelling or an object."""
        from tokenizers import AddedToken

        return value if isinstance(value, AddedToken) else self.token(value, name, special=True)

    def token(self, value: Any, name: str, *, special: bool = False) -> Any:
        from tokenizers import AddedToken

        content = value.get("content") if isinstance(value, dict) else value
        flags = {flag: value[flag] for flag in _FLAGS if flag in value} if isinstance(value, dict) else {}
        if not isinstance(content, str) or not all(isinstance(flag, bool) for flag in flags.values()):
            raise Corrupt(
                f"{self.path}: {name[:80]} is {str(value)[:80]!r}, no token: a text, or an object with a content"
            )
        try:
            return AddedToken(content, **({"special": True} | flags if special else flags))
        except (TypeError, ValueError) as error:  # half of a surrogate pair
            raise Corrupt(f"{self.path}: {name[:80]} is no token: {error}") from None


def _id(file: _File, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or len(text) > 9 or isinstance(value, bool):
        raise Corrupt(f"{file.path}: {text[:80]!r} is no token id")
    return int(text)


def _all(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _content(value: Any) -> str:
    content = value.get("content") if isinstance(value, dict) else getattr(value, "content", value)
    return content if isinstance(content, str) else ""
