"""Chat templates with names, tools, parts and messages to continue.

The reference is transformers' apply_chat_template with the same files and arguments; content that is a list of parts
means the same text under a template that knows texts only.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer

from gguf_writer import write_gguf
from pagedcore.chat import ChatTemplates, TemplateSource
from pagedcore.errors import Corrupt, InvalidArgument
from pagedcore.loading import load_checkpoint, load_description
from pagedcore.loading.container import save_container
from pagedcore.tokenizer import Tokenizer

Tiny = Callable[..., tuple[Path, Any]]

DEFAULT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOOLS = "TOOLS {{ tools | tojson }} " + DEFAULT
RAG = "RAG {{ documents }} " + DEFAULT
NAMED = [{"name": name, "template": text} for name, text in (("default", DEFAULT), ("tool_use", TOOLS), ("rag", RAG))]
MESSAGES = [{"role": "user", "content": "Hi ü"}, {"role": "assistant", "content": "Hello."}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    shutil.copytree(tiny("llama")[0], tmp_path / "model")
    backend = tokenizers.Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def write(folder: Path, *, config: Any = None, files: dict[str, str] | None = None) -> None:
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": config, "bos_token": "<s>"}))
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def templates(path: Path) -> ChatTemplates:
    checkpoint = load_description(path)
    return ChatTemplates(checkpoint.chat_templates, Tokenizer.from_path(path).special_tokens)


PLACES = {
    "list": {"config": NAMED},
    "files": {
        "files": {
            "chat_template.jinja": DEFAULT,
            "additional_chat_templates/tool_use.jinja": TOOLS,
            "additional_chat_templates/rag.jinja": RAG,
        }
    },
    "both": {
        "config": "{{ 'not this one' }}",
        "files": {
            "chat_template.jinja": DEFAULT,
            "additional_chat_templates/tool_use.jinja": TOOLS,
            "additional_chat_templates/rag.jinja": RAG,
        },
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_templates_in_a_directory_are_chosen_as_transformers_chooses(folder: Path, place: str) -> None:
    write(folder, **PLACES[place])
    ours, reference = templates(folder), AutoTokenizer.from_pretrained(folder)
    for name in (None, "default", "tool_use", "rag"):
        for tools in (None, [], [TOOL]):
            for add in (True, False):
                options: Any = {"tools": tools, "chat_template": name, "add_generation_prompt": add}
                expected = reference.apply_chat_template(MESSAGES, tokenize=False, **options)
                assert ours.prompt(MESSAGES, options) == expected
    assert ours.prompt(MESSAGES, {"tools": [TOOL]}).startswith("TOOLS")


def test_tools_that_a_template_does_not_know_are_warned_of_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, config=DEFAULT)
    with caplog.at_level(logging.WARNING, "pagedcore"):
        for _ in range(2):
            assert templates(folder).prompt(MESSAGES, {"tools": [TOOL]}) == templates(folder).prompt(MESSAGES, {})
    (record,) = caplog.records
    assert "tokenizer_config.json" in record.getMessage() and "no tools" in record.getMessage()
    for tools in ([open], "f", {"type": "function"}):
        with pytest.raises(InvalidArgument, match="JSON schema"):
            templates(folder).prompt(MESSAGES, {"tools": tools})  # type: ignore[typeddict-item]


def test_a_gguf_file_has_the_same_templates(tiny: Tiny, tmp_path: Path, folder: Path) -> None:
    write(folder, config=NAMED)
    path = write_gguf(
        tmp_path / "model.gguf", tiny("llama")[1], "llama", lambda writer: writer.add_chat_template(NAMED)
    )
    checkpoint, expected = load_checkpoint(path), load_description(folder)
    assert {n: t.text for n, t in checkpoint.chat_templates.items()} == {
        n: t.text for n, t in expected.chat_templates.items()
    }
    save_container(tmp_path / "model.safetensors", checkpoint)
    copy = load_description(tmp_path / "model.safetensors")
    assert {n: t.text for n, t in copy.chat_templates.items()} == {
        n: t.text for n, t in expected.chat_templates.items()
    }
    assert checkpoint.chat_template == copy.chat_template == DEFAULT


def test_templates_without_a_default_are_named(folder: Path) -> None:
    write(folder, config=NAMED[1:])
    ours = templates(folder)
    assert ours.prompt(MESSAGES, {"tools": [TOOL]}).startswith("TOOLS")
    with pytest.raises(InvalidArgument, match=r"\(rag, tool_use\)"):
        ours.prompt(MESSAGES, {})
    with pytest.raises(InvalidArgument, match=r"'tool-use'.*rag, tool_use"):
        ours.prompt(MESSAGES, {"chat_template": "tool-use"})
    assert ours.prompt(MESSAGES, {"chat_template": "{{ messages[0].content }}"}) == "Hi ü"


def test_an_error_names_the_file_and_the_field(folder: Path) -> None:
    write(
        folder, config=[{"name": "default", "template": "{% if %}"}], files={"additional_chat_templates/x.jinja": "{{"}
    )
    for name, where in (
        (None, "tokenizer_config.json: chat_template 'default'"),
        ("x", "additional_chat_templates/x.jinja"),
    ):
        with pytest.raises(InvalidArgument) as error:
            templates(folder).prompt(MESSAGES, {"chat_template": name})
        assert where in str(error.value) and "not valid Jinja" in str(error.value)
    write(folder, config=[{"name": "default"}])
    with pytest.raises(Corrupt, match=r"tokenizer_config\.json: chat_template\[0\]"):
        templates(folder)


# Templates of each kind: for texts only, for parts only, for both, and those that lose a list without a word.
TEXTS_ONLY = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
CONCATENATES = "{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim + '</>' }}{% endfor %}"
PARTS_ONLY = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}</>{% endfor %}"
)
BOTH = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'text' %}[{{ part['text'] }}]{% else %}<image>{% endif %}"
    "{% endfor %}"
    "{% endif %}</>{% endfor %}"
)
LOSES = (
    "{% for m in messages %}{% if m.content is string %}{% set c = m.content %}{% else %}{% set c = '' %}{% endif %}"
    "<{{ m.role }}>{{ c }}</>{% endfor %}{# type text #}"
)
WRITES_JSON = "{% for m in messages %}<{{ m.role }}>{{ m.content | tojson }}</>{% endfor %}{# type text #}"


def render(template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    return ChatTemplates({}).prompt(messages, {"chat_template": template, **options})


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize("template", [TEXTS_ONLY, CONCATENATES, LOSES, PARTS_ONLY, WRITES_JSON])
def test_parts_and_texts_mean_the_same(template: str) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Hi, it's 'me' and \"you\"\nü"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": ""},
    ]
    in_parts = [m | {"content": parts(m["content"][:4], m["content"][4:])} for m in messages]
    expected = "".join(f"<{m['role']}>{m['content']}</>" for m in messages)
    if template is WRITES_JSON:
        expected = "".join(f"<{m['role']}>{json.dumps(m['content'], ensure_ascii=False)}</>" for m in messages)
    assert render(template, messages) == expected
    assert render(template, in_parts) == expected
    mixed = [in_parts[0], messages[1], in_parts[2], messages[3]]
    assert render(template, mixed) == expected
    assert render(template, [m | {"content": [m["content"]]} for m in messages]) == expected  # texts in a list


def test_a_template_that_knows_parts_gets_them() -> None:
    """Its own text for each part, as from apply_chat_template, images too."""
    messages = [{"role": "user", "content": [*parts("a", "b"), {"type": "image", "url": "x"}]}]
    assert render(BOTH, messages) == "<user>[a][b]<image></>"
    assert render(BOTH, [{"role": "user", "content": "ab"}]) == "<user>ab</>"
    assert render(PARTS_ONLY, messages) == "<user>ab<image></>"


@pytest.mark.parametrize("template", [TEXTS_ONLY, CONCATENATES, LOSES])
def test_parts_that_would_be_lost_are_refused(template: str) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": [*parts("a"), {"type": "image_url"}]}]
    with pytest.raises(InvalidArgument, match=r"message 1 .*'image_url'"):
        render(template, messages)


CONTINUED = [
    DEFAULT,
    CONCATENATES,
    "{% for m in messages %}{{ m.role }}: {{ m.content.strip() }}\n{% endfor %}",
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }} {{ eos_token }}\n{% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' and m.reasoning_content %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}|{% endfor %}",
]


@pytest.mark.parametrize("content", ["The answer is", " spaces around  ", "line\n", "x", "Hi ü"])
@pytest.mark.parametrize("template", CONTINUED)
def test_a_final_message_is_continued_as_in_transformers(folder: Path, template: str, content: str) -> None:
    write(folder, config=template)
    ours, reference = templates(folder), AutoTokenizer.from_pretrained(folder)
    messages = [MESSAGES[0], {"role": "assistant", "content": content, "reasoning_content": "Hm."}]
    expected = reference.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert ours.prompt(messages, {"continue_final_message": True}) == expected
    if "content" in template and "reasoning" in template:
        expected = reference.apply_chat_template(messages, tokenize=False, continue_final_message="reasoning_content")
        assert ours.prompt(messages, {"continue_final_message": "reasoning_content"}) == expected
    in_parts = [messages[0], messages[1] | {"content": parts(content[:2], content[2:])}]
    assert ours.prompt(in_parts, {"continue_final_message": True}) == ours.prompt(
        messages, {"continue_final_message": True}
    )


def test_what_cannot_be_continued_is_said() -> None:
    with pytest.raises(InvalidArgument, match="contradict"):
        render(DEFAULT, MESSAGES, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(InvalidArgument, match="no 'content' to continue"):
        render(DEFAULT, [*MESSAGES, {"role": "assistant"}], continue_final_message=True)
    with pytest.raises(InvalidArgument, match="does not show"):
        render("{% for m in messages[:-1] %}{{ m.content }}{% endfor %}", MESSAGES, continue_final_message=True)


def test_what_is_none_is_not_there_and_thoughts_have_all_their_names(folder: Path) -> None:
    template = (
        "{% for m in messages %}{{ m.content is defined }}{{ m.tool_calls is defined }}{{ m.thinking }}"
        "{{ m.reasoning_content }}{{ m.reasoning }}{{ tools is none }}{{ documents is none }}{% endfor %}"
    )
    write(folder, config=template)
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"a": 1}], "reasoning": "R"},
        {"role": "assistant", "content": "x", "tool_calls": None, "thinking": "T"},
    ]
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
    assert templates(folder).prompt(messages, {"add_generation_prompt": False}) == expected


def test_objects_become_plain_data() -> None:
    import dataclasses
    import enum

    class Role(str, enum.Enum):
        USER = "user"

    @dataclasses.dataclass
    class Call:
        name: str

    messages = [{"role": Role.USER, "content": "x", "call": Call("f"), "count": np.int64(3)}]
    shown = render("{{ messages[0].role }}{{ messages[0].call }}{{ messages[0].count + 1 }}", messages)
    assert shown == "user{'name': 'f'}4"


@pytest.mark.parametrize(
    "value",
    [
        *(b"x", bytearray(b"x"), {1, 2}, frozenset(), range(3), np.arange(3), np.zeros((1, 1)), Decimal("1.5"), 1j),
        *(object(), open, int, np.float64, iter("ab"), datetime.date(2026, 1, 1), Path("a"), Ellipsis, memoryview(b"")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_that_are_no_data_are_named(value: Any) -> None:
    """Not shown to the model as "<bytes>", wherever they stand."""
    text = {"role": "user", "content": "x"}
    kind = re.escape(f"of the type {type(value).__name__}:")
    template = "{{ messages }}"
    for message, place in (
        (text | {"content": value}, r"\['content'\] of message 1"),
        (text | {"role": value}, r"\['role'\] of message 1"),
        (text | {"content": [{"type": "text", "text": value}]}, r"\['content'\]\[0\]\['text'\] of message 1"),
        (text | {"calls": [1, (2, value)]}, r"\['calls'\]\[1\]\[1\] of message 1"),
        (value, "message 1"),
    ):
        with pytest.raises(InvalidArgument, match=f"{place} of the conversation is .*{kind}"):
            render(template, [text, message])
    with pytest.raises(InvalidArgument, match=rf"\[0\]\['name'\] of tools is .*{kind}"):
        render(template, [text], tools=[{"name": value}])
    if not callable(value):  # a template may call a function of its caller's
        with pytest.raises(InvalidArgument, match=rf"template_variables\['x'\] is .*{kind}"):
            render(template, [text], template_variables={"x": value})
    with pytest.raises(InvalidArgument, match=r"has the key \(1, 2\): keys are texts"):
        render(template, [text | {(1, 2): 3}])


@pytest.mark.parametrize(
    "options",
    [
        {"template_variables": 3},
        {"template_variables": {"messages": []}},
        {"chat_template": 3},
        {"add_generation_prompt": "yes"},
        {"continue_final_message": 5},
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        ChatTemplates({"default": TemplateSource(DEFAULT, "x")}).prompt(MESSAGES, options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="add_generation_prompt"):
        ChatTemplates({"default": TemplateSource(DEFAULT, "x")}).prompt(MESSAGES, {"add_prompt": 1})  # type: ignore[typeddict-unknown-key]
