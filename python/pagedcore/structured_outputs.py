"""What an output may be held to, and the checks that need no model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .arguments import shown
from .checks import check_bool, check_text
from .errors import InvalidArgument
from .names import knows_its_fields

__all__ = ["StructuredOutputs", "schema_text", "structured_outputs"]

_MOST_CHARACTERS = 1 << 20  # of a schema or grammar
_MOST_CHOICES = 10_000
_MOST_PATTERNS = 64  # patternProperties: each is compared with each
_KINDS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")
_OLD_DRAFT = re.compile(r"https?://json-schema\.org/draft-0([0-3])/")
# One blank, or a line break and an indentation: what people and models write, and no blanks without end.
_WHITESPACE = r"[ \t]|\r?\n[ \t]{0,40}"


@knows_its_fields
@dataclass(frozen=True, kw_only=True)
class StructuredOutputs:
    """What an output is held to: one of ``json``, ``json_object``, ``regex``, ``choice``, ``grammar`` and
    ``structural_tag``. Immutable, and the names are vLLM's. Needs the extra ``grammar``.

    An output that ends with ``finish_reason`` "stop", and was not cut by a stop string or a stop token of the caller's,
    is of this form. One that is cut by ``max_tokens`` is the beginning of such a text.
    """

    json: Mapping[str, Any] | str | bool | None = None
    """A JSON schema: a mapping, or its text."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    """A regular expression that the whole output matches; no references back, and no looking around."""
    choice: Sequence[str] = ()
    """The output is one of these texts."""
    grammar: str | None = None
    """A grammar in llguidance's dialect of Lark, whose rule ``start`` is the output, or in GBNF (``root ::= ...``)."""
    structural_tag: Mapping[str, Any] | str | None = None
    """``{"structures": [{"begin": ..., "schema": ..., "end": ...}], "triggers": [...]}``: text is free until it holds
    a trigger, which begins one of the structures."""
    whitespace_pattern: str | None = None
    """Of JSON: what white space there may be where JSON allows some. None: a blank, or a line break and blanks."""
    disable_any_whitespace: bool = False
    """Of JSON: none."""
    bounded: bool = False
    """Of JSON: where the schema bounds a string, a number, an array or an object in nothing, it is bounded, so that a
    small model comes to an end. All that is left is of the schema; one that has no such text is taken as it stands."""
    fixed_spelling: bool = False
    """What the form leaves no choice of, such as the keys of an object, is spelled by the longest tokens that fit. Such
    text is computed in chunks, which takes fewer steps. False: the model chooses among all spellings."""

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) not in (None, False, ())]
        if self.json is False:
            given.append("json")
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise InvalidArgument(f"structured_outputs takes one of {', '.join(_KINDS)}, and has {found}")
        for name in ("json_object", "disable_any_whitespace", "bounded", "fixed_spelling"):
            check_bool(name, getattr(self, name))
        for name in ("regex", "grammar", "whitespace_pattern"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidArgument(f"{name}={shown(value)} must be a text")
            check_text(name, value)
        if isinstance(self.choice, str) or not isinstance(self.choice, Sequence):
            raise InvalidArgument(f"choice={shown(self.choice)} must be a list of texts")
        if "choice" in given and not self.choice:
            raise InvalidArgument(f"choice={shown(self.choice)} must hold one text or more")
        if len(self.choice) > _MOST_CHOICES:
            raise InvalidArgument(f"choice has {len(self.choice)} texts: {_MOST_CHOICES} are allowed")
        for text in self.choice:
            if not isinstance(text, str) or not text:
                raise InvalidArgument(f"choice={shown(self.choice)} must hold non-empty texts only")
            check_text("choice", text)
        for name in ("json", "structural_tag"):
            object.__setattr__(self, name, _read(name, getattr(self, name)))
        object.__setattr__(self, "choice", tuple(self.choice))
        (kind,) = set(given)
        if self.bounded and kind not in ("json", "json_object"):
            raise InvalidArgument(f"bounded=True is for json and json_object, and this is {kind}")
        text = self._text(kind)
        if len(text) > _MOST_CHARACTERS:
            raise InvalidArgument(f"{kind} has {len(text)} characters: {_MOST_CHARACTERS} are allowed")
        source = ("json" if kind == "json_object" else kind, text, self.bounded, self.fixed_spelling)
        object.__setattr__(self, "_source", source)

    def _text(self, kind: str) -> str:
        if kind in ("regex", "grammar"):
            return str(getattr(self, kind))
        if kind == "choice":
            return json.dumps(self.choice, ensure_ascii=False)
        if kind == "structural_tag":
            return json.dumps(self.structural_tag, ensure_ascii=False)
        schema = {"type": "object"} if kind == "json_object" else self.json
        return schema_text(schema, self.whitespace_pattern, compact=self.disable_any_whitespace)

    @property
    def source(self) -> tuple[str, str, bool, bool]:
        """The kind, all that is said of it, whether it is bounded, and whether its spelling is fixed: equal ones
        mean the same."""
        source: tuple[str, str, bool, bool] = vars(self)["_source"]
        return source

    def __hash__(self) -> int:
        return hash(self.source)


def schema_text(schema: object, whitespace: str | None = None, *, compact: bool = False, lenient: bool = False) -> str:
    """A schema for llguidance, with what it is told of white space. ``lenient``: keywords that it does not know are
    ignored."""
    if schema is False:
        raise InvalidArgument("the JSON schema false allows nothing")
    body = {} if schema is True else schema
    assert isinstance(body, Mapping)
    old = _OLD_DRAFT.match(str(body.get("$schema")))
    if old is not None and not lenient:
        raise InvalidArgument(f"the JSON schema is of draft {old[1]} ($schema): only drafts from 4 on are supported")
    how: dict[str, Any] = (
        {"whitespace_flexible": False} if compact else {"whitespace_pattern": whitespace or _WHITESPACE}
    )
    if lenient:
        how["lenient"] = True
    try:
        patterns = _count_patterns(body)
        text = json.dumps({**body, "x-guidance": how}, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise InvalidArgument("the JSON schema is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the JSON schema is not one that JSON can write: {error}") from None
    if patterns > _MOST_PATTERNS:
        raise InvalidArgument(
            f"the JSON schema has {patterns} patterns in patternProperties: {_MOST_PATTERNS} are allowed"
        )
    check_text("the JSON schema", text.replace("\0", ""))
    return text


def _count_patterns(value: object) -> int:
    if isinstance(value, Mapping):
        own = value.get("patternProperties")
        return (len(own) if isinstance(own, Mapping) else 0) + sum(map(_count_patterns, value.values()))
    return sum(map(_count_patterns, value)) if isinstance(value, (list, tuple)) else 0


def _read(name: str, value: object) -> object:
    """A mapping from itself or its text; a schema may be true or false too."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{name} is a text that is no JSON: {error}") from None
    if value is None or isinstance(value, Mapping) or (name == "json" and isinstance(value, bool)):
        return value
    raise InvalidArgument(f"{name}={shown(value)} must be a JSON object, or its text")


def structured_outputs(value: object) -> StructuredOutputs | None:
    """From one, or from a mapping of its fields."""
    if value is None or isinstance(value, StructuredOutputs):
        return value
    known = [field.name for field in fields(StructuredOutputs)]
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f"structured_outputs={shown(value)} must be a StructuredOutputs, or a mapping of its fields: "
            f"{', '.join(known)}"
        )
    for name in value:
        if name not in known:
            raise InvalidArgument(f"structured_outputs has no {shown(name)}; it has {', '.join(known)}")
    return StructuredOutputs(**{name: entry for name, entry in value.items() if entry is not None})
