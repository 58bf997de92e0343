"""`route`: what would become of events, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.commands.route import events_in
from consumer.errors import ExitCode
from tests.unit.commands.calling import called, json_lines

SHIPPED = {"type": "order.shipped", "orderId": "A-1", "engage": {"jobId": "job-7"}, "data": {"carrier": "Nörd"}}


def test_route_says_which_action_an_event_becomes_and_why() -> None:
    result = called("route", "-", stdin=json.dumps(SHIPPED))
    assert result.exit_code == 0
    first, *why = result.stdout.splitlines()
    assert first == "event 1: ConfirmShipment of order A-1 on default, versionTag from job job-7"
    assert len(why) == 6
    assert any("shipped" in line and "is true" in line for line in why)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("{action: ConfirmShipment, change_delivery: delivery}", "versionTag from the job of its change-delivery"),
        ("{action: ConfirmShipment, send: with_document, order: order}", "in its document"),
    ],
)
def test_route_says_how_the_action_travels(route: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(f"routes: {{mine: {route}}}\n")
    event = {"orderId": "A-1", "order": {"orderId": "A-1"}, "delivery": {"method": "Box"}}
    result = called("route", "--config", str(file), "-", stdin=json.dumps(event))
    assert result.stdout.splitlines()[0] == f"event 1: ConfirmShipment of order A-1 on default, {said}"


def test_route_as_json_holds_the_action_and_each_routes_answer() -> None:
    (row,) = json_lines(called("route", "-", "--json", stdin=json.dumps(SHIPPED)))
    assert row["fate"] == "routed"
    action = row["action"]
    assert isinstance(action, dict)
    assert (action["route"], action["action"], action["order_id"]) == ("shipped", "ConfirmShipment", "A-1")
    assert action["tag_source"] == {"kind": "job", "job_id": "job-7"}
    assert action["data"] == {"carrier": "Nörd"}
    routes = row["routes"]
    assert isinstance(routes, list)
    assert [each["route"] for each in routes if each["took"]] == ["shipped"]


@pytest.mark.parametrize(
    ("action", "becomes"), [("Återbetalning", "Återbetalning"), (None, "Custom"), ("ConfirmOrder", "ConfirmOrder")]
)
def test_a_custom_event_may_name_its_action_and_route_notes_one_that_is_not_documented(
    action: str | None, becomes: str
) -> None:
    event = {"type": "order.custom", "orderId": "A-1", "action": action}
    result = called("route", "-", stdin=json.dumps(event))
    assert result.exit_code == 0
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith(f"event 1: {becomes} of order A-1")
    assert second.startswith("  note: Engage's documentation does not list") == (becomes == "Återbetalning")


def test_only_a_custom_event_may_name_its_action() -> None:
    result = called("route", "-", stdin=json.dumps({**SHIPPED, "action": "Återbetalning"}))
    assert result.stdout.startswith("event 1: ConfirmShipment of order A-1")


@pytest.mark.parametrize(("name", "why"), [("", "action: "), ("x" * 201, "action: "), (7, "action: ")])
def test_a_name_that_no_action_can_have_is_an_invalid_event(name: object, why: str) -> None:
    event = {"type": "order.custom", "orderId": "A-1", "action": name}
    (row,) = json_lines(called("route", "-", "--json", stdin=json.dumps(event)))
    assert (row["fate"], row["reason"]) == ("dead_letter", "invalid_event")
    assert str(row["detail"]).startswith(why)


def test_an_event_that_no_route_takes_is_ignored_with_code_0() -> None:
    result = called("route", "-", "--json", stdin='{"type": "price.changed"}')
    assert result.exit_code == 0
    assert [row["fate"] for row in json_lines(result)] == ["ignored"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("nonsense", "undecodable"),
        ('{"type": "order.shipped", "type": "order.shipped", "orderId": "A"}', "undecodable"),
        ('{"type": "order.shipped"}', "invalid_event"),
        ('{"type": "order.shipped", "orderId": "A", "engage": {"connection": "who"}}', "unknown_connection"),
    ],
)
def test_an_event_that_would_be_dead_lettered_gives_code_1_and_the_others_are_judged(event: str, reason: str) -> None:
    result = called("route", "-", "--json", stdin=f"{event}\n\n{json.dumps(SHIPPED)}\n")
    assert result.exit_code == 1
    assert [(row["fate"], row["reason"]) for row in json_lines(result)] == [("dead_letter", reason), ("routed", None)]


def test_route_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "events.json"
    file.write_text(json.dumps([SHIPPED, SHIPPED], indent=2))
    assert [row["fate"] for row in json_lines(called("route", str(file), "--json"))] == ["routed", "routed"]


def test_a_file_that_cannot_be_read_is_an_error_of_the_command_line(tmp_path: Path) -> None:
    result = called("route", str(tmp_path / "none"))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "none" in result.stderr


OBJECTS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=9), max_size=3)


@given(st.lists(OBJECTS, min_size=1), st.sampled_from([None, 0, 2]), st.booleans())
def test_events_are_found_in_lines_arrays_and_documents_alike(
    events: list[dict[str, object]], indent: int | None, ascii_only: bool
) -> None:
    array = json.dumps(events, indent=indent, ensure_ascii=ascii_only).encode()
    lines = [json.dumps(event, ensure_ascii=ascii_only).encode() + b"\r\n" for event in events]
    document = json.dumps(events[0], indent=indent).encode()
    assert [json.loads(event) for event in events_in(array.splitlines(keepends=True))] == events
    assert [json.loads(event) for event in events_in(lines)] == events
    assert [json.loads(event) for event in events_in(document.splitlines(keepends=True))] == events[:1]


def test_an_events_own_text_reaches_the_decoder_so_that_what_it_would_refuse_is_seen() -> None:
    assert list(events_in([b'[{"a":1,"a":2}, 7]'])) == [b'{"a":1,"a":2}', b"7"]


def test_events_are_judged_while_more_of_them_come() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b'{"a":1}\n'

    assert next(events_in(endless())) == b'{"a":1}'


def test_no_events_at_all_are_no_error() -> None:
    result = called("route", "-", stdin="\n\n")
    assert (result.exit_code, result.stdout) == (0, "")
