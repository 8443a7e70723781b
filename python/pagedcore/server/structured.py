"""What a body asks its outputs to be held to, under the names of OpenAI, vLLM and llama.cpp."""

from __future__ import annotations

from ..structured_outputs import StructuredOutputs, structured_outputs
from .errors import ApiError, not_supported
from .fields import Fields, wrong

__all__ = ["format_of", "structured_of"]

_GUIDED = {
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_json": "json",
    "guided_regex": "regex",
    "grammar": "grammar",
    "json_schema": "json",
}
_BACKENDS = ("auto", "guidance", "llguidance")


def structured_of(fields: Fields) -> StructuredOutputs | None:
    """From one of ``structured_outputs``, ``guided_*``, ``response_format``, ``grammar`` and ``json_schema``."""
    backend = fields.text("guided_decoding_backend", "auto")
    if backend not in _BACKENDS:
        raise not_supported("guided_decoding_backend", f"leave it out, or say one of {', '.join(_BACKENDS)}")
    found: dict[str, StructuredOutputs | None] = {}
    if "structured_outputs" in fields:
        found["structured_outputs"] = structured_outputs(fields.mapping("structured_outputs"))
    space = fields.text("guided_whitespace_pattern")
    for name, ours in _GUIDED.items():
        if name in fields:
            more = {"whitespace_pattern": space} if ours == "json" else {}
            found[name] = structured_outputs({ours: fields.raw(name)} | more)
    form = format_of(fields.within("response_format"))
    if form is not None:
        found["response_format"] = form
    if len(found) > 1:
        raise ApiError(400, f"{' and '.join(found)}: an output is held to one of them", param=next(iter(found)))
    return next(iter(found.values()), None)


def format_of(form: Fields) -> StructuredOutputs | None:
    """From what ``response_format`` or its like holds; None: text."""
    kind = form.text("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = form.raw("schema")
        return StructuredOutputs(json_object=True) if schema is None else StructuredOutputs(json=schema)
    if kind == "json_schema":
        inner = form.within("json_schema") if "json_schema" in form else form
        return StructuredOutputs(json=inner.required("schema"))
    if kind == "structural_tag":
        return StructuredOutputs(structural_tag=form.everything())
    raise wrong(form.path("type"), kind, "'text', 'json_object', 'json_schema' or 'structural_tag'")
