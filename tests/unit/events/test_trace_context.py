"""Only a well-formed trace context is carried along."""

from __future__ import annotations

import pytest

from tests.unit.events.routing.cases import SHIPPED, TRACEPARENT, Record, routed


@pytest.mark.parametrize(
    ("headers", "context"),
    [
        (
            [("traceparent", TRACEPARENT), ("tracestate", b"a=1,b=2")],
            {"traceparent": TRACEPARENT.decode(), "tracestate": "a=1,b=2"},
        ),
        ([("traceparent", TRACEPARENT), ("tracestate", b"\xff=1")], {"traceparent": TRACEPARENT.decode()}),
        ([("traceparent", TRACEPARENT), ("tracestate", b"a=" + b"1" * 511)], {"traceparent": TRACEPARENT.decode()}),
        ([("tracestate", b"a=1")], None),
        ([("traceparent", None)], None),
        ([("traceparent", b"")], None),
        ([("traceparent", TRACEPARENT + b"\n")], None),
        ([("traceparent", TRACEPARENT.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32))], None),
        ([("traceparent", b"ff" + TRACEPARENT[2:])], None),
    ],
)
def test_only_a_well_formed_trace_context_is_carried_along(
    headers: list[tuple[str, bytes | None]], context: dict[str, str] | None
) -> None:
    assert routed(SHIPPED, Record(headers=tuple(headers))).trace_context == context
