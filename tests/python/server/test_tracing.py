"""Spans of calls, as a collector gets them: over OTLP, and by the SDK's own exporter in memory."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pagedcore.server.tally import Tally
from pagedcore.server.tracing import Tracing

from .conftest import MODEL, Server

pytest.importorskip("opentelemetry.sdk", reason="pip install 'pagedcore[otel]'")
exporting = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Take)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Take(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            data = gzip.decompress(data)
        asked = messages.ExportTraceServiceRequest.FromString(data)
        for each in asked.resource_spans:
            self.server.resources.append(each.resource)  # type: ignore[attr-defined]
            for scope in each.scope_spans:
                self.server.spans.extend(scope.spans)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *what: Any) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Server]:
    flags = ["--port", "0", "--served-model-name", MODEL, "--kv-cache-memory", "64MiB"]
    running = Server.start(*flags, "--otlp-traces-endpoint", collector.url, OTEL_BSP_SCHEDULE_DELAY="100")
    yield running
    assert running.stop() == 0


def values(span: Any) -> dict[str, Any]:
    found = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def test_a_call_is_a_span_with_its_phases_below_the_callers(traced: Server, collector: Collector) -> None:
    begun = time.time_ns()
    secret = "the secret word is heliotrope"
    for stream in (False, True):
        body = {"prompt": secret, "max_tokens": 7, "temperature": 0, "ignore_eos": True, "stream": stream}
        reply = traced.post("/v1/completions", body, traceparent=f"00-{TRACE}-{PARENT}-01", x_request_id="mine-1")
        assert reply.status == 200
    chat = {"model": MODEL, "max_tokens": 3, "messages": [{"role": "user", "content": secret}]}
    assert traced.post("/v1/messages", chat).status == 200
    assert traced.send("GET", "/health").status == 200
    assert traced.post("/v1/completions", {"prompt": 5}).status == 400
    end = time.monotonic() + 60
    while len(collector.spans) < 12 and time.monotonic() < end:
        time.sleep(0.05)
    spans = {span.span_id: span for span in collector.spans}
    calls = [span for span in spans.values() if span.parent_span_id not in spans]
    assert [span.name for span in calls] == [f"text_completion {MODEL}"] * 2 + [f"chat {MODEL}"]
    for call in calls[:2]:
        assert call.trace_id.hex() == TRACE and call.parent_span_id.hex() == PARENT
        assert call.kind == 2  # a server's
        found = values(call)
        usage = traced.post("/v1/completions", {"prompt": secret, "max_tokens": 1}).json["usage"]
        assert found["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert found["gen_ai.usage.output_tokens"] == 7
        assert found["gen_ai.operation.name"] == "text_completion"
        assert found["gen_ai.request.model"] == MODEL
        assert found["gen_ai.response.finish_reasons"] == ["length"]
        assert found["gen_ai.response.id"] == "mine-1"
        assert found["http.response.status_code"] == 200
        parts = sorted(
            (s for s in spans.values() if s.parent_span_id == call.span_id), key=lambda s: s.start_time_unix_nano
        )
        assert [part.name for part in parts] == ["queued", "prefill", "decode"]
        assert all(part.trace_id == call.trace_id for part in parts)
        assert begun - 10**7 <= call.start_time_unix_nano == parts[0].start_time_unix_nano
        for one, other in itertools.pairwise(parts):
            assert one.end_time_unix_nano == other.start_time_unix_nano
        assert parts[-1].end_time_unix_nano <= call.end_time_unix_nano + 10**6
    assert values(calls[2])["gen_ai.operation.name"] == "chat" and calls[2].parent_span_id == b""
    named = {each.key: each.value.string_value for each in collector.resources[0].attributes}
    assert named["service.name"] == "pagedcore"
    assert not any("heliotrope" in str(span) for span in collector.spans)


def test_times_are_those_that_were_noted() -> None:
    kept = exporting.InMemorySpanExporter()
    tracing = Tracing("", kept)
    now = time.monotonic()
    tally = Tally(begun=now - 10, scheduled=now - 8, first_token=now - 5, last_token=now - 1)
    tally.prompt_tokens, tally.cached_tokens, tally.completion_tokens = 11, 4, 9
    tracing.take("/v1/chat/completions", {"traceparent": "nonsense"}, 500, tally, "id")
    tracing.take("/tokenize", {}, 200, tally, "id")
    tally.prompt_tokens = 0
    tracing.take("/v1/chat/completions", {}, 400, tally, "id")
    tracing.close()
    found = {span.name: span for span in kept.get_finished_spans()}
    assert sorted(found) == ["chat", "decode", "prefill", "queued"]
    seconds = {name: (span.end_time - span.start_time) / 1e9 for name, span in found.items()}
    assert seconds.pop("chat") >= 10  # until now
    assert seconds == pytest.approx({"queued": 2.0, "prefill": 3.0, "decode": 4.0}, abs=1e-6)
    call = found["chat"]
    assert call.parent is None and not call.status.is_ok
    assert call.attributes["error.type"] == "500"
    assert call.attributes["gen_ai.usage.cache_read.input_tokens"] == 4


def test_a_collector_that_is_gone_costs_spans_and_nothing_else() -> None:
    running = Server.start(
        "--port", "0", "--num-blocks", "64", "--otlp-traces-endpoint", "http://127.0.0.1:9/v1/traces"
    )
    try:
        assert running.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status == 200
    finally:
        assert running.stop() == 0
    assert not [line for line in running.raw if not line.startswith("{")], running.raw
