"""Traces of OpenTelemetry: a span for each call, and of its way through the engine one each for the queue, the prompt
and the output, with the attributes of the conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/). Needs the extra ``otel``.

Spans are made when a call has ended, from the times that are noted anyway, and leave on a thread of the exporter, whose
queue is bounded: a collector that is slow or gone costs spans. They hold no text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from .tally import Tally

__all__ = ["Tracing"]

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
}
_PHASES = (
    ("queued", "begun", "scheduled"),
    ("prefill", "scheduled", "first_token"),
    ("decode", "first_token", "last_token"),
)


class Tracing:
    """Of calls that have ended. The variables ``OTEL_...`` say the rest, such as headers and the share that is kept."""

    def __init__(self, endpoint: str, exporter: Any = None) -> None:
        """``endpoint``: of a collector, for OTLP over HTTP. ``exporter``: instead of that, for tests."""
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ModuleNotFoundError as error:
            raise Unsupported(f"traces need {error.name}: pip install 'pagedcore[otel]'") from None
        if exporter is None and not endpoint.startswith(("http://", "https://")):
            raise InvalidArgument(
                f"--otlp-traces-endpoint {endpoint!r} must be such as http://127.0.0.1:4318/v1/traces"
            )
        named = Resource.create({SERVICE_NAME: "pagedcore", SERVICE_VERSION: _core.version()})
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("pagedcore", _core.version())
        self._trace, self._extract = trace, propagate.get_global_textmap().extract

    def take(self, path: str, headers: Mapping[str, str], status: int, tally: Tally, request_id: str) -> None:
        """A call of a model that has ended: ``traceparent`` among its headers is the span above it."""
        operation = _OPERATIONS.get(path)
        if operation is None or tally.prompt_tokens == 0:
            return
        apart = time.time_ns() - time.monotonic_ns()  # of the two clocks
        known = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "pagedcore",
            "gen_ai.usage.input_tokens": tally.prompt_tokens,
            "gen_ai.usage.output_tokens": tally.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": tally.cached_tokens,
            "gen_ai.response.finish_reasons": tuple(tally.finish_reasons[:128]),
            "gen_ai.response.id": request_id,
            "http.route": path,
            "http.response.status_code": status,
        }
        if tally.model is not None:
            attributes |= {"gen_ai.request.model": tally.model, "gen_ai.response.model": tally.model}
        if status >= 400:
            attributes["error.type"] = str(status)
        span = self._tracer.start_span(
            f"{operation} {tally.model or ''}".strip(),
            context=self._extract(known),
            kind=self._trace.SpanKind.SERVER,
            start_time=_nanoseconds(tally.begun, apart),
            attributes=attributes,
        )
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        inside = self._trace.set_span_in_context(span)
        for name, start, end in _PHASES:
            first, last = getattr(tally, start), getattr(tally, end)
            if first is not None and last is not None:
                part = self._tracer.start_span(name, context=inside, start_time=_nanoseconds(first, apart))
                part.end(_nanoseconds(max(first, last), apart))
        span.end()

    def close(self) -> None:
        """Sends what waits, for some seconds at most."""
        self._provider.force_flush(3000)
        self._provider.shutdown()


def _nanoseconds(moment: float, apart: int) -> int:
    return int(moment * 1e9) + apart
