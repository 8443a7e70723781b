"""A JSON schema with bounds where it has none: what it still allows the schema allows too, and texts come to an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["bounded"]

_MOST_CHARACTERS = 40
_MOST_ITEMS = 2
_MOST_NUMBER = 10**9
_STEP = 0.001
_SIMPLE = ("string", "integer", "boolean", "null")

_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_COMBINED = ("$ref", "anyOf", "allOf", "oneOf", "enum", "const", "not", "if", "$dynamicRef", "$recursiveRef")
_DEFINITIONS = ("$defs", "definitions")


def bounded(schema: Any, *, within: bool = False) -> Any:
    """A value without a type is one of the types that its keywords are about, else a simple one. Strings, numbers and
    arrays have bounds where they have none. An object that names properties has no others, and one that names none has
    a few. Parts of ``oneOf`` stay as they are, since a value must not fit two of them. ``within``: other parts speak of
    the same value. What is no schema may raise TypeError, ValueError, AttributeError or RecursionError."""
    if schema is True or schema is None:
        schema = {}
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    for name in _DEFINITIONS:
        if isinstance(made.get(name), Mapping):
            made[name] = {key: bounded(value) for key, value in made[name].items()}
    combined = any(name in made for name in _COMBINED)
    for name in ("anyOf", "allOf"):
        if isinstance(made.get(name), list):
            alone = name == "anyOf" and not within and not _speaks_of_values(made, name)
            made[name] = [bounded(part, within=not alone) for part in made[name]]
    if "enum" in made or "const" in made:
        return made
    types = _types(made, may_be_simple=not combined and not within)
    if not types:
        return made
    made["type"] = types[0] if len(types) == 1 else list(types)
    for kind, bound in (("string", _string), ("number", _number), ("integer", _number), ("array", _array)):
        if kind in types:
            bound(made)
    if "object" in types:
        _object(made, combined, within)
    return made


def _speaks_of_values(schema: Mapping[str, Any], but: str) -> bool:
    names = {name for names in _OF_TYPE.values() for name in names} | set(_COMBINED) - {but}
    return any(name in schema for name in names)


def _types(schema: Mapping[str, Any], may_be_simple: bool = True) -> tuple[str, ...]:
    """Of which it is; none: it does not say, and other parts may."""
    given = schema.get("type")
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list):
        return tuple(given)
    spoken_of = tuple(kind for kind, names in _OF_TYPE.items() if any(name in schema for name in names))
    return spoken_of or (_SIMPLE if may_be_simple else ())


def _string(schema: dict[str, Any]) -> None:
    if "maxLength" not in schema:
        schema["maxLength"] = max(_MOST_CHARACTERS, _number_of(schema.get("minLength")))


def _number_of(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _number(schema: dict[str, Any]) -> None:
    ends = [schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")]
    given = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if any(abs(end) > _MOST_NUMBER / 2 for end in given):
        return
    if not any(name in schema for name in ("minimum", "exclusiveMinimum")) or (ends[0] is None and ends[1] is True):
        schema["minimum"] = -_MOST_NUMBER
    if not any(name in schema for name in ("maximum", "exclusiveMaximum")) or (ends[2] is None and ends[3] is True):
        schema["maximum"] = _MOST_NUMBER
    if len(given) < 2 and "multipleOf" not in schema and "integer" not in _types(schema):
        schema["multipleOf"] = _STEP


def _array(schema: dict[str, Any]) -> None:
    if "maxItems" not in schema:
        schema["maxItems"] = max(_MOST_ITEMS, _number_of(schema.get("minItems")))
    for name in ("prefixItems", "items"):
        if isinstance(schema.get(name), list):
            schema[name] = [bounded(part) for part in schema[name]]
    rest = "additionalItems" if isinstance(schema.get("items"), list) else "items"
    schema[rest] = bounded(schema.get(rest, True))


def _object(schema: dict[str, Any], combined: bool, within: bool) -> None:
    properties, patterns = schema.get("properties"), schema.get("patternProperties")
    for name, parts in (("properties", properties), ("patternProperties", patterns)):
        if isinstance(parts, Mapping):
            schema[name] = {key: bounded(part) for key, part in parts.items()}
    named = set(properties) if isinstance(properties, Mapping) else set()
    required = schema.get("required")
    needed = set(required) if isinstance(required, list) else set()
    rest = schema.get("additionalProperties", True)
    if (named or patterns) and needed <= named and not _others_name(schema, named, within):
        schema["additionalProperties"] = False
        return
    if "additionalProperties" not in schema and (combined or within):
        return
    schema["additionalProperties"] = bounded(rest)
    if rest is not False and named <= needed and "maxProperties" not in schema:
        least = max(_number_of(schema.get("minProperties")), len(needed))
        schema["maxProperties"] = least + _MOST_ITEMS


def _others_name(schema: Mapping[str, Any], named: set[str], within: bool) -> bool:
    """Whether other parts may speak of properties that this one does not name."""
    if within or any(name in schema for name in _COMBINED if name not in ("anyOf", "oneOf")):
        return True
    parts = [part for name in ("anyOf", "oneOf") for part in schema.get(name, ()) if isinstance(part, Mapping)]
    spoken_of = {"required", "properties", "type", "description", "title"}
    return any(
        not set(part) <= spoken_of or not {*part.get("required", ()), *part.get("properties", ())} <= named
        for part in parts
    )
