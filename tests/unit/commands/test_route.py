"""`route`: what would become of events, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from consumer.errors import ExitCode
from tests.unit.commands.calling import called, json_lines

SHIPPED = {"type": "order.shipped", "orderId": "A-1", "engage": {"jobId": "job-7"}, "data": {"carrier": "Nörd"}}


def test_route_says_which_action_an_event_becomes_and_why() -> None:
    result = called("route", "-", "-v", stdin=json.dumps({**SHIPPED, "language": "sv-SE"}))
    assert result.exit_code == 0
    first, language, data, fact, *why = result.stdout.splitlines()
    assert first == "event 1: ConfirmShipment of order A-1 on default, versionTag from job job-7"
    assert (language, data) == ("  language sv-SE", '  data {"carrier":"Nörd"}')
    assert fact == "  fact ConfirmShipment A-1"
    assert len(why) == 6
    assert any("shipped" in line and "is true" in line for line in why)


def test_what_would_be_sent_is_always_shown_and_the_routes_answers_only_when_asked_for() -> None:
    result = called("route", "-", stdin=json.dumps({**SHIPPED, "language": "sv-SE"}))
    first, language, data = result.stdout.splitlines()[:3]
    assert first.startswith("event 1: ConfirmShipment of order A-1")
    assert (language, data) == ("  language sv-SE", '  data {"carrier":"Nörd"}')
    assert "is true" not in result.stdout
    assert "not asked" not in result.stdout


def test_route_says_which_step_an_action_is_and_what_supersedes_what(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "steps: [ConfirmOrder, ConfirmShipment]\n"
        "routes:\n"
        "  mine: {when: \"type == 'mine'\", action: ConfirmOrder, superseded_by: [shipped, cancelled]}\n"
    )
    mine = called("route", "--config", str(file), "-", "-v", stdin=json.dumps({"type": "mine", "orderId": "A"}))
    assert mine.stdout.splitlines()[2:4] == ["  superseded by cancelled, shipped", "  step 1 of 2"]
    shipped = called("route", "--config", str(file), "-", "-v", stdin=json.dumps(SHIPPED))
    assert shipped.stdout.splitlines()[3:5] == ["  supersedes mine", "  step 2 of 2"]
    assert "supersedes" not in called("route", "--config", str(file), "-", stdin=json.dumps(SHIPPED)).stdout


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
    first, *others = result.stdout.splitlines()
    assert first.startswith(f"event 1: {becomes} of order A-1")
    assert bool(others) == (becomes == "Återbetalning")
    assert all(line.startswith("  note: Engage's documentation does not list") for line in others)


def test_only_a_custom_event_may_name_its_action() -> None:
    result = called("route", "-", stdin=json.dumps({**SHIPPED, "action": "Återbetalning"}))
    assert result.stdout.startswith("event 1: ConfirmShipment of order A-1")


@pytest.mark.parametrize(
    ("name", "why"), [("", "action is empty"), ("x" * 201, "action is longer"), (7, "action is a number")]
)
def test_a_name_that_no_action_can_have_is_an_invalid_event(name: object, why: str) -> None:
    event = {"type": "order.custom", "orderId": "A-1", "action": name}
    (row,) = json_lines(called("route", "-", "--json", stdin=json.dumps(event)))
    assert (row["fate"], row["reason"]) == ("dead_letter", "invalid_event")
    assert str(row["detail"]).startswith(why)


@pytest.mark.parametrize(
    ("event", "note"),
    [
        ({**SHIPPED, "type": "order.shiped"}, "its type is nearly order.shipped"),
        ({**SHIPPED, "type": "Order.Cancelled "}, "its type is nearly order.cancelled"),
        ({"Type": "order.shipped", "OrderId": "A-1"}, "its Type is order.shipped, and a canonical event has that in"),
        ({"eventType": "order.shipped"}, "its eventType is order.shipped, and a canonical event has that in `type`"),
        ({"schema": None, "payload": SHIPPED}, "it looks like Kafka Connect's envelope"),
        ({"type": "price.changed"}, None),
        ({"type": 7}, None),
    ],
)
def test_what_an_ignored_event_may_have_been_meant_as_is_noted(event: object, note: str | None) -> None:
    """Nothing is wrong with it, so nobody would ever look at it again."""
    (row,) = json_lines(called("route", "-", "--json", stdin=json.dumps(event)))
    assert row["note"] is None if note is None else str(row["note"]).startswith(note)


@pytest.mark.parametrize(
    ("event", "note"),
    [
        ({"type": "order.shipped", "orderId": "A", "language": "sv_SE"}, "the language is not written as"),
        ({"kind": "sent", "Number": "A"}, "route mine: order_id: number is not there, but Number is"),
        (
            {"kind": "sent", "number": "A", "data": '{"parcel": 7}'},
            "route mine: fact: data.parcel is not there, but json",
        ),
    ],
)
def test_what_an_action_lacks_or_may_have_wrong_is_noted(event: object, note: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "routes:\n  mine: {when: \"kind == 'sent'\", action: ConfirmShipment, order_id: number, fact: data.parcel}\n"
    )
    (row,) = json_lines(called("route", "--config", str(file), "-", "--json", stdin=json.dumps(event)))
    assert str(row["note"]).startswith(note)


def test_an_event_that_no_route_takes_is_ignored_with_code_0() -> None:
    result = called("route", "-", "--json", stdin='{"type": "price.changed"}')
    assert result.exit_code == 0
    assert [row["fate"] for row in json_lines(result)] == ["ignored"]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ('{"type": "price.changed"}', 1),
        (json.dumps({**SHIPPED, "type": "order.custom", "action": "ConfirmShipmnt"}), 1),  # a near miss: a note
        (json.dumps(SHIPPED), 0),
    ],
)
def test_strict_ends_with_1_where_nothing_or_something_odd_becomes_of_an_event(value: str, code: int) -> None:
    assert called("route", "-", stdin=value).exit_code == 0
    assert called("route", "-", "--strict", stdin=value).exit_code == code


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
    file = tmp_path / "event.json"
    file.write_text(json.dumps(SHIPPED, indent=2))
    assert [row["fate"] for row in json_lines(called("route", str(file), "--json"))] == ["routed"]


def test_a_value_that_is_a_list_is_one_value_as_it_is_for_the_relay() -> None:
    (row,) = json_lines(called("route", "-", "--json", stdin=json.dumps([SHIPPED])))
    assert (row["fate"], row["reason"], row["detail"]) == (
        "dead_letter",
        "undecodable",
        "JSON, but a list, not an object; a route with `each: event[]` takes its items",
    )


def test_a_raw_value_is_taken_byte_by_byte(tmp_path: Path) -> None:
    file = tmp_path / "value.bin"
    file.write_bytes(b'{"type":"order.shipped","orderId":"A-1"}\n{}')
    (row,) = json_lines(called("route", "--raw", str(file), "--json"))
    assert row["reason"] == "undecodable"


def test_routes_alone_are_enough_for_a_dry_run(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("routes:\n  sent:\n    action: ConfirmShipment\n    order_id: number\n    when: number\n")
    arguments = ("route", "-", "--config", str(file))
    without = {"KAFKA_BOOTSTRAP_SERVERS": "", "ENGAGE_BASE_URL": "", "ENGAGE_API_KEY": ""}
    result = called(*arguments, stdin='{"number": 17}', **without)
    assert result.stdout.startswith("event 1: ConfirmShipment of order 17"), result.stderr


def test_numbers_are_shown_as_they_leave() -> None:
    event = '{"type":"order.shipped","orderId":"A","data":{"total":199.00,"big":18446744073709551615,"e":1E3}}'
    shown = '{"total":199.00,"big":18446744073709551615,"e":1E3}'
    assert f"  data {shown}" in called("route", "-", stdin=event).stdout.splitlines()
    assert f'"data":{shown}' in called("route", "-", "--json", stdin=event).stdout


def test_as_yaml_it_is_one_list_whose_numbers_are_as_they_came() -> None:
    event = {**SHIPPED, "data": {"total": 0}}
    lines = "\n".join(json.dumps(event).replace('"total": 0', f'"total": {number}') for number in ("199.00", "7"))
    shown = called("route", "-", "-o", "yaml", stdin=lines).stdout
    assert [row["action"]["data"]["total"] for row in yaml.safe_load(shown)] == [199.0, 7]
    assert "total: 199.00\n" in shown
    assert called("route", "-", "-o", "json", stdin=lines).stdout == called("route", "-", "--json", stdin=lines).stdout
    assert yaml.safe_load(called("route", "-", "-o", "yaml", stdin="\n").stdout) == []


def test_a_field_that_is_left_out_is_named() -> None:
    result = called("route", "-", stdin=json.dumps({**SHIPPED, "language": 7}))
    assert result.exit_code == 0
    assert "  left out: language: expression `language` gave a number, not a text" in result.stdout.splitlines()


@pytest.mark.parametrize("value", ["null", " null"])
def test_a_tombstone_is_ignored_and_said_so(value: str) -> None:
    result = called("route", "-", stdin=value)
    assert (result.exit_code, result.stdout) == (0, "event 1: ignored: a tombstone\n")


def test_which_values_are_tombstones_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text("source: {tombstones: [absent]}\n")
    result = called("route", "-", "--config", str(file), stdin="null")
    assert (result.exit_code, result.stdout.split(":")[1]) == (1, " dead letter, undecodable")
    result = called("route", "--raw", "-", "--config", str(file), stdin="")
    assert (result.exit_code, result.stdout.split(":")[1]) == (1, " dead letter, undecodable")


def test_a_file_that_cannot_be_read_is_an_error_of_the_command_line(tmp_path: Path) -> None:
    result = called("route", str(tmp_path / "none"))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "none" in result.stderr


def test_no_events_at_all_are_no_error() -> None:
    result = called("route", "-", stdin="\n\n")
    assert (result.exit_code, result.stdout) == (0, "")
