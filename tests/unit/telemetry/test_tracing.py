"""What is told to OpenTelemetry, in which trace, and what never is; and that nothing of it is there when it is off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from consumer import __version__, logs
from consumer.config.loading import load
from consumer.config.settings import Settings
from consumer.core.effects import ActionId, GiveUp, Job, Poll, Send, Times
from consumer.core.outcomes import (
    Accepted,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    Forbidden,
    InDoubt,
    JobFailed,
    NoContact,
    NotFound,
    NotReady,
    PollOutcome,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Withdrawn,
)
from consumer.core.ownership import Assignment
from consumer.engage.client import EngageClient
from consumer.engage.http import Origin
from consumer.errors import ConfigurationError
from consumer.events.routing.results import Misrouted, Routed
from consumer.events.trace_context import trace_context
from consumer.kafka.records.payloads import trace_context_of
from consumer.kafka.records.pending import new_action
from consumer.kafka.records.source_events import SourceEvent
from consumer.run.wiring import tracing_asked_for
from consumer.telemetry.tracing import Tracing
from schemas.dead_letter import Reason
from schemas.engage import ActionRequest
from schemas.pending_action import FromJob
from tests.support.scripted_server import Peer, answer, answering, refused_url, serving

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
pytestmark = pytest.mark.anyio

SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01".encode()), ("tracestate", b"shop=7"))
UNSAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-00".encode()),)
NOW = 1_762_162_200.0
# Whatever an event or Engage says and what must not be told on begins with it.
SECRET = "SECRET-"
ACTION_ID = ActionId(Assignment("orders", 3, epoch=1), 17)
REQUEST = ActionRequest(action="ConfirmShipment", version_tag=f"{SECRET}tag", data={"email": f"{SECRET}mail"})
SERVER: dict[str, object] = {"server.address": "127.0.0.1", "engage_relay.connection": "default"}


class Told:
    """A `Tracing` and what it told. The clock moves by a second whenever somebody looks."""

    def __init__(self, url: str = "https://acme.example/tenant", exporter: SpanExporter | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter or self._exporter))
        self._now = NOW
        self.tracing = Tracing(self._provider, group="relays", origins={"default": Origin(url)}, clock=self._tick)

    def _tick(self) -> float:
        self._now += 1.0
        return self._now

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        [span] = self.spans
        return span


@pytest.fixture
def told() -> Told:
    return Told()


def consumed(*headers: tuple[str, bytes | None]) -> SourceEvent:
    value = f'{{"orderId": "{SECRET}order"}}'.encode()
    return SourceEvent(
        topic="orders",
        partition=3,
        offset=17,
        timestamp_ms=1,
        key=f"{SECRET}order".encode(),
        value=value,
        headers=headers,
    )


def routed(event: SourceEvent) -> Routed:
    return Routed(
        route="shipped",
        connection="default",
        order_id=f"{SECRET}order",
        action="ConfirmShipment",
        language="sv",
        data={"email": f"{SECRET}mail"},
        tag_source=FromJob(job_id=f"{SECRET}job"),
        on_unknown="resend",
        event_time_ms=1,
        trace_context=trace_context(event.headers),
    )


def taken(told: Told, *headers: tuple[str, bytes | None]) -> bytes:
    """Take an event in; returns its action as the delay topic keeps it."""
    event = consumed(*headers)
    result = told.tracing.taken(event, routed(event), NOW)
    assert isinstance(result, Routed)
    return new_action(result, event).payload


def saved(*headers: tuple[str, bytes | None]) -> bytes:
    """Return an action with its event's own context, as it was saved while tracing was off."""
    event = consumed(*headers)
    return new_action(routed(event), event).payload


def poll(action: bytes) -> Poll:
    return Poll(action_id=ACTION_ID, order_id=f"{SECRET}order", payload=action, target=Job(f"{SECRET}job"), due=NOW)


def given_up(action: bytes) -> GiveUp:
    return GiveUp(
        action_id=ACTION_ID,
        route="shipped",
        payload=action,
        reason=Reason.REJECTED,
        detail=SECRET,
        errors=SECRET,
        attempts=5,
        sends=2,
        times=Times(NOW),
    )


def send(action: bytes) -> Send:
    return Send(
        action_id=ACTION_ID,
        order_id=f"{SECRET}order",
        payload=action,
        version_tag=f"{SECRET}tag",
        ownership_confirmed_at=NOW,
        tagged_at=NOW,
    )


def client(url: str, *, api_key: Callable[[], str] = lambda: f"{SECRET}key") -> EngageClient:
    return EngageClient(base_url=url, api_key=api_key, user_agent="engage-relay/1", timeout_s=5.0)


async def sent(
    *answers: bytes, given: tuple[tuple[str, bytes | None], ...] = SAMPLED, may_send: bool = True
) -> tuple[ActionOutcome, dict[bytes, bytes], ReadableSpan | None]:
    """Send an action; returns its outcome, the headers that Engage saw, and the span, without its server's port."""
    async with serving(answering(*answers)) as server:
        told, engage = Told(server.url), client(server.url)
        outcome = await told.tracing.send_action("default", engage, send(saved(*given)), REQUEST, lambda: may_send)
        await engage.aclose()
        headers = server.requests[0].headers if server.requests else {}
        return outcome, headers, told.span if told.spans else None


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def trace_of(span: ReadableSpan) -> str:
    return f"{context_of(span).trace_id:032x}"


def traceparent_of(span: ReadableSpan) -> str:
    return f"00-{trace_of(span)}-{id_of(span)}-{context_of(span).trace_flags:02x}"


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def id_of(span: ReadableSpan) -> str:
    return f"{context_of(span).span_id:016x}"


def attributes(span: ReadableSpan | None) -> dict[str, object]:
    assert span is not None
    found: dict[str, object] = dict(span.attributes or {})
    found.pop("server.port", None)
    return found


# -- an event ---------------------------------------------------------------------------------------------------


def test_taking_an_event_in_is_a_span_below_its_senders(told: Told) -> None:
    taken(told, *SAMPLED)
    span = told.span
    assert (span.name, span.kind) == ("process orders", SpanKind.CONSUMER)
    assert (trace_of(span), parent_of(span)) == (TRACE, PARENT)
    assert (span.start_time, span.end_time) == (NOW * 1e9, (NOW + 1) * 1e9)
    assert attributes(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 17,
        "messaging.consumer.group.name": "relays",
        "engage_relay.route": "shipped",
        "engage_relay.connection": "default",
        "engage_relay.action": "ConfirmShipment",
    }


def test_the_delay_topic_carries_the_context_of_that_span(told: Told) -> None:
    context = trace_context_of(taken(told, *SAMPLED))
    assert context == {"traceparent": f"00-{TRACE}-{id_of(told.span)}-01", "tracestate": "shop=7"}


def test_an_event_without_a_trace_begins_one_that_is_kept(told: Told) -> None:
    action = taken(told)
    assert parent_of(told.span) is None
    assert trace_context_of(action) == {"traceparent": traceparent_of(told.span)}


@given(
    st.binary(max_size=80) | st.sampled_from([b"a" * 1_000_000, SAMPLED[0][1] + b"-more", b"ff" + SAMPLED[0][1][2:]])
)
def test_a_traceparent_that_is_none_counts_as_absent(header: bytes) -> None:
    told = Told()
    taken(told, ("traceparent", header), ("tracestate", b"shop=7"))
    assert parent_of(told.span) is None
    assert not context_of(told.span).trace_state


def test_what_the_sender_does_not_sample_is_not_reported_yet_stays_in_its_trace(told: Told) -> None:
    context = trace_context_of(taken(told, *UNSAMPLED))
    assert told.spans == []
    assert context is not None
    assert context["traceparent"].startswith(f"00-{TRACE}-")
    assert context["traceparent"].endswith("-00")


def test_an_event_that_a_route_cannot_use_is_an_error_by_its_reason(told: Told) -> None:
    wrong = Misrouted(Reason.INVALID_EVENT, f"orderId: {SECRET}", "shipped")
    assert told.tracing.taken(consumed(*SAMPLED), wrong, NOW) is wrong
    assert (trace_of(told.span), told.span.status.status_code) == (TRACE, StatusCode.ERROR)
    assert attributes(told.span)["error.type"] == Reason.INVALID_EVENT.value
    assert attributes(told.span)["engage_relay.route"] == "shipped"


def test_an_undecodable_event_has_no_route(told: Told) -> None:
    told.tracing.taken(consumed(), Misrouted(Reason.UNDECODABLE, "not JSON", None), NOW)
    assert "engage_relay.route" not in attributes(told.span)


# -- its polls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "name", "error"),
    [
        (Ready(f"{SECRET}tag"), "ready", None),
        (DocumentTaken(f"{SECRET}job"), "document_taken", None),
        (JobFailed(SECRET, SECRET), "job_failed", "job_failed"),
        (Rejected(400, SECRET, SECRET), "rejected", "rejected"),
    ],
)
def test_a_poll_that_brought_something_is_a_span_below_its_events(
    told: Told, outcome: PollOutcome | DocumentOutcome, name: str, error: str | None
) -> None:
    action = taken(told, *SAMPLED)
    told.tracing.polled("default", poll(action), outcome, NOW)
    process, span = told.spans
    assert (span.name, span.kind) == ("poll", SpanKind.CLIENT)
    assert (trace_of(span), parent_of(span)) == (TRACE, id_of(process))
    failed = {"error.type": error} if error else {}
    assert attributes(span) == {
        "server.address": "acme.example",
        "engage_relay.connection": "default",
        "engage_relay.outcome": name,
        **failed,
    }
    assert (span.status.status_code is StatusCode.ERROR) == (error is not None)
    assert span.start_time == NOW * 1e9


@pytest.mark.parametrize("outcome", [NotReady(), NotFound(), Throttled(), Unavailable("refused"), Unauthorized(401)])
def test_a_poll_that_is_to_be_asked_again_is_no_span(told: Told, outcome: PollOutcome) -> None:
    told.tracing.polled("default", poll(saved(*SAMPLED)), outcome, NOW)
    assert told.spans == []


# -- its action -------------------------------------------------------------------------------------------------


async def test_engage_is_told_of_the_sending_in_the_events_trace_and_of_no_tracestate() -> None:
    outcome, headers, span = await sent(answer(202))
    assert outcome == Accepted()
    assert span is not None
    assert (span.name, span.kind, span.status.status_code) == ("send action", SpanKind.CLIENT, StatusCode.UNSET)
    assert (trace_of(span), parent_of(span)) == (TRACE, PARENT)
    assert headers[b"traceparent"].decode() == f"00-{TRACE}-{id_of(span)}-01"
    assert b"tracestate" not in headers
    assert attributes(span) == {
        **SERVER,
        "http.request.method": "POST",
        "http.response.status_code": 202,
        "engage_relay.action": "ConfirmShipment",
        "engage_relay.outcome": "accepted",
    }


async def test_engage_is_told_of_a_trace_that_is_not_sampled_as_such() -> None:
    _, headers, span = await sent(answer(202), given=UNSAMPLED)
    assert span is None
    assert headers[b"traceparent"].startswith(f"00-{TRACE}-".encode())
    assert headers[b"traceparent"].endswith(b"-00")


async def test_an_action_that_was_saved_without_a_trace_begins_one() -> None:
    _, headers, span = await sent(answer(202), given=())
    assert span is not None
    assert parent_of(span) is None
    assert headers[b"traceparent"].decode() == traceparent_of(span)


@pytest.mark.parametrize(
    ("answered", "outcome", "told"),
    [
        (404, StaleTag, "stale_tag"),
        (400, Rejected, "rejected"),
        (403, Forbidden, "forbidden"),
        (422, NoContact, "no_contact"),
        (401, Unauthorized, "unauthorized"),
        (429, Throttled, "throttled"),
        (500, InDoubt, "in_doubt"),
        (503, InDoubt, "in_doubt"),
        (308, Unavailable, "unavailable"),
    ],
)
async def test_an_answer_that_is_no_acceptance_is_an_error_by_its_status(
    answered: int, outcome: type[ActionOutcome], told: str
) -> None:
    came, _, span = await sent(answer(answered, f'{{"error": "{SECRET}"}}'.encode()))
    assert isinstance(came, outcome)
    assert attributes(span) == {
        **SERVER,
        "http.request.method": "POST",
        "http.response.status_code": answered,
        "error.type": str(answered),
        "engage_relay.action": "ConfirmShipment",
        "engage_relay.outcome": told,
    }
    assert span is not None
    assert span.status.status_code is StatusCode.ERROR


async def test_without_an_answer_the_error_is_what_happened() -> None:
    url = refused_url()
    told = Told(url)
    outcome = await told.tracing.send_action("default", client(url), send(saved()), REQUEST, lambda: True)
    assert isinstance(outcome, Unavailable)
    assert attributes(told.span)["error.type"] == "connect"
    assert "http.response.status_code" not in attributes(told.span)


async def test_without_a_request_the_error_is_the_outcome() -> None:
    told, keyless = Told(), client("https://acme.example", api_key=str)
    outcome = await told.tracing.send_action("default", keyless, send(saved()), REQUEST, lambda: True)
    assert outcome == Unauthorized(0)
    assert attributes(told.span)["error.type"] == "unauthorized"


async def test_an_action_that_was_withdrawn_is_no_error() -> None:
    outcome, headers, span = await sent(answer(202), may_send=False)
    assert (outcome, headers) == (Withdrawn(), {})
    assert attributes(span)["engage_relay.outcome"] == "withdrawn"
    assert "error.type" not in attributes(span)


async def test_a_send_that_is_cut_off_ends_its_span() -> None:
    arrived = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.client_left()

    async with serving(silent) as server:
        told = Told(server.url)
        engage = client(server.url)
        sending = asyncio.create_task(told.tracing.send_action("default", engage, send(saved()), REQUEST, lambda: True))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert "engage_relay.outcome" not in attributes(told.span)


def test_an_action_that_is_given_up_says_why(told: Told) -> None:
    action = taken(told, *SAMPLED)
    told.tracing.dead_lettered(given_up(action))
    process, span = told.spans
    assert (span.name, trace_of(span), parent_of(span)) == ("dead letter", TRACE, id_of(process))
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span) == {
        "engage_relay.route": "shipped",
        "engage_relay.attempts": 5,
        "engage_relay.sends": 2,
        "error.type": Reason.REJECTED.value,
    }


async def test_no_span_holds_anything_of_the_event_or_of_engages_answers(told: Told) -> None:
    action = taken(told, *SAMPLED)
    told.tracing.taken(consumed(), Misrouted(Reason.INVALID_EVENT, SECRET, "shipped"), NOW)
    told.tracing.polled("default", poll(action), JobFailed(SECRET, SECRET), NOW)
    told.tracing.dead_lettered(given_up(action))
    answered = [(await sent(answer(status, SECRET.encode())))[2] for status in (202, 422, 500)]
    spans = [*told.spans, *filter(None, answered)]
    assert len(spans) == 7
    assert SECRET not in "".join(span.to_json() for span in spans)


def test_closing_does_not_wait_for_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    class Silent(InMemorySpanExporter):
        def shutdown(self) -> None:
            over.wait(60)

    monkeypatch.setattr("consumer.telemetry.tracing.CLOSE_S", 0.05)
    told = Told(exporter=Silent())
    closing = threading.Thread(target=told.tracing.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    over.set()


# -- on and off -------------------------------------------------------------------------------------------------

CONFIGURED = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "ENGAGE_BASE_URL": "http://127.0.0.1:9",
    "ENGAGE_API_KEY": "k3y-of-nobody",
    "ENGAGE_RELAY__ADMIN__LISTEN": "127.0.0.1:0",
}


@pytest.fixture
def settings() -> Settings:
    return load(None, CONFIGURED)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    yield
    logs._secrets = []


def asked_for(settings: Settings, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Tracing | None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return tracing_asked_for(settings, lambda: NOW)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_TRACES_EXPORTER": ""},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_nothing_is_traced_unless_the_environment_asks_for_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    assert asked_for(settings, monkeypatch, **environ) is None


def python(program: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    environment = {**CONFIGURED, **environ}
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_when_off_nothing_of_opentelemetry_is_imported() -> None:
    program = (
        "import os, sys; from consumer import cli;"
        "from consumer.config import loading; from consumer.run import wiring;"
        "assert wiring.tracing_asked_for(loading.load(None, os.environ), float) is None;"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    ended = python(program)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_where_the_extra_is_not_installed_the_relay_ends_and_says_what_to_install() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; from consumer import cli; cli.main()"
    ended = python(program, "run", OTEL_TRACES_EXPORTER="otlp")
    assert ended.returncode == 2
    assert "pip install 'engage-relay[otel]'" in ended.stderr


@pytest.mark.parametrize(
    ("environ", "errors"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, ("OTEL_TRACES_EXPORTER: must be otlp or none",)),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf (port 4318 of a collector); grpc is not built in",),
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-4711"},
            ("OTEL_*: one of the variables has a value that is of no use",),
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_variable_and_without_its_value(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], errors: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        asked_for(settings, monkeypatch, **environ)
    assert refused.value.errors == errors


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "engage-relay"),
        ({"OTEL_SERVICE_NAME": "relay-se"}, "relay-se"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=relay-no"}, "relay-no"),
    ],
)
def test_the_service_has_our_name_and_version_unless_it_is_given_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str
) -> None:
    tracing = asked_for(settings, monkeypatch, OTEL_TRACES_EXPORTER="otlp", **environ)
    assert tracing is not None
    resource = tracing._provider.resource.attributes
    assert (resource["service.name"], resource["service.version"]) == (name, __version__)
    assert resource["telemetry.sdk.language"] == "python"
    tracing.close()


def test_a_collectors_key_is_struck_from_the_logs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = "authorization=Bearer%20key-0815,broken header-4711"
    tracing = asked_for(settings, monkeypatch, OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_HEADERS=headers)
    assert tracing is not None
    tracing.close()
    assert {"Bearer key-0815", "Bearer%20key-0815", "broken header-4711"} <= set(logs._secrets)
