"""Traces: each event's way to Engage as OpenTelemetry spans, in the trace that its sender began.

Imported only where the environment asks for it (run/wiring.py): OpenTelemetry is an extra, and costs nothing where it
is not used. OpenTelemetry's own variables say where the spans go (docs/tracing.md).

Rules:
 1. An action may outlive a process, a span cannot. So spans are short, and the delay topic keeps the context of the
    span in which the event was taken. An action that is sent after a restart is in the same trace.
 2. A span holds names (topics, routes, connections), offsets and what was answered: nothing that an event holds, no
    key and no id of an order. No URL either, as an order's id is a part of it.
 3. Engage is a third party. It gets the `traceparent` of an action's request, never the `tracestate`, in which
    others' tools talk to themselves.
 4. A poll that says "come again" is no span: an action may wait for a day and be asked for a thousand times.

Attributes are named by OpenTelemetry's semantic conventions (messaging spans, HTTP spans) where they have a name.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from consumer import __version__, logs
from consumer.core.clock import Clock
from consumer.core.effects import GiveUp, Poll, Send
from consumer.core.outcomes import (
    Accepted,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    JobFailed,
    PollOutcome,
    Ready,
    Rejected,
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.engage.client import EngageClient
from consumer.engage.http import Failure, MaySend, Origin, Response
from consumer.errors import ConfigurationError
from consumer.events.routing.results import Misrouted, Routed
from consumer.events.trace_context import trace_context
from consumer.kafka.records.payloads import trace_context_of
from consumer.kafka.records.source_events import SourceEvent
from consumer.telemetry.names import OutcomeNames
from schemas.engage import ActionRequest

NAME = "engage-relay"
CLOSE_S = 2.0  # for the last spans: the pod's grace period is 30 s, and a stop takes up to 25 s before

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans of what happens. For any thread; nothing here waits for where they go."""

    def __init__(self, provider: TracerProvider, *, group: str, origins: Mapping[str, Origin], clock: Clock) -> None:
        """`origins` by connection."""
        self._provider = provider
        self._tracer = provider.get_tracer(NAME, __version__)
        self._group = group
        self._servers: dict[str, dict[str, str | int]] = {
            name: {"server.address": origin.host, "server.port": origin.port} for name, origin in origins.items()
        }
        self._clock = clock
        self._names = OutcomeNames()

    def taken(self, event: SourceEvent, result: Routed | Misrouted, since: float) -> Routed | Misrouted:
        """Record that a route took an event; `since`: when its batch came (seconds since 1970).

        Returns it with this span's context instead of its sender's, to be saved: what follows belongs below it.
        """
        context = result.trace_context if isinstance(result, Routed) else trace_context(event.headers)
        span = self._start(f"process {event.topic}", SpanKind.CONSUMER, context, since)
        span.set_attributes(
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": event.topic,
                "messaging.destination.partition.id": str(event.partition),
                "messaging.kafka.offset": event.offset,
                "messaging.consumer.group.name": self._group,
            }
        )
        if result.route is not None:
            span.set_attribute("engage_relay.route", result.route)
        if isinstance(result, Misrouted):
            _fail(span, result.reason.value)
        else:
            span.set_attributes({"engage_relay.connection": result.connection, "engage_relay.action": result.action})
            result = replace(result, trace_context=_carried(span))
        self._end(span)
        return result

    def polled(self, connection: str, poll: Poll, outcome: PollOutcome | DocumentOutcome, since: float) -> None:
        """Record a poll, begun at `since`, if it brought a tag, a job or the end (rule 4)."""
        if not isinstance(outcome, Ready | DocumentTaken | JobFailed | Rejected):
            return
        span = self._start("poll", SpanKind.CLIENT, trace_context_of(poll.payload), since)
        name = self._names[type(outcome)]
        span.set_attributes(
            {**self._servers[connection], "engage_relay.connection": connection, "engage_relay.outcome": name}
        )
        if isinstance(outcome, JobFailed | Rejected):
            _fail(span, name)
        self._end(span)

    async def send_action(
        self, connection: str, client: EngageClient, send: Send, request: ActionRequest, may_send: MaySend
    ) -> ActionOutcome:
        """Send an action as `EngageClient.send_action` does, within a span whose id Engage gets."""
        span = self._start("send action", SpanKind.CLIENT, trace_context_of(send.payload), self._clock())
        span.set_attributes(
            {
                **self._servers[connection],
                "http.request.method": "POST",
                "engage_relay.connection": connection,
                "engage_relay.action": request.action,
            }
        )
        error: str | None = None

        def answered(answer: Response | Failure) -> None:
            nonlocal error
            if isinstance(answer, Failure):
                error = answer.kind
            else:
                span.set_attribute("http.response.status_code", answer.status)
                error = str(answer.status)

        try:
            traceparent = _carried(span).get("traceparent")
            outcome = await client.send_action(
                send.order_id, request, may_send, traceparent=traceparent, on_answer=answered
            )
            name = self._names[type(outcome)]
            span.set_attribute("engage_relay.outcome", name)
            if not isinstance(outcome, Accepted | Withdrawn):
                _fail(span, error or name)
            return outcome
        finally:
            self._end(span)

    def sent_with_document(
        self, connection: str, send: Send, action: str, outcome: WithDocumentOutcome, since: float
    ) -> None:
        """Record an action that was sent in its order's document, begun at `since`."""
        span = self._start("send action", SpanKind.CLIENT, trace_context_of(send.payload), since)
        name = self._names[type(outcome)]
        span.set_attributes(
            {
                **self._servers[connection],
                "engage_relay.connection": connection,
                "engage_relay.action": action,
                "engage_relay.outcome": name,
            }
        )
        if not isinstance(outcome, DocumentTaken | Withdrawn):
            _fail(span, name)
        self._end(span)

    def dead_lettered(self, given_up: GiveUp) -> None:
        """Tell of an action that was given up."""
        span = self._start("dead letter", SpanKind.INTERNAL, trace_context_of(given_up.payload), self._clock())
        span.set_attributes(
            {
                "engage_relay.route": given_up.route,
                "engage_relay.attempts": given_up.attempts,
                "engage_relay.sends": given_up.sends,
            }
        )
        _fail(span, given_up.reason.value)
        self._end(span)

    def trace_id(self, payload: bytes) -> str | None:
        """Return the id of an action's trace, in hexadecimal; None where it has none."""
        context = _W3C.extract(trace_context_of(payload) or {}, Context())
        span = get_current_span(context).get_span_context()
        return format_trace_id(span.trace_id) if span.is_valid else None

    def close(self) -> None:
        """Export the last spans, for CLOSE_S at most, as the receiver may not answer."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _start(self, name: str, kind: SpanKind, context: Mapping[str, str] | None, since: float) -> Span:
        parent = _W3C.extract(context or {}, Context())
        return self._tracer.start_span(name, parent, kind, start_time=_nanoseconds(since))

    def _end(self, span: Span) -> None:
        span.end(_nanoseconds(self._clock()))


def start(*, group: str, origins: Mapping[str, Origin], clock: Clock) -> Tracing:
    """Return what traces, as the environment's OTEL_* say. Raises ConfigurationError where they cannot be followed."""
    _check_environment()
    ours = Resource({"service.name": NAME, "service.version": __version__})
    try:
        provider = TracerProvider(
            resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,  # it would wait for long where nobody takes the spans; `close` does not
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, OSError):  # its text may hold a value
        raise ConfigurationError(("OTEL_*: one of the variables has a value that is of no use",)) from None
    return Tracing(provider, group=group, origins=origins, clock=clock)


def _check_environment() -> None:
    errors = []
    if _value("OTEL_TRACES_EXPORTER") != "otlp":
        errors.append("OTEL_TRACES_EXPORTER: must be otlp or none")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if _value(name) not in ("", "http/protobuf"):
            errors.append(f"{name}: must be http/protobuf (port 4318 of a collector); grpc is not built in")
    if errors:
        raise ConfigurationError(tuple(errors))
    for name in ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        for header in os.environ.get(name, "").split(","):  # OpenTelemetry logs one that it cannot read
            for secret in (header.strip(), header.partition("=")[2].strip()):
                logs.redact(secret)
                logs.redact(unquote(secret))


def _value(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _carried(span: Span) -> dict[str, str]:
    """Return a span's context as W3C's headers."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier


def _fail(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
