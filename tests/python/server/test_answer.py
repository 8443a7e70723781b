"""Answers taken apart: expected pieces are what the formats' own documents say a text means."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from pagedcore.server.answer import (
    TOOL_FORMATS,
    AnswerParser,
    Arguments,
    Begun,
    Content,
    Piece,
    Thought,
    tool_format_of,
)

_WEATHER = {"f": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}


def _parsed(text: str, cuts: list[int], format: str | None, **options: Any) -> list[Piece]:
    """Neighbouring texts of a kind joined."""
    parser = AnswerParser(format=None if format is None else TOOL_FORMATS[format], **options)
    pieces: list[Piece] = []
    ends = [*cuts, len(text)]
    for begin, end in zip([0, *ends], ends, strict=False):
        pieces += parser.push(text[begin:end])
    joined: list[Any] = []
    for piece in pieces + parser.finish():
        if joined and type(joined[-1]) is type(piece) and not isinstance(piece, Begun):
            joined[-1] = type(piece)(joined[-1].text + piece.text)
        else:
            joined.append(piece)
    return joined


_CASES: list[tuple[str | None, dict[str, Any], str, list[Piece]]] = [
    (
        "hermes",
        {},
        'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": "}]{\\"<", "b": [1, {"c": 2}]}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
        [
            Content("Let me see."),
            Begun("f"),
            Arguments('{"a": "}]{\\"<", "b": [1, {"c": 2}]}'),
            Begun("g"),
            Arguments("{}"),
        ],
    ),
    ("hermes", {}, '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', [Begun("f"), Arguments('{"a": 1}')]),
    ("hermes", {}, '<tool_call>{"name": "f", "arguments": {"a": "cu', [Begun("f"), Arguments('{"a": "cu')]),
    ("hermes", {}, "a < b <tool_cal x  <tool_call> no", [Content("a < b <tool_cal x  <tool_call> no")]),
    ("hermes", {}, '<tool_call>{"nam', [Content('<tool_call>{"nam')]),
    ("hermes", {}, '<tool_call>{"name": 5}</tool_call>', [Content('<tool_call>{"name": 5}</tool_call>')]),
    (
        "hermes",
        {},
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        [Begun("f"), Arguments('{"a": 1}')],
    ),
    (
        "hermes",
        {"begun": '<tool_call>\n{"name": "f", "arguments": '},
        '{"q": 1}}\n</tool_call>',
        [Begun("f"), Arguments('{"q": 1}')],
    ),
    (
        "mistral",
        {},
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": [2]}}]',
        [Begun("f"), Arguments('{"a": 1}'), Begun("g"), Arguments('{"b": [2]}')],
    ),
    (
        "mistral",
        {},
        'Sure. [TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{"b": 2}',
        [Content("Sure."), Begun("f"), Arguments('{"a": 1}'), Begun("g"), Arguments('{"b": 2}')],
    ),
    (
        "llama3",
        {},
        '{"name": "f", "parameters": {"a": "b"}}; {"name": "g", "parameters": {}}',
        [Begun("f"), Arguments('{"a": "b"}'), Begun("g"), Arguments("{}")],
    ),
    ("llama3", {}, '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', [Begun("f"), Arguments('{"a": 1}')]),
    ("llama3", {}, '{"x": 1} is JSON', [Content('{"x": 1} is JSON')]),
    ("llama3", {}, 'Text {"name": "f", "parameters": {}}', [Content('Text {"name": "f", "parameters": {}}')]),
    (
        "qwen3_coder",
        {"tools": _WEATHER},
        "ok\n<tool_call>\n<function=f>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        [Content("ok"), Begun("f"), Arguments('{"city": "12", "days": 3}')],
    ),
    (
        "hermes",
        {"thinks": True},
        '<think>\nhm <tool_call>\n</think>\n\nYes.\n\n<tool_call>{"name":"f","arguments":{"x":1}}</tool_call>',
        [Thought("hm <tool_call>"), Content("Yes."), Begun("f"), Arguments('{"x":1}')],
    ),
    (None, {"thinks": True, "prompt": "<|assistant|><think>\n"}, "hm\n</think>\n\nB ", [Thought("hm"), Content("B ")]),
    (None, {"thinks": True, "prompt": "<think>\n\n</think>\n\n"}, "B c", [Content("B c")]),
    (None, {"thinks": True}, "<think>never ends </thi", [Thought("never ends </thi")]),
    (None, {"thinks": True}, "<thi", [Content("<thi")]),
    (None, {"thinks": True}, "  plain </think>", [Content("  plain </think>")]),
    (None, {}, "<think>a</think><tool_call>", [Content("<think>a</think><tool_call>")]),
    (
        "harmony",
        {},
        "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"city": "Rome"}<|call|>',
        [Thought("Think."), Begun("f"), Arguments('{"city": "Rome"}')],
    ),
    (
        None,
        {"channels": True},
        "<|channel|>analysis<|message|>a <b<|end|><|start|>assistant<|channel|>final<|message|>Hello, <world",
        [Thought("a <b"), Content("Hello, <world")],
    ),
    (
        "harmony",
        {},
        "<|channel|>commentary<|message|>One.<|end|><|start|>assistant to=functions.f<|channel|>commentary json"
        "<|message|>{}",
        [Content("One."), Begun("f"), Arguments("{}")],
    ),
    ("harmony", {"prompt": "<|start|>assistant<|channel|>analysis<|message|>So"}, " what", [Thought(" what")]),
    ("harmony", {"prompt": "<|start|>assistant<|channel|>final<|message|>a<|end|>"}, "b c", [Content("b c")]),
    ("harmony", {}, "no channels", [Content("no channels")]),
    ("harmony", {}, "<|channel|>fin", []),  # cut within a header
]


@pytest.mark.parametrize(("format", "options", "text", "expected"), _CASES)
def test_a_text_means_the_same_however_it_is_cut(
    format: str | None, options: dict[str, Any], text: str, expected: list[Piece]
) -> None:
    assert _parsed(text, [], format, **options) == expected
    assert _parsed(text, list(range(1, len(text))), format, **options) == expected
    seeded = random.Random(text)
    for _ in range(50):
        cuts = sorted(seeded.sample(range(1, len(text)), seeded.randint(1, len(text) - 1)))
        assert _parsed(text, cuts, format, **options) == expected, cuts


@pytest.mark.parametrize("format", TOOL_FORMATS)
@pytest.mark.parametrize("seed", range(20))
def test_no_text_is_lost_and_nothing_raises_on_noise(format: str, seed: int) -> None:
    """Content and arguments hold every letter that the marks and the frame of a call do not."""
    seeded = random.Random(seed)
    parts = (
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        '{"name": "f", ',
        '"arguments": ',
        "{",
        "}",
        "[",
        "]",
    )
    parts += ('"', "\\", ",", ";", "<function=", "f>", "</function>", "<|python_tag|>", "Q", " Z", "\n", "f[")
    text = "".join(seeded.choice(parts) for _ in range(40))
    pieces = _parsed(text, [], format)
    shown = "".join(getattr(piece, "text", "") for piece in pieces)
    assert shown.count("Z") <= text.count("Z")
    assert pieces == _parsed(text, list(range(1, len(text))), format)


@pytest.mark.parametrize(
    ("template", "format"),
    [
        ("{% if tools %}<tool_call>{{ tools }}{% endif %}", "hermes"),
        ("{% if tools %}<tool_call>\n<function=example>{% endif %}", "qwen3_coder"),
        ("{{ tools }}[TOOL_CALLS]", "mistral"),
        ("{{ tools }}<|python_tag|>", "llama3"),
        ("{{ tools }}<|channel|>analysis<|message|>", "harmony"),
        ("<tool_call>", None),
        ("{{ messages }}", None),
    ],
)
def test_the_template_says_how_calls_are_written(template: str, format: str | None) -> None:
    found = tool_format_of(template)
    assert (found.name if found else None) == format


@pytest.mark.parametrize("format", ["hermes", "mistral", "llama3"])
def test_what_an_answer_is_made_to_begin_with_is_a_call(format: str) -> None:
    written = TOOL_FORMATS[format].begin('a "b"')
    assert _parsed('{"x": 1}}', [], format, begun=written) == [Begun('a "b"'), Arguments('{"x": 1}')]
    assert json.loads("[" + written[written.index("{") :] + "{}}]")[0]["name"] == 'a "b"'
