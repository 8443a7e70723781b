"""Several models in one server: chosen by their names, with one amount of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams
from pagedcore.cli import main
from pagedcore.default_model import default_model
from pagedcore.memory import MemoryReport
from pagedcore.server.budget import Planned, share_out

from .conftest import Server

MiB = 1 << 20
_MEMORY = 1200 * MiB


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with what the flags say, one with what its table says."""
    config = tmp_path_factory.mktemp("two") / "server.toml"
    config.write_text(
        f"""port = 0
max-context = 1024
[models.short]
model = "{default_model()}"
max-context = 256
chat-template = "{config.parent / "template"}"
[models.sized]
model = "{default_model()}"
kv-cache-memory = "32MiB"
weights = "native"
"""
    )
    (config.parent / "template").write_text("{% for message in messages %}{{ message.content }}{% endfor %} is")
    first = ("--model", str(default_model()), "--served-model-name", "long", "--served-model-name", "alias")
    running = Server.start("--config", str(config), *first, "--memory", str(_MEMORY))
    yield running
    assert running.stop() == 0


def test_a_call_names_its_model(two: Server) -> None:
    cards = {card.id: card.to_dict() for card in two.openai().models.list()}
    assert [(name, card["root"], card["max_model_len"]) for name, card in cards.items()] == [
        ("long", "long", 1024),
        ("alias", "long", 1024),
        ("short", "short", 256),
        ("sized", "sized", 1024),
    ]
    asked = {"prompt": "word " * 300, "max_tokens": 1}
    for name in ("long", "alias", "sized"):
        reply = two.post("/v1/completions", {"model": name, **asked})
        assert (reply.status, reply.json["model"]) == (200, name)
    assert two.post("/v1/completions", asked).json["model"] == "long", "the first where none is named"
    refused = two.post("/v1/completions", {"model": "short", **asked})
    assert refused.status == 400 and "256" in refused.error["message"]
    unknown = two.post("/v1/completions", {"model": "wide", **asked})
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert "long, alias, short, sized" in unknown.error["message"]


def test_every_dialect_goes_to_the_named_model(two: Server) -> None:
    """Each model has its own template: an answer that goes on from it tells which one was asked."""
    messages: Any = [{"role": "user", "content": "The capital of France"}]
    with LLM(kv_cache_memory="16MiB", max_context=256) as llm:
        (expected,) = llm.generate("The capital of France is", SamplingParams(max_tokens=6, temperature=0))
        text = expected.outputs[0].text
    chat = two.openai().chat.completions.create(model="short", messages=messages, max_tokens=6, temperature=0)
    assert str(chat.choices[0].message.content).strip() == text.strip()
    response = two.openai().responses.create(
        model="short", input="The capital of France", max_output_tokens=6, temperature=0
    )
    assert response.output_text.strip() == text.strip()
    message = two.anthropic().messages.create(
        model="short", messages=messages, max_tokens=6, extra_body={"temperature": 0}
    )
    (block,) = message.content
    assert isinstance(block, anthropic.types.TextBlock) and block.text.strip() == text.strip()
    counted = {
        name: two.anthropic().messages.count_tokens(model=name, messages=messages).input_tokens
        for name in ("long", "short")
    }
    assert counted["short"] < counted["long"], "the model's own template has a system message"
    ids = two.post("/tokenize", {"model": "short", "messages": messages, "add_generation_prompt": True}).json
    assert (ids["count"], ids["max_model_len"]) == (counted["short"], 256)
    info = {name: two.send("GET", f"/tokenizer_info?model={name}").json for name in ("long", "short")}
    assert (
        info["short"]["chat_template"]
        != info["long"]["chat_template"]
        == two.send("GET", "/tokenizer_info").json["chat_template"]
    )
    assert info["short"]["chat_template"].endswith("is") and info["short"]["model_max_length"] == 256
    assert info["long"]["eos_token"] == info["short"]["eos_token"] == "<|im_end|>"
    assert two.send("GET", "/tokenizer_info?model=none").status == 404
    with pytest.raises(openai.NotFoundError):
        two.openai().chat.completions.create(model="none", messages=messages)


def test_metrics_tell_models_apart(two: Server) -> None:
    before = two.stats()
    for name, count in (("long", 2), ("alias", 1), ("short", 3)):
        for _ in range(count):
            two.post("/v1/completions", {"model": name, "prompt": "One two", "max_tokens": 4, "temperature": 0})
    after = two.stats()
    for name, count in (("long", 3), ("short", 3), ("sized", 0)):
        for series, each in (
            (f'vllm:generation_tokens_total{{model_name="{name}"}}', 4),
            (f'pagedcore_tokens_sampled_total{{model="{name}"}}', 4),
            (f'pagedcore_request_latency_seconds_count{{model="{name}"}}', 1),
            (f'vllm:e2e_request_latency_seconds_count{{model_name="{name}"}}', 1),
        ):
            assert after[series] - before[series] == count * each, series
    text = two.send("GET", "/metrics").text
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types)), "a metric has one head, whatever number of models has it"


def test_all_models_keep_to_one_amount_of_memory(two: Server) -> None:
    stats = two.stats()
    blocks = {name: stats[f'pagedcore_blocks_total{{model="{name}"}}'] for name in ("long", "short", "sized")}
    assert blocks["long"] == blocks["short"] > blocks["sized"], "what has no size of its own shares evenly"
    plan = LLM.plan(default_model(), num_blocks=1, block_size=16, request_memory=_MEMORY // 16)
    fixed = plan.total - plan.kv_block
    native = LLM.plan(default_model(), num_blocks=1, request_memory=_MEMORY // 16, weights="native")
    total = 2 * fixed + native.total - native.kv_block + sum(blocks.values()) * plan.kv_block
    assert _MEMORY - 2 * plan.kv_block < total <= _MEMORY


def _report(weights: int, options: Mapping[str, Any]) -> MemoryReport:
    block = MiB // 4
    blocks = options.get("num_blocks") or options.get("kv_cache_memory", 8 * MiB) // block
    return MemoryReport(
        weights, 0, MiB, block, blocks, 16, 512, requests=options["request_memory"], swap=options.get("swap_space", 0)
    )


def _planned(name: str, weights: int, **options: Any) -> Planned:
    return Planned(name, options, lambda given: _report(weights, given))


def test_memory_is_shared_out_by_arithmetic() -> None:
    memory = 1024 * MiB
    first, second, third = share_out(
        memory,
        [
            _planned("a", 300 * MiB),
            _planned("b", 100 * MiB, swap_space=50 * MiB, request_memory=10 * MiB),
            _planned("c", 50 * MiB, kv_cache_memory=90 * MiB),
        ],
    )
    rest = memory - (300 + 1 + 64) * MiB - (100 + 1 + 50 + 10) * MiB - (50 + 1 + 64 + 90) * MiB
    assert first == {"request_memory": 64 * MiB, "kv_cache_memory": rest // 2}
    assert second == {"request_memory": 10 * MiB, "swap_space": 50 * MiB, "kv_cache_memory": rest // 2}
    assert third == {"request_memory": 64 * MiB, "kv_cache_memory": 90 * MiB}
    (sized,) = share_out(memory, [_planned("a", MiB, num_blocks=8)])
    assert sized == {"request_memory": 64 * MiB, "num_blocks": 8}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (
            600 * MiB,
            "the models take 1.3 GiB without KV caches that have no size of their own (a 665.0 MiB, b 665.0 MiB",
        ),
        (447 * MiB - MiB // 8, "leaves 128.0 KiB for the KV cache of a, whose blocks take 256.0 KiB each"),
    ],
)
def test_too_little_memory_is_refused_with_the_arithmetic(weights: int, expected: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        share_out(1024 * MiB, [_planned("a", weights), _planned("b", weights)])
    assert expected in str(error.value)
    assert "memory=1.0 GiB" in str(error.value) and "raise it" in str(error.value)


@pytest.mark.parametrize(
    ("flags", "table", "expected"),
    [
        (["--add-model", "small"], "", "--add-model small: give NAME=PATH"),
        (["--add-model", "=x.gguf"], "", "--add-model =x.gguf: give NAME=PATH"),
        (["--add-model", "a=x", "--add-model", "a=y"], "", "--add-model a=y: there is another model of that name"),
        (["--add-model", "a=x"], '[models.a]\nmodel = "y"', "--add-model a=... and [models.a] are of one name"),
        ([], "[models.a]\nthreads = 1", '[models.a] says no model: give model = "PATH"'),
        ([], '[models.a]\nmodel = "x"\nport = 5', "there is no flag 'port' here"),
        ([], '[models.a]\nmodel = "x"\nthreads = "many"', "models.a.threads = 'many' is no value of"),
        ([], "models = 5", "models holds a table for each model: [models.NAME]"),
        (["--tokenizer", "t", "--add-model", "a=x"], "", "--tokenizer is of the model that --model names, and none is"),
        (
            ["-m", "m", "--add-model", "a=x", "--swap-file", "s"],
            "",
            "--swap-file is of one model: say swap-file in its",
        ),
        (
            [],
            '[models.a]\nmodel = "x"\ntool-format = "odd"',
            "--tool-format odd must be one of harmony, qwen3_coder, hermes",
        ),
        ([], '[models.a]\nmodel = "x"\nblock-size = 0', "block_size"),
        (["--memory", "1MiB"], "", "memory=1.0 MiB is too little: the models take"),
        (["--memory", "lots"], "", "'lots' is not a size"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_loaded(
    flags: list[str], table: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(table)
    try:
        status = main(["serve", "--port", "0", *flags, "--config", str(config)])
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2 and expected in capsys.readouterr().err


def test_two_models_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(default_model())
    status = main(["serve", "--port", "0", "-m", model, "--served-model-name", "a", "--add-model", f"a={model}"])
    assert status == 2 and "two models are to be served as 'a'" in capsys.readouterr().err
