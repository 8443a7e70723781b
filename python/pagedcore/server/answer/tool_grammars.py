"""What an answer is held to that must be a call: the format of the model's family, around the schemas of the tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...grammar import literal, schema_rule
from .tool_formats import ToolFormat

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer

__all__ = ["calls_grammar"]


def calls_grammar(
    format: ToolFormat,
    functions: Sequence[Mapping[str, Any]],
    chosen: str | None,
    tokenizer: Tokenizer | None,
    *,
    several: bool,
) -> str:
    """In Lark: a call of one of the functions, or ``several``, behind what ``format.begin(chosen)`` has begun. Where
    the schema of a function is not said to be strict, keywords that are not supported are ignored."""
    begun = format.begin(chosen)
    rules: list[str] = []
    first, later = [], []
    for at, function in enumerate(functions):
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        lenient = not function.get("strict")
        begin = format.begin(function["name"])
        if format.body == "xml":
            rules.append(f"rest_{at}: {_xml_rest(format, schema, tokenizer, at, lenient, rules)}")
        else:
            rules.append(f'rest_{at}: {schema_rule(schema, lenient=lenient)} "}}"')
        first.append(_joined(literal(begin[len(begun) :], tokenizer), f"rest_{at}"))
        later.append(_joined(literal(_again(format, begin), tokenizer), f"rest_{at}"))
    between, end = _marks(format)
    call = f"({' | '.join(first)})"
    if several:
        again = _joined(literal(between, tokenizer), f"({' | '.join(later)})")
        call += f" ({again})*"
    return "%llguidance {}\n" + f"start: {_joined(call, literal(end, tokenizer))}\n" + "\n".join(rules) + "\n"


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _marks(format: ToolFormat) -> tuple[str, str]:
    """Between two calls, and behind the last."""
    if format.several:
        return f"{format.several} ", format.closer
    closer = "" if format.bare else format.closer
    return f"\n{closer}\n", f"\n{closer}" if closer else ""


def _again(format: ToolFormat, begin: str) -> str:
    """How a call begins that is not the first."""
    return begin[begin.index("{") :] if format.several else begin


def _xml_rest(
    format: ToolFormat, schema: Mapping[str, Any], tokenizer: Tokenizer | None, at: int, lenient: bool, rules: list[str]
) -> str:
    """The parameters of a call that is written with tags: texts as they are, everything else as JSON."""
    required = schema.get("required") or ()
    parts = []
    properties = schema.get("properties") or {}
    for place, (name, value) in enumerate(properties.items()):
        end = "\n</parameter>\n"
        if isinstance(value, Mapping) and value.get("type") == "string" and "enum" not in value:
            rules.append(f"text_{at}_{place}[suffix={literal(end, None)}]: /(.|\\n)*/")
            body = f"text_{at}_{place}"
        else:
            inner = {"$defs": schema["$defs"], **value} if "$defs" in schema and isinstance(value, Mapping) else value
            body = _joined(schema_rule(inner, lenient=lenient), literal(end, None))
        part = _joined(literal(f"<parameter={name}>\n", None), body)
        parts.append(part if name in required else f"({part})?")
    return _joined(*parts, literal("</function>", tokenizer))
