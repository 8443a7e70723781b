"""The chat templates that come with a model, by name, from every place where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..chat import TemplateSource
from ..config_files import is_there, read_object, read_text
from ..errors import Corrupt, Io
from ..families.fields import Fields

__all__ = ["templates_of_directory", "templates_of_gguf"]

_MOST_BYTES = 1 << 20
_GGUF = "tokenizer.chat_template"


def templates_of_directory(directory: Path) -> dict[str, TemplateSource]:
    """Of a name that is in several places the first one counts, as transformers has it: files of their own
    (chat_template.jinja, additional_chat_templates/NAME.jinja), tokenizer_config.json, chat_template.json."""
    found: dict[str, TemplateSource] = {}
    path = directory / "chat_template.jinja"
    if is_there(path):
        found["default"] = _of_file(path)
    more = directory / "additional_chat_templates"
    if is_there(more):
        for path in _listed(more):
            found[path.stem] = _of_file(path)
    for name in ("tokenizer_config.json", "chat_template.json"):
        path = directory / name
        if is_there(path):
            found = _of_field(read_object(path).get("chat_template"), f"{path}: chat_template") | found
    return found


def templates_of_gguf(metadata: Fields) -> dict[str, TemplateSource]:
    """``tokenizer.chat_template`` and ``tokenizer.chat_template.NAME``."""
    found = {}
    for key, value in metadata.values.items():
        if key == _GGUF or key.startswith(_GGUF + "."):
            if not isinstance(value, str):
                raise metadata.refuse(key, "is not text")
            if value:
                name = key[len(_GGUF) + 1 :] or "default"
                found[name] = TemplateSource(value, f"{metadata.source}: {key}")
    return found


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".jinja")
    except OSError as error:
        raise Io(f"{directory}: cannot be read: {error.strerror}") from None


def _of_file(path: Path) -> TemplateSource:
    return TemplateSource(read_text(path, most=_MOST_BYTES), str(path))


def _of_field(value: Any, origin: str) -> dict[str, TemplateSource]:
    """A template, or a list of objects with a name and a template."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": TemplateSource(value, origin)}
    if not isinstance(value, list):
        raise Corrupt(f"{origin} is neither a text nor a list of named templates")
    found: dict[str, TemplateSource] = {}
    for at, entry in enumerate(value):
        name, text = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise Corrupt(f"{origin}[{at}] is no object with a name and a template")
        if name in found:
            raise Corrupt(f"{origin}[{at}]: there are two templates called {name[:80]!r}")
        found[name] = TemplateSource(text, f"{origin} {name!r}")
    return found
