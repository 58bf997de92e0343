"""What an operator should look at is said in words, with its reason."""

from __future__ import annotations

from datetime import timedelta

from consumer.core.pauses import Pause
from consumer.telemetry.rolling import Flow, Slice
from consumer.telemetry.snapshot import Snapshot
from tests.unit.admin.told import NOON, NOW, told


def test_what_an_operator_should_look_at_is_said_in_words() -> None:
    assert told(Snapshot(at=NOW)).attention == []
    said = told(Snapshot(at=NOW, in_doubt=1, overdue=2, paused=True)).attention
    assert [each.split(":")[0] for each in said] == ["In doubt", "Overdue", "The source is paused"]
    assert "1 action " in said[0]
    assert "2 actions " in said[1]


def test_a_pause_is_said_with_its_reason_and_silence_is_no_news_then() -> None:
    silent = Flow(
        started=NOW - 900,
        slices=tuple(Slice(start=NOW - 900 + 300 * n, seconds=300, events=60, pending=60 * n) for n in range(3)),
    )
    pauses = (
        Pause(id="p1", begun=NOW - 7200, reason="a wrong template", route="shipped"),
        Pause(id="p2", begun=NOW, reason="a replay", until=NOW + 3600, discard=True),
    )
    assert any("Nothing was accepted" in line for line in told(Snapshot(at=NOW), silent).attention)
    status = told(Snapshot(at=NOW, pauses=pauses, control_unreadable=2), silent)
    assert status.attention == [
        "Paused since 2026-11-25 10:00 UTC, on hold until it is ended: route shipped (a wrong template); "
        "`engage-relay resume` ends it",
        "Paused since 2026-11-25 12:00 UTC, what comes is discarded until 2026-11-25 13:00 UTC: everything (a replay); "
        "`engage-relay resume` ends it",
        "Records of the control topic that cannot be read, and are ignored: 2; what they ask for is not done",
    ]
    assert [(each.id, each.mode, each.route, each.until) for each in status.pauses] == [
        ("p1", "hold", "shipped", None),
        ("p2", "discard", None, NOON + timedelta(hours=1)),
    ]


def test_a_topic_that_does_not_fit_is_said_with_all_that_is_wrong_before_what_only_waits() -> None:
    why = ["topic orders.engage.delay has cleanup.policy=delete: it would lose pending actions", "topic x is small"]
    said = told(Snapshot(at=NOW, paused=True, in_doubt=1, topics_unfit={"orders.engage.delay": why})).attention
    assert said[0] == (
        "Topic orders.engage.delay has cleanup.policy=delete: it would lose pending actions; topic x is small; "
        "`engage-relay topics check` looks now"
    )
    many = {f"orders-{n}": [f"topic orders-{n} does not exist"] for n in range(8)}
    assert told(Snapshot(at=NOW, topics_unfit=many)).attention[-1] == "3 more topics do not fit"


def test_requests_that_nobody_can_answer_are_said_with_the_reason() -> None:
    (said,) = told(Snapshot(at=NOW, requests_open=3, requests_refused="TOPIC_AUTHORIZATION_FAILED")).attention
    assert said.startswith("Requests about single actions that cannot be carried out: 3; the control topic takes no")
    assert "TOPIC_AUTHORIZATION_FAILED" in said
    assert told(Snapshot(at=NOW, requests_open=3)).attention == []
