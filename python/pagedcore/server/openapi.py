"""``/openapi.json``: what can be called, with which fields and bounds, and with which statuses it answers.

Fields that the dialects have and that have no effect here are left out; ``docs/serving.md`` says which are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.responses import Response

from .. import _core
from .call import Call
from .fields import MOST
from .http import Json
from .openai.logprobs import MOST_LOGPROBS
from .sampling import ENDPOINTS_OWN, MOST_CHOICES

__all__ = ["document", "openapi", "operations"]

Schema = dict[str, Any]
_END = 2**31 - 1


async def openapi(call: Call) -> Response:
    return Json(document(bool(call.state.settings.api_keys), operations(call.request.app.routes)))


def operations(routes: Iterable[Any]) -> list[tuple[str, str]]:
    """Path and method of all that can be called but the page, which is no part of the interface."""
    named = [(route.path.replace(":path", ""), method.lower()) for route in routes for method in route.methods]
    return sorted(each for each in named if each[1] != "head" and each[0] != "/" and not each[0].startswith("/page/"))


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(low: float, high: float | None = None) -> Schema:
    return {"type": "number", "minimum": low, **({} if high is None else {"maximum": high})}


def _integer(low: int, high: int = _END) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _list(items: Schema, name: str) -> Schema:
    return {"type": "array", "items": items, "maxItems": MOST.get(name, 1024)}


_FLAG: Schema = {"type": "boolean"}
_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_IDS = {"type": "array", "items": _integer(0)}


def _limited(option: _core.OptionInfo) -> Schema:
    """An option within its limits, which read as ``[0, 1]``, ``(0, 1]``, ``at least 0`` or ``above 0``."""
    schema: Schema = {"type": "integer" if option.type == "int" else "number"}
    limits = option.limits.translate({ord(mark): " " for mark in "[](),"}).replace("at least", "").replace("above", "")
    is_open = option.limits.startswith(("(", "above"))
    for name, limit in zip(("exclusiveMinimum" if is_open else "minimum", "maximum"), limits.split(), strict=False):
        schema[name] = float(limit) if option.type == "float" else int(limit)
    return schema


def _sampling() -> dict[str, Schema]:
    """What every endpoint takes that samples, by the native list."""
    found: dict[str, Schema] = {}
    for option in _core.options_of("SamplingParams"):
        if option.name not in ENDPOINTS_OWN:
            lists = {"tokens": _list(_integer(0), option.name), "biases": _OBJECT}
            found[option.name] = lists.get(option.type) or _limited(option)
    return found


_SAMPLING: dict[str, Schema] = {
    **_sampling(),
    "n": _integer(1, MOST_CHOICES),
    "best_of": _integer(1, MOST_CHOICES),
    "stop": {"anyOf": [_TEXT, _list(_TEXT, "stop")]},
    "bad_words": {"anyOf": [_TEXT, _list(_TEXT, "bad_words")]},
    **dict.fromkeys(("ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "return_token_ids"), _FLAG),
    **dict.fromkeys(("return_tokens_as_token_ids", "use_beam_search"), _FLAG),
    "length_penalty": _number(-1000, 1000),
    "early_stopping": {"anyOf": [_FLAG, {"const": "never"}]},
    "prompt_logprobs": _integer(0, MOST_LOGPROBS),
    **dict.fromkeys(("response_format", "structured_outputs"), _OBJECT),
}
_SERVED: dict[str, Schema] = {
    "model": _TEXT,
    "user": _TEXT,
    "priority": _integer(-_core.MOST_PRIORITY, _core.MOST_PRIORITY),
    "cache_salt": {"type": "string", "minLength": 1},
    "prefix": _TEXT,
}
_STREAMED = {"stream": _FLAG, "stream_options": _OBJECT, "received_tokens": _integer(0)}
_TEMPLATE: dict[str, Schema] = {
    "messages": {**_list(_OBJECT, "messages"), "minItems": 1},
    "tools": _list(_OBJECT, "tools"),
    "tool_choice": {"anyOf": [_TEXT, _OBJECT]},
    "chat_template": {"type": "string", "maxLength": 100_000},
    "chat_template_kwargs": {"type": "object", "maxProperties": MOST["chat_template_kwargs"]},
    **dict.fromkeys(("add_generation_prompt", "continue_final_message", "parallel_tool_calls"), _FLAG),
}
_CHAT = {**_TEMPLATE, "reasoning_effort": _TEXT, "include_reasoning": _FLAG, "logprobs": _FLAG}
_CHAT |= {"top_logprobs": _integer(0, MOST_LOGPROBS)}
_CHAT |= {name: _integer(0) for name in ("max_tokens", "max_completion_tokens")}
_PROMPT = {"anyOf": [_TEXT, _list(_TEXT, "prompt"), _IDS, _list(_IDS, "prompt")]}
_TEXTS = {"anyOf": [_TEXT, {**_list(_TEXT, "text_1"), "minItems": 1}]}
_ANTHROPIC: dict[str, Schema] = {
    "model": _TEXT,
    "messages": {**_list(_OBJECT, "messages"), "minItems": 1},
    "system": {"anyOf": [_TEXT, {"type": "array", "items": _OBJECT}]},
    "tools": _list(_OBJECT, "tools"),
    "tool_choice": _OBJECT,
    "thinking": _OBJECT,
}
_MESSAGES = {**_ANTHROPIC, "max_tokens": _integer(1), "stop_sequences": _list(_TEXT, "stop_sequences"), "stream": _FLAG}
_MESSAGES |= {name: _SAMPLING[name] for name in ("temperature", "top_p", "top_k")}
# Path: what it is, the fields of its body, those that must be there, what a good answer holds.
_POSTS: dict[str, tuple[str, dict[str, Schema], tuple[str, ...], tuple[str, ...]]] = {
    "/v1/completions": (
        "Texts or token ids go on.",
        {"prompt": _PROMPT, "max_tokens": _integer(0), "logprobs": _integer(0, MOST_LOGPROBS)}
        | {"echo": _FLAG, "add_special_tokens": _FLAG, **_SAMPLING, **_SERVED, **_STREAMED},
        ("prompt",),
        ("id", "object", "created", "model", "choices", "usage"),
    ),
    "/v1/chat/completions": (
        "Conversations.",
        {**_CHAT, **_SAMPLING, **_SERVED, **_STREAMED},
        ("messages",),
        ("id", "object", "created", "model", "choices", "usage"),
    ),
    "/v1/responses": (
        "Conversations in OpenAI's newer form. Nothing is stored.",
        {
            "input": {"anyOf": [_TEXT, _list(_OBJECT, "input")]},
            "instructions": _TEXT,
            "max_output_tokens": _integer(1),
            "reasoning": _OBJECT,
            "text": _OBJECT,
            "metadata": _OBJECT,
            "stream": _FLAG,
            **{name: _TEMPLATE[name] for name in ("tools", "tool_choice", "parallel_tool_calls")},
            **{name: _SAMPLING[name] for name in ("temperature", "top_p")},
            **_SERVED,
        },
        ("input",),
        ("id", "object", "model", "output", "status"),
    ),
    "/v1/messages": (
        "Conversations in Anthropic's form.",
        _MESSAGES,
        ("messages", "max_tokens"),
        ("id", "type", "role", "content", "model", "usage"),
    ),
    "/v1/messages/count_tokens": (
        "How many tokens a conversation has.",
        _ANTHROPIC,
        ("messages",),
        ("input_tokens",),
    ),
    "/tokenize": (
        "The tokens of a prompt, or of a conversation as the chat template shows it.",
        {"prompt": _TEXT, "return_token_strs": _FLAG, "add_special_tokens": _FLAG, **_TEMPLATE, "model": _TEXT},
        (),
        ("count", "max_model_len", "tokens"),
    ),
    "/detokenize": (
        "The text of tokens.",
        {"tokens": _list(_integer(0), "tokens"), "model": _TEXT},
        ("tokens",),
        ("prompt",),
    ),
}
for _path in ("/v1/score", "/score"):
    _POSTS[_path] = (
        "Log-probability of each of text_2 after text_1.",
        {"text_1": _TEXTS, "text_2": _TEXTS, **_SERVED},
        ("text_1", "text_2"),
        ("id", "object", "data", "usage"),
    )
_POSTS["/v1/embeddings"] = (
    "Vectors of texts, or of token ids.",
    {
        "input": {"anyOf": [_TEXT, _list({"anyOf": [_TEXT, _integer(0), _IDS]}, "input")]},
        "encoding_format": {"enum": ["float", "base64"]},
        "dimensions": _integer(1),
        "pooling": {"enum": ["auto", "last", "mean", "cls"]},
        "normalize": _FLAG,
        **_SERVED,
    },
    ("input",),
    ("object", "data", "model", "usage"),
)
for _path in ("/v1/rerank", "/rerank"):
    _POSTS[_path] = (
        "Which documents answer a query, the best first.",
        {
            "query": _TEXT,
            "documents": _list({"anyOf": [_TEXT, _OBJECT]}, "documents"),
            "instruction": _TEXT,
            "top_n": _integer(1),
            "return_documents": _FLAG,
            **_SERVED,
        },
        ("query", "documents"),
        ("id", "model", "results"),
    )
_GETS = {
    "/v1/models": ("What is served.", ("object", "data")),
    "/v1/models/{model}": ("One of them.", ("id", "object", "max_model_len")),
    "/tokenizer_info": ("Special tokens and the chat template.", ("chat_template", "model_max_length")),
    "/version": ("Of pagedcore.", ("version",)),
    "/load": ("Calls under way.", ("server_load", "requests_running", "requests_waiting")),
    "/health": ("Whether the engine works. Needs no key.", ("status",)),
    "/ready": ("Whether calls are taken. Needs no key.", ("status",)),
    "/snapshot": ("What the page at / shows; not with --no-page.", ("kv", "stats", "requests", "tables", "steps")),
    "/openapi.json": ("This document.", ("openapi", "info", "paths")),
    "/metrics": ("For Prometheus.", ()),
}
_OPEN = ("/health", "/ready")
_STATUSES = {
    "400": "what was sent is wrong: the message names the field, the value and the limit",
    "401": "the key is missing or wrong",
    "404": "no such model, or path",
    "405": "not by this method",
    "408": "the body is too slow",
    "413": "the body is too large",
    "415": "the body is no JSON by its content-type",
    "429": "too many requests wait; retry-after says when to come again",
    "431": "the headers are too long",
    "500": "the request failed on its way",
    "503": "the server ends, or its engine has failed",
    "504": "--request-timeout has passed",
}
_OF_GET = ("400", "401", "404", "405", "431", "503")


def document(keys: bool, there: Iterable[tuple[str, str]]) -> Schema:
    """``keys``: whether calls need one. ``there``: the operations of this server; of one that nothing is known of here
    the document says its statuses."""
    known = _known()
    paths: Schema = {}
    for path, method in there:
        plain = {"200": {"description": "done"}, **_failures(tuple(_STATUSES), "Error")}
        paths.setdefault(path, {})[method] = known.get(path, {}).get(method) or {"responses": plain}
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    components: Schema = {"schemas": {"Error": _openai_error(), "AnthropicError": _anthropic_error()}}
    made = {
        "openapi": "3.1.0",
        "info": {"title": "pagedcore", "version": _core.version()},
        "paths": paths,
        "components": components | ({"securitySchemes": schemes} if keys else {}),
    }
    return made | ({"security": [{"key": []}]} if keys else {})


def _known() -> Schema:
    paths: Schema = {}
    for path, (summary, fields, required, answer) in _POSTS.items():
        named = [name for name in fields if name not in required]
        body = {
            "type": "object",
            "properties": {**fields, **{name: _or_null(fields[name]) for name in named}},
            "required": list(required),
        }
        content: Schema = {"application/json": {"schema": _holding(answer)}}
        if "stream" in fields:
            content["text/event-stream"] = {"schema": _TEXT}
        error = "AnthropicError" if path.startswith("/v1/messages") else "Error"
        paths[path] = {
            "post": {
                "summary": summary,
                "operationId": "post" + path.replace("/", "_"),
                "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
                "responses": {"200": {"description": "done", "content": content}, **_failures(tuple(_STATUSES), error)},
            }
        }
    for path, (summary, answer) in _GETS.items():
        kind = "application/json" if answer else "text/plain"
        done: Schema = {"description": "done", "content": {kind: {"schema": _holding(answer) if answer else _TEXT}}}
        operation: Schema = {"summary": summary, "operationId": "get" + path.replace("/", "_").strip("{}")}
        operation["responses"] = {"200": done, **_failures(_OF_GET, "Error")}
        if "{" in path:
            operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": _TEXT}]
        if path == "/snapshot":
            asked = {
                "name": "request",
                "in": "query",
                "schema": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
            }
            operation["parameters"] = [asked, {"name": "model", "in": "query", "schema": _TEXT}]
        if path in _OPEN:
            operation["security"] = []
        paths[path] = {"get": operation}
    return paths


def _holding(names: tuple[str, ...]) -> Schema:
    return {"type": "object", "required": list(names)}


def _failures(statuses: tuple[str, ...], schema: str) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {status: {"description": _STATUSES[status], "content": content} for status in statuses}


def _openai_error() -> Schema:
    texts: Schema = {name: _TEXT for name in ("message", "type")}
    texts |= {name: _or_null(_TEXT) for name in ("param", "code")}
    inner = {"type": "object", "properties": texts, "required": list(texts)}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]}


def _anthropic_error() -> Schema:
    inner = {"type": "object", "properties": {"type": _TEXT, "message": _TEXT}, "required": ["type", "message"]}
    return {"type": "object", "properties": {"type": {"const": "error"}, "error": inner}, "required": ["type", "error"]}
