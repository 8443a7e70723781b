"""What pagedcore.ray is made of, without a cluster: configuration, hints, a replica, the autoscaler's hook."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams, Unsupported
from pagedcore.ray import RayConfig
from pagedcore.ray.hint import Hint
from pagedcore.ray.prompts import Prompts
from pagedcore.ray.replica import Replica
from pagedcore.ray.scaling import ScalingPolicy, loads_of
from pagedcore.routing import Load, News, chain_hashes
from pagedcore.routing.measure import fit_steps

ENGINE = {"kv_cache_memory": "64MiB", "threads": 1}


def has_ranks() -> bool:
    try:
        RayConfig(tensor_parallel=2)
    except Unsupported:
        return False
    return True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2}, "an application has no replicas; it has: chat_template"),
        ({"min_replicas": 0}, "min_replicas=0 must be an integer in"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is fewer than min_replicas=3"),
        ({"policy": "sticky"}, "'sticky' is no way to route"),
        ({"placement": "ANYWHERE"}, "placement='ANYWHERE' must be one of STRICT_PACK"),
        ({"engine": {"num_blokcs": 3}}, "num_blokcs"),
        ({"report_every": 0}, "report_every=0 must be a number in"),
    ],
)
def test_what_a_configuration_does_not_hold(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("(", r"\(")):
        RayConfig.read(values)


def test_ranks_are_passed_through_or_refused() -> None:
    if has_ranks():
        assert RayConfig(tensor_parallel=2).engine_options()["tensor_parallel"] == 2
    else:
        with pytest.raises(Unsupported, match="tensor_parallel=2: engines of this version have one rank"):
            RayConfig(tensor_parallel=2)


def test_a_front_makes_the_hashes_of_the_engines_tokens() -> None:
    config = RayConfig(engine=ENGINE)
    prompts = Prompts(config)
    messages = [{"role": "user", "content": "What is a KV cache? " * 8}]
    with LLM(**ENGINE) as llm:
        text = "The capital of France is a city on the Seine, which has been the seat of kings."
        ids = llm.tokenize(text)
        chat = llm.tokenize(llm.chat_prompt(messages), add_special_tokens=False)
        one = SamplingParams(max_tokens=1)
        assert llm.chat(messages, one)[0].prompt_token_ids == chat
    found = prompts.hint("/v1/completions", json.dumps({"prompt": text}).encode())
    assert found == Hint.of(ids, 16) and found.arriving().chain.tolist() == chain_hashes(ids, 16)
    assert prompts.hint("/v1/completions", json.dumps({"prompt": [ids, [1]]}).encode()) == Hint.of(ids, 16)
    assert prompts.hint("/v1/chat/completions", json.dumps({"messages": messages}).encode()) == Hint.of(chat, 16)
    for body in (b"", b"[]", b"{", b'{"prompt": 7}', b'{"messages": [{}]}', b'{"prompt": [[-1, "x"]]}'):
        assert not prompts.hint("/v1/chat/completions", body).chain
        assert not prompts.hint("/v1/completions", body).chain
    salted = json.dumps({"prompt": text, "cache_salt": "mine"}).encode()
    assert not prompts.hint("/v1/completions", salted).chain


def test_a_replica_answers_and_says_what_it_has() -> None:
    async def run() -> None:
        replica = Replica(RayConfig(names=("m",), engine=ENGINE))
        await replica.check_health()
        first = News.from_dict((await replica.record_routing_stats())["news"])
        assert first.load.blocks_free == first.load.blocks_total > 0 and first.load.max_sequences == 256
        prompt = list(range(100, 400))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/completions",
            "raw_path": b"/v1/completions",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
        }
        body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 12, "temperature": 0}).encode()
        messages = [message async for message in replica.serve(scope, body, hint=Hint(300))]
        assert messages[0]["status"] == 200
        answer = json.loads(b"".join(m.get("body", b"") for m in messages))
        assert answer["usage"]["completion_tokens"] == 12
        said = await replica.record_routing_stats()
        news = News.from_dict(said["news"])
        assert said["number"] == 2 and news.digest is not None
        assert set(chain_hashes(prompt, 16)) <= set(news.digest.values())
        assert news.load.token_seconds > 0 and news.load.busy > 0
        assert replica.record_autoscaling_stats() == {n: float(v) for n, v in asdict(news.load).items()}

        long = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 2000, "stream": True, "ignore_eos": True})
        stream = replica.serve(scope, long.encode())
        for _ in range(4):
            await stream.__anext__()
        await stream.aclose()  # whoever listened has left
        for _ in range(200):
            load = News.from_dict((await replica.record_routing_stats())["news"]).load
            if not load.running:
                break
            await asyncio.sleep(0.05)
        assert load.running == 0
        await replica.__del__()
        with pytest.raises(Exception, match="closed"):
            await replica.check_health()

    asyncio.run(run())


def test_the_autoscaler_reads_what_ray_gathers() -> None:
    loads = [Load(blocks_total=100, blocks_free=10), Load(blocks_total=100, blocks_free=100)]
    metrics = {
        name: {"a": float(asdict(loads[0])[name]), "b": float(asdict(loads[1])[name])} for name in asdict(loads[0])
    }
    metrics["running_requests"] = {"a": 3.0}
    assert loads_of(metrics) == loads
    policy = ScalingPolicy(min_replicas=1, max_replicas=10, target=0.3)
    context = SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=2, current_time=5.0, policy_state={})
    assert policy(context) == (3, {})
    context.aggregated_metrics = None
    assert policy(context) == (2, {})  # nobody says anything: fewer would do, later


def test_a_line_through_the_latest_steps() -> None:
    def step(tokens: int, sequences: int) -> Any:
        seconds = 0.01 + 0.0005 * tokens + 0.002 * sequences
        return SimpleNamespace(prefill_tokens=tokens, sequences=sequences, seconds=seconds)

    steps = [step(tokens, sequences) for tokens in (0, 64, 512) for sequences in (1, 5, 9)]
    assert fit_steps(steps) == pytest.approx((0.0005, 0.002))
    assert fit_steps([]) == (0.0, 0.0)
    token, sequence = fit_steps(steps[:2])
    assert token > 0 and sequence == 0.0


def test_the_example_is_a_configuration() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; Ray brings it")
    file = Path(__file__).parents[2] / "examples" / "ray" / "serve.yaml"
    (application,) = yaml.safe_load(file.read_text(encoding="utf-8"))["applications"]
    assert application["import_path"] == "pagedcore.ray:build_app"
    assert RayConfig.read(application["args"]).names == ("smol",)
