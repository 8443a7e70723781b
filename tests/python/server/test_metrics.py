"""Metrics: numbers by arithmetic, lines by Prometheus' text format."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pagedcore.server.metrics import Histogram

from .conftest import MODEL, Server

DASHBOARD = Path(__file__).parents[3] / "packaging" / "grafana" / "pagedcore.json"
LEVELS = {"pagedcore_blocks_total", "pagedcore_swap_blocks_total"}  # gauges
_LINE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)')


def test_histograms_count_what_is_at_most_their_bound() -> None:
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1.0, 1.5, 2.5, 7.0):
        histogram.add(value)
    assert list(histogram.lines("h", 'm="x"')) == [
        'h_bucket{m="x",le="1"} 2',
        'h_bucket{m="x",le="2.5"} 4',
        'h_bucket{m="x",le="+Inf"} 5',
        'h_sum{m="x"} 12.5',
        'h_count{m="x"} 5',
    ]


def test_calls_are_counted_under_both_names(server: Server) -> None:
    before = server.stats()
    for stream in (False, True):
        asked = {"prompt": "The capital of France is", "max_tokens": 5, "temperature": 0, "stream": stream}
        server.post("/v1/completions", asked)
    server.post("/v1/completions", {"prompt": 5})
    after = server.stats()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    label = f'{{model_name="{MODEL}"}}'
    assert grown('pagedcore_http_requests_total{path="/v1/completions",status="200"}') == 2
    assert grown('pagedcore_http_requests_total{path="/v1/completions",status="400"}') == 1
    assert grown(f"vllm:prompt_tokens_total{label}") == 10
    assert grown(f"vllm:generation_tokens_total{label}") == 10
    assert grown(f'vllm:request_success_total{{model_name="{MODEL}",finished_reason="length"}}') == 2
    assert grown("pagedcore_tokens_sampled_total") == 10
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "request_queue_time_seconds"):
        assert grown(f"vllm:{name}_count{label}") == 2
        assert grown(f"pagedcore_{name}_count") == 2
    assert grown("pagedcore_request_latency_seconds_sum") == pytest.approx(
        grown(f"vllm:e2e_request_latency_seconds_sum{label}")
    )
    assert 0 < grown("pagedcore_time_to_first_token_seconds_sum") < grown("pagedcore_request_latency_seconds_sum")
    assert after[f"vllm:num_requests_running{label}"] == 0


def test_every_line_is_in_the_format_and_every_series_has_its_type(server: Server) -> None:
    reply = server.send("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    types: dict[str, str] = {}
    for line in reply.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram")
            types[name] = kind
        elif not line.startswith("# HELP "):
            found = _LINE.fullmatch(line)
            assert found, line
            float(found[3])
            base = re.sub(r"_(bucket|sum|count)$", "", found[1])
            assert types.get(found[1]) in ("counter", "gauge") or types.get(base) == "histogram", line
            assert types.get(found[1]) != "counter" or found[1].endswith("_total")
    assert reply.text.endswith("\n")


def test_load_and_version(server: Server) -> None:
    assert server.send("GET", "/load").json == {"server_load": 1, "requests_running": 0, "requests_waiting": 0}
    assert re.fullmatch(r"\d+\.\d+\.\d+", server.send("GET", "/version").json["version"])
    assert server.send("GET", "/health").json == {"status": "ok"}
    assert server.send("HEAD", "/ready").body == b""


def test_every_series_of_the_dashboard_is_there(server: Server) -> None:
    board = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [value["query"]["query"] for value in board["templating"]["list"] if value["type"] == "query"]
    named = {name for text in expressions for name in re.findall(r"\bpagedcore_\w+|\bvllm:\w+", text)}
    assert len(expressions) > 30 and len(named) > 20
    there = {re.split(r"[ {]", line)[0] for line in server.send("GET", "/metrics").text.splitlines()}
    assert named <= there, named - there
    # What is read as a rate is a counter, or the buckets of a histogram, and nothing else is.
    rated = {name for text in expressions for name in re.findall(r"rate\((\w+)", text)}
    assert {name for name in named if name.endswith(("_total", "_bucket")) and name not in LEVELS} == rated
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [(p["x"] + i, p["y"] + j) for p in places for i in range(p["w"]) for j in range(p["h"])]
    assert len(set(cells)) == len(cells) and all(0 <= x < 24 for x, _ in cells), "no panel lies on another"
