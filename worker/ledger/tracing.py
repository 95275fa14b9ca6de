"""Traces for those who collect them: a request, the wait in the queue, the attempt and its stages are one trace.

Off until `OTEL_TRACES_EXPORTER` names an installed exporter (`console`, `zipkin_json`, `otlp`); where it sends, how it
samples and what the process is called are OpenTelemetry's own variables (`OTEL_…`). A trace is carried from the API to
the worker in the job's row, as W3C `traceparent`: the hint on the queue may get lost, the row does not.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

log = logging.getLogger(__name__)

EXPORTER = "OTEL_TRACES_EXPORTER"
GROUP = "opentelemetry_traces_exporter"
_PROPAGATOR = TraceContextTextMapPropagator()


def begin(service_name: str) -> bool:
    """Send the spans of this process where the environment says. Whether they go anywhere; what hinders is logged."""
    wanted = os.environ.get(EXPORTER, "none").strip()
    if wanted in ("", "none"):
        return False
    found = {point.name: point for point in metadata.entry_points(group=GROUP)}
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = found[wanted].load()()
    except (ImportError, KeyError):
        installed = ", ".join(sorted(found)) or "none"
        log.warning(
            "no traces: %s=%s is not installed (found: %s); pip install 'mononphm[telemetry]'",
            EXPORTER, wanted, installed,
        )  # fmt: skip
        return False
    named = {
        SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", service_name),
        SERVICE_VERSION: metadata.version("mononphm"),
    }
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return True


def traceparent() -> str | None:
    """The present span, for those who go on with its trace; None: nobody traces."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


class AttemptTrace:
    """The spans of one attempt: `attempt`, and below it one for each stage."""

    def __init__(self, tracer: Tracer, attempt: Span) -> None:
        self._tracer, self._attempt = tracer, attempt
        self._stage: tuple[str, Span] | None = None

    def stage(self, name: str) -> None:
        """The work has come to this stage; nothing happens if it is there already."""
        if self._stage is None or self._stage[0] != name:
            self._leave()
            self._stage = name, self._tracer.start_span(name, trace.set_span_in_context(self._attempt))

    def ended(self, outcome: str, *, well: bool) -> None:
        """How it went."""
        self._attempt.set_attribute("mononphm.outcome", outcome)
        if not well:
            self._attempt.set_status(Status(StatusCode.ERROR, outcome))

    def _leave(self) -> None:
        if self._stage is not None:
            self._stage[1].end()
            self._stage = None


@contextmanager
def attempt(parent: str | None, waited_since: datetime | None, **facts: str | int) -> Iterator[AttemptTrace]:
    """The attempt as a span of the trace that submitted the job, after a span for its wait."""
    tracer = trace.get_tracer("mononphm")
    context = _PROPAGATOR.extract({"traceparent": parent} if parent else {})
    attributes = {f"mononphm.{name}": value for name, value in facts.items()}
    if waited_since is not None:
        start_ns = int(waited_since.timestamp() * 1e9)
        tracer.start_span("queued", context, attributes=attributes, start_time=start_ns).end()
    with tracer.start_as_current_span("attempt", context, attributes=attributes) as span:
        told = AttemptTrace(tracer, span)
        try:
            yield told
        finally:
            told._leave()
