"""One trace from the event's headers to the action's request, whatever becomes of the relay on the way."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from schemas.pending_action import PendingAction
from tests.support.books import Books
from tests.support.engage import Asked, LocalServer, Reply, ScriptedEngage, tagged_order
from tests.support.events import Raw, event, order_id, publish_raw
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import PATIENCE_S, until

ORDER = order_id("traced")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TRACESTATE = "shop=of-nobodys-concern"
HEADERS = (("traceparent", TRACEPARENT.encode()), ("tracestate", TRACESTATE.encode()))
COLLECTOR_KEY = "collector-key-0815"


class Collector(LocalServer):
    """Where an OpenTelemetry exporter sends its spans."""

    def __init__(self, *, silent: bool = False) -> None:
        self.spans: list[Span] = []
        self.asked = 0
        self._over = threading.Event()
        outer = self

        class Collecting(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                if silent:
                    outer._over.wait(PATIENCE_S)
                    self.close_connection = True
                    return
                assert self.headers["authorization"] == COLLECTOR_KEY
                outer.spans += [
                    span
                    for resource in ExportTraceServiceRequest.FromString(body).resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        super().__init__(Collecting)

    def __exit__(self, *what: object) -> None:
        self._over.set()
        super().__exit__(*what)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    @property
    def environment(self) -> dict[str, str]:
        """What has a relay export to it, and at once."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={COLLECTOR_KEY}",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }


class Moody:
    """An Engage that has a tag only once it is told so."""

    def __init__(self) -> None:
        self.processed = threading.Event()

    def __call__(self, asked: Asked) -> Reply:
        if asked.method == "GET" and not self.processed.is_set():
            return Reply(200, {"status": "Processing"})
        return tagged_order(asked)


def relay(sandbox: Sandbox, engage: ScriptedEngage, directory: Path, environ: dict[str, str]) -> RelayProcess:
    static = {"group.instance.id": "relay-0"}  # its successor takes its place at once
    file = written(directory, configuration(sandbox, engage.url, kafka=static))
    return RelayProcess(directory, file, "--from", "earliest", environ=environ, impatient=True)


def pending(books: Books) -> PendingAction | None:
    return next(iter(books.read().live.values()), None)


def test_an_action_continues_in_its_events_trace_after_the_relay_that_took_it_was_killed(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox, moody = sandboxes(), Moody()
    with Collector() as collector, ScriptedEngage(moody) as engage, Books(sandbox) as books:
        publish_raw(sandbox, [Raw(ORDER.encode(), event(ORDER, engage={"jobId": "job-1"}), HEADERS)])
        with relay(sandbox, engage, tmp_path, collector.environment) as first:
            until(lambda: pending(books), "the action is saved")
            until(lambda: len(engage.asked) > 1, "it is asked for in vain")
            process = until(lambda: collector.named(f"process {sandbox.topics.source}"), "its span is exported")[-1]
            first.kill()
        assert engage.actions() == []
        moody.processed.set()
        with relay(sandbox, engage, tmp_path, collector.environment) as second:
            books.wait_until_settled()
            assert second.stop() == 0
            assert COLLECTOR_KEY not in second.text

        [action] = engage.actions()
        [send], [poll] = collector.named("send action"), collector.named("poll")
        assert action.headers["traceparent"] == f"00-{TRACE}-{send.span_id.hex()}-01"
        assert "tracestate" not in action.headers
        assert all("traceparent" not in each.headers for each in engage.asked if each.method == "GET")
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
        assert process.parent_span_id.hex() == TRACEPARENT.split("-")[2]
        assert send.parent_span_id == poll.parent_span_id == process.span_id
        for personal in (ORDER, "job-1"):
            assert personal not in "".join(map(str, collector.spans))


def test_without_tracing_the_context_is_kept_and_engage_is_told_nothing_of_it(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox, moody = sandboxes(), Moody()
    with Collector() as collector, ScriptedEngage(moody) as engage, Books(sandbox) as books:
        publish_raw(sandbox, [Raw(ORDER.encode(), event(ORDER, engage={"jobId": "job-1"}), HEADERS)])
        aimed = {**collector.environment, "OTEL_TRACES_EXPORTER": "none"}
        with relay(sandbox, engage, tmp_path, aimed) as relay_process:
            saved = until(lambda: pending(books), "the action is saved")
            assert saved is not None
            assert saved.payload.trace_context == {"traceparent": TRACEPARENT, "tracestate": TRACESTATE}
            moody.processed.set()
            books.wait_until_settled()
            assert relay_process.stop() == 0
        [action] = engage.actions()
        assert not {"traceparent", "tracestate"} & action.headers.keys()
        assert collector.spans == []


@pytest.mark.long
def test_a_collector_that_never_answers_holds_nothing_up(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    with Collector(silent=True) as collector, ScriptedEngage(tagged_order) as engage, Books(sandbox) as books:
        publish_raw(sandbox, [Raw(ORDER.encode(), event(ORDER))])
        with relay(sandbox, engage, tmp_path, collector.environment) as relay_process:
            until(lambda: collector.asked, "an export hangs")
            publish_raw(sandbox, [Raw(ORDER.encode(), event(ORDER, 2))])
            books.wait_until_settled()
            assert len(engage.actions()) == 2
            assert relay_process.stop() == 0
        assert collector.spans == []
