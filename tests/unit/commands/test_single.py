"""`dead-letters show` and `pending show`: what they tell of one record, and which ids they refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consumer.commands.single import dead_letter, pending_action
from consumer.core.pauses import NO_PAUSES
from consumer.errors import ExitCode
from consumer.kafka.dead_letters.redrive import Coordinates, DeadLetter, Selection
from consumer.kafka.pending import Open, Pending, State
from consumer.kafka.topics.scan import Gap
from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.pending_action import FromJob, OnUnknown, PendingAction, RoutedAction, SourceRecord
from tests.unit.commands.calling import called, json_lines

NOON_MS = 1_762_171_200_000  # 2025-11-03T12:00:00Z
DAY_S = 86_400.0
AT = Coordinates("orders.engage.dead-letters", 0, 3)


@pytest.mark.parametrize("command", [("dead-letters", "show"), ("pending", "show")])
@pytest.mark.parametrize("identifier", ["", "17", "0:x", "orders/17", "orders/0/-1", "0/17", "orders/0:17", "a/b/0/1"])
def test_an_id_that_cannot_be_is_refused_before_a_broker_is_asked(command: tuple[str, str], identifier: str) -> None:
    result = called(*command, "--", identifier)
    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert "must be TOPIC/PARTITION/OFFSET or PARTITION:OFFSET" in result.stderr


@pytest.mark.parametrize("command", [("dead-letters", "show"), ("pending", "show")])
def test_an_offset_alone_is_ambiguous_where_there_are_several_topics(command: tuple[str, str]) -> None:
    result = called(*command, "0:17", ENGAGE_RELAY__SOURCE__TOPICS="a,b")
    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert "say of which topic" in result.stderr


def letter(
    reason: Reason = Reason.REJECTED, *, redriven: bool = False, value: bytes | None = b'{"name": "Ada"}'
) -> DeadLetter:
    why = DeadLetterHeaders(
        reason=reason,
        detail="why: so",
        source_topic="orders",
        source_partition=0,
        source_offset=17,
        failed_at_ms=NOON_MS,
    )
    headers: list[tuple[str, bytes | None]] = [("customer", b"Ada"), ("raw", b"\xff"), *why.to_kafka()]
    return DeadLetter(
        coordinates=AT, why=why, redriven=redriven, redrive_of=None, key=b"A-1", value=value, headers=headers
    )


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[DeadLetter | Gap]:
    """What the dead-letter topic holds."""
    held: list[DeadLetter | Gap] = [letter()]

    def read(_: object, __: object, selection: Selection) -> Iterator[DeadLetter | Gap]:
        yield from (each for each in held if isinstance(each, Gap) or selection.takes(each))

    monkeypatch.setattr("consumer.kafka.dead_letters.redrive.dead_letters", read)
    monkeypatch.setattr("consumer.commands.single.dead_letter.reach", lambda _: None)
    return held


@pytest.mark.usefixtures("found")
def test_a_dead_letter_is_shown_without_its_events_contents_unless_they_are_asked_for() -> None:
    shown = called("dead-letters", "show", "0:3")
    assert shown.exit_code == 0
    assert "Ada" not in shown.stdout
    assert "engage-relay dead-letters redrive --topic orders --dead-letter-offset 0:3" in shown.stdout
    (whole,) = json_lines(called("dead-letters", "show", str(AT), "--value", "--json"))
    assert (whole["value"], whole["headers"]) == ('{"name": "Ada"}', {"customer": "Ada", "raw": "base64:/w=="})
    assert (whole["event"], whole["reason"], whole["detail"]) == ("orders/0/17", "rejected", "why: so")


def test_a_dead_letter_that_is_not_there_is_the_command_lines_error_and_an_unread_topic_is_not(
    found: list[DeadLetter | Gap],
) -> None:
    unknown = called("dead-letters", "show", "0:4")
    assert (unknown.exit_code, unknown.stdout) == (ExitCode.CONFIGURATION, "")
    assert "there is no dead letter" in unknown.stderr
    elsewhere = called("dead-letters", "show", "orders/0/3")
    assert elsewhere.exit_code == ExitCode.CONFIGURATION
    assert "is none of orders.engage.dead-letters" in elsewhere.stderr
    found[:] = [Gap(AT.topic, 0, "read to 1 of 4")]
    assert called("dead-letters", "show", "0:3").exit_code == ExitCode.FAILED


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_hint(reason: Reason) -> None:
    assert dict(dead_letter.facts_of(letter(reason), ["orders"]))["hint"] == dead_letter.HINTS[reason]


@pytest.mark.parametrize(
    ("found", "sources", "why"),
    [
        (letter(redriven=True), ["orders"], "redriven before"),
        (letter(value=None), ["orders"], "lost its value"),
        (letter(), ["others"], "none of this configuration"),
    ],
)
def test_no_redrive_is_proposed_that_would_be_refused(found: DeadLetter, sources: list[str], why: str) -> None:
    facts = dict(dead_letter.facts_of(found, sources))
    assert why in str(facts["hint"])
    assert "redrive" not in facts


# -- pending --------------------------------------------------------------------------------------------------------


def opened(
    state: State = "pending",
    *,
    due_s: int = 60,
    contact_until_ms: int | None = None,
    on_unknown: OnUnknown = "resend",
    ahead: str | None = None,
    item: int | None = None,
) -> Open:
    line = Pending(topic="orders", partition=0, offset=17, state=state)
    if state not in ("pending", "sending"):
        return Open(line=line)
    payload = RoutedAction(
        route="shipped",
        connection="default",
        order_id="A-1",
        action="ConfirmShipment",
        tag_source=FromJob(job_id="job-7"),
        on_unknown=on_unknown,
        event_time_ms=NOON_MS,
        item=item,
        source=SourceRecord(topic="orders", partition=0, offset=17),
    )
    record = PendingAction(
        state="sending" if state == "sending" else "pending",
        first_seen_ms=NOON_MS,
        due_ms=NOON_MS + due_s * 1000,
        sends=int(state == "sending"),
        contact_until_ms=contact_until_ms,
        payload=payload,
    )
    return Open(line=line, record=record, saved_ms=NOON_MS, ahead=ahead)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (opened(), "tried next at 2025-11-03T12:01:00Z"),
        (opened(due_s=-1), "was due"),
        (opened(ahead="orders/0/9"), "earlier action, that of orders/0/9"),
        (opened(contact_until_ms=NOON_MS), "no contact"),
        (opened("sending", ahead="orders/0/9"), "no known answer yet"),
        (opened("sending", on_unknown="dead_letter"), "becomes a dead letter"),
        (opened("refused"), "its topic refuses"),
        (opened("unreadable"), "cannot read"),
    ],
)
def test_a_pending_action_says_why_it_waits(found: Open, why: str) -> None:
    assert why in str(dict(pending_action.facts_of(found, NOON_MS, DAY_S))["why"])


def test_the_deadline_counts_from_when_the_event_was_first_read() -> None:
    assert dict(pending_action.facts_of(opened(), NOON_MS, DAY_S))["deadline"] == "2025-11-04T12:00:00Z"


def test_a_time_that_cannot_be_does_not_end_the_command() -> None:
    assert dict(pending_action.facts_of(opened(due_s=10**15), NOON_MS, DAY_S))["next_due"] == str(NOON_MS + 10**18)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Open | Gap]:
    """What is open of the event that is asked for."""
    found: list[Open | Gap] = []
    monkeypatch.setattr("consumer.kafka.pending.open_at", lambda *_: iter(found))
    monkeypatch.setattr("consumer.commands.pending.reach", lambda _: None)
    monkeypatch.setattr("consumer.kafka.control.control.CurrentPauses.pauses", NO_PAUSES)
    monkeypatch.setattr("consumer.kafka.identity.removed.removed_sources", lambda *_, **__: [])
    return found


@pytest.mark.parametrize(
    ("items", "arguments", "told"),
    [
        ([], (), "nothing is pending"),
        ([0, 1], (), "--item: 0, 1"),
        ([0, 1], ("--item", "2"), "--item: 0, 1"),
        ([None], ("--item", "0"), "leave --item out"),
        ([None, None], (), "pending list --json"),
    ],
)
def test_an_id_that_names_none_or_several_is_the_command_lines_error(
    held: list[Open | Gap], items: list[int | None], arguments: tuple[str, ...], told: str
) -> None:
    held.extend(opened(item=each) for each in items)
    result = called("pending", "show", "0:17", *arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert told in result.stderr


def test_one_item_of_several_is_shown_and_an_unread_partition_makes_the_answer_unsure(held: list[Open | Gap]) -> None:
    held.extend([opened(item=0), opened(item=1)])
    (shown,) = json_lines(called("pending", "show", "orders/0/17", "--item", "1", "--json"))
    assert (shown["item"], shown["order_id"], shown["route"]) == (1, "A-1", "shipped")
    held[:] = [Gap("orders.engage.delay", 0, "read to 1 of 4")]
    assert called("pending", "show", "0:17").exit_code == ExitCode.FAILED
    held.insert(0, opened())
    assert called("pending", "show", "0:17").exit_code == ExitCode.FAILED


def test_a_source_that_the_relay_does_not_know_is_the_command_lines_error(held: list[Open | Gap]) -> None:
    held.append(opened())
    result = called("pending", "show", "nobody/0/17")
    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert "nobody is none of orders" in result.stderr
