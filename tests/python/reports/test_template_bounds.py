"""Chat templates come with a model, which may be anybody's: whatever one does, the caller gets the prompt or one error
about the template, soon and without much memory; and the thread is free again.

Expected from the limits that pagedcore/sandbox states. Templates that are none of that render as stock Jinja renders
them, which is the reference of the last tests.
"""

from __future__ import annotations

import json
import resource
import threading
import time
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pagedcore.chat import ChatTemplates
from pagedcore.errors import InvalidArgument

MESSAGES = [{"role": "user", "content": "x" * 1000, "tool_calls": [{"a": {"b": 1}}] * 20}] * 50

# One of each way to burn time or memory: arithmetic, loops, growth of texts and of lists, formats, filters, methods,
# recursion, nesting, and the compiler itself.
HOSTILE = [
    "{{ 10 ** 10 ** 10 }}",
    "{{ 2 ** 100000000 }}",
    "{{ 7 | round(-1000000000) }}",
    "{{ ('f' * 100000) | int(base=16) // 3 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for k in range(99999) %}{% for i in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% for i in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "{% for i in range(99999) %}{{ messages | tojson }}{% endfor %}",
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "{% set ns = namespace(a=()) %}{% for i in range(99999) %}{% set ns.a = (ns.a,) %}{% endfor %}{{ {ns.a: 1} }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = ns.a.replace('', ns.a) %}{% endfor %}",
    "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = '%s%s' % (ns.a, ns.a) %}{% endfor %}",
    "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = '{0}{0}'.format(ns.a) %}{% endfor %}",
    "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] | join %}{% endfor %}",
    "{% set a %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
    "{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%.999999999f' | format(1) }}",
    "{{ 'a' | center(10 ** 9) }}{{ 'a' | indent(10 ** 9, true) }}",
    "{{ 'a'.ljust(10 ** 9) }}",
    "{{ ('a' | attr('zfill'))(10 ** 9) }}",
    "{{ ['a'] | map('center', 10 ** 9) | list }}",
    "{{ range(99999) | join('x' * 100000) }}",
    "{{ [] | slice(10 ** 12) | list }}",
    "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "{{ {'a': [1]} | tojson(indent=10 ** 9) }}",
    "{{ ([[1] * 1000] * 100000) | sum(start=[]) }}",
    "{{ ('a' * 1000000).rfind('b' + 'a' * 500000) }}",
    "{{ ('a' * 1000000).strip('b' * 1000000) }}",
    "{{ ('word ' * 100000) | wordwrap(1) }}{{ ('www.a ' * 100000) | urlize }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ lipsum(10 ** 7) }}",
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% block b %}{{ self.b() }}{% endblock %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{% for a in messages %}" * 30 + "{% endfor %}" * 30,
    "{% macro a() %}" * 120 + "{% endmacro %}" * 120,
    "{{ " + "~".join("a" * 40000) + " }}",
    "{{ 'a' }}" * 100000,
    "{% if a %}" + "{% elif a %}" * 8000 + "{% endif %}",
    "".join(f"{{% set a{i} = 1 %}}" for i in range(3000)) + "{% if a %}{% endif %}" * 2000,
    "{% for i in range(99999) %}{{ ('a' * 1000000).count('aaaaaab') }}{% endfor %}",
    "{% for i in range(99999) %}{% set x = range(99999) | list | sort %}{% endfor %}",
]


def prompt(template: str, messages: list[dict[str, Any]] | None = None, **variables: Any) -> str:
    options: Any = {"chat_template": template, "template_variables": variables}
    return ChatTemplates({}).prompt(MESSAGES if messages is None else messages, options)


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_a_template_that_burns_time_or_memory_is_one_error(template: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    with pytest.raises(InvalidArgument, match="chat template"):
        prompt(template)
    # A second in all, and what the last operation took: the machine may be busy, so it is the thread's own time.
    assert time.thread_time() - start < 1.5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 400 << 10  # KiB


def test_other_threads_run_meanwhile_and_the_template_runs_in_the_callers() -> None:
    seen, turns, done = [], [0], threading.Event()

    def count() -> None:
        while not done.wait(0.01):
            turns[0] += 1

    other = threading.Thread(target=count)
    other.start()
    try:
        with pytest.raises(InvalidArgument, match="was stopped"):
            prompt(
                "{{ note() }}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                note=lambda: seen.append(threading.get_ident()) or "",
            )
    finally:
        done.set()
        other.join()
    assert seen == [threading.get_ident()]
    assert turns[0] >= 5  # of some 50: none if the interpreter's lock were held


def test_a_template_is_usable_after_it_was_stopped() -> None:
    template = "{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}{{ n }}"
    with pytest.raises(InvalidArgument, match="was stopped"):
        prompt(template, n=99999)
    assert prompt(template, n=3) == "3"


def reference(template: str, **variables: Any) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    return environment.from_string(template).render(**variables)


ORDINARY = [
    "{{ 3 * 4 }}{{ 2 ** 200 }}{{ 10 ** 18 }}{{ 7 % 3 }}{{ 7 // 2 }}{{ 7 / 2 }}{{ 'ab' * 3 }}{{ [1] * 2 + [3] }}",
    "{{ 'a' ~ 1 ~ none ~ [1, 'x'] ~ {'k': (1,)} }}{{ '%s-%05.2f-%(a)s' is string }}{{ '%s %d%%' % ('x', 3) }}",
    "{{ 1 < 2 < 3 }}{{ 3 in [1, 3] }}{{ 'b' not in 'abc' }}{{ 1 == 1.0 }}{{ [1, [2]] == [1, [2]] }}{{ 1 != 2 >= 1 }}",
    "{{ '{:>5}|{a!r:<6}|{0[0]}'.format('xy', a='q') }}{{ '{x}'.format_map({'x': 1}) }}{{ '%s' | format(5) }}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ m.content[1:-1] }}"
    "{% if loop.last %}!{% endif %}{% else %}none{% endfor %}",
    "{% for m in messages recursive %}[{{ m.role }}{{ loop(m.more or []) }}]{% endfor %}",
    "{% set ns = namespace(n=0, seen=[]) %}{% for m in messages %}{% set ns.n = ns.n + m.content | length %}"
    "{% set ns.seen = ns.seen + [m.role] %}{% endfor %}{{ ns.n }}{{ ns.seen }}",
    "{% macro tag(name, inner='-') %}<{{ name }}>{{ inner }}{{ caller() if caller }}</{{ name }}>{% endmacro %}"
    "{{ tag('a') }}{% call tag('b', 'x') %}body{% endcall %}{% filter upper %}text{% endfilter %}",
    "{{ messages | map(attribute='role') | list }}{{ messages | selectattr('role', 'equalto', 'user') | list }}"
    "{{ messages | groupby('role') | map('first') | list }}{{ [3, 1, 2] | sort | join(', ') }}{{ [1, 2, 3] | sum }}",
    "{{ [1, 2, 3, 4, 5] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2) | list }}{{ 'a b' | title | center(9) }}"
    "{{ 'x\ny' | indent(2, true) }}{{ 'a-b-c' | replace('-', '+', 1) }}{{ 'abc' | reverse }}{{ ' x ' | trim }}",
    "{{ {'b': [1, 'ü'], 'a': none} | tojson }}{{ {'b': 1, 'a': [2]} | tojson(indent=2) }}{{ {'b': 1} | dictsort }}",
    "{{ ' a,b '.strip().split(',') }}{{ 'aXbX'.rsplit('X', 1) }}{{ 'ab'.join(['1', '2']) }}{{ 'a'.ljust(3) }}|"
    "{{ 'Abc'.startswith(('a', 'A')) }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.items() | list }}{{ 'a'.title() }}",
    "{% set x, y = 1, (2, 3) %}{{ x }}{{ y[0] }}{{ {'a': 1, 2: 'b'}[2] }}{{ cycler('a', 'b').next() }}{{ undefined_ }}",
    "{% set text %}a{{ 1 }}{% endset %}{{ text }}{{ dict(a=1, b=[2]) }}{{ range(3) | list }}{{ 2.50 | round(1) }}"
    "{{ '7' | int + '2.5' | float }}{{ 'a<b' | e }}{{ [1, 1, 2] | unique | list }}{{ messages[0] is mapping }}",
]


@pytest.mark.parametrize("template", ORDINARY, ids=range(len(ORDINARY)))
def test_ordinary_templates_render_as_in_stock_jinja(template: str) -> None:
    messages = [
        {"role": "system", "content": "Be brief.", "more": [{"role": "user", "content": "inner"}]},
        {"role": "user", "content": "Wie geht's? {{ 1 }} %s"},
        {"role": "assistant", "content": "Gut."},
    ]
    assert prompt(template, messages) == reference(template, messages=messages)


def test_numbers_of_the_caller_are_written_whatever_their_size() -> None:
    messages = [{"role": "user", "content": "x", "arguments": {"n": 10**100}}]
    assert prompt("{{ messages[0].arguments | tojson }}{{ messages[0].arguments.n }}", messages) == (
        f'{{"n": {10**100}}}{10**100}'
    )


def test_long_conversations_are_far_from_the_limits() -> None:
    """A thousand messages of 4,000 characters with tool calls, in a template that looks back at each turn."""
    template = (
        "{% set ns = namespace(last=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' and not ns.last %}"
        "{% set ns.last = messages | length - loop.index %}{% endif %}{% endfor %}{% for m in messages %}"
        "<|im_start|>{{ m.role + '\n' + m.content.strip() }}{% for c in m.calls or [] %}{{ c | tojson }}{% endfor %}"
        "{% if loop.index0 >= ns.last %}*{% endif %}<|im_end|>\n{% endfor %}"
    )
    calls = [{"name": "f", "arguments": {"a": [1, {"b": "ü"}]}}]
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": f" {i} " + "wort " * 800, "calls": calls} for i in range(1000)]
    assert prompt(template, messages) == reference(template, messages=messages)
