"""The commands that ask the relay for something: what they refuse before a broker is asked, and what they ask first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from consumer.commands.orders import searching
from consumer.core.requests import Request
from consumer.errors import ExitCode
from consumer.kafka.control.asking import Told
from consumer.kafka.orders.reading import Span
from schemas.outcome import Outcome, OutcomeName, Place
from tests.unit.commands.calling import called

WHY = ("--reason", "a test")
ASKING = [
    ("resend", "A-1"),
    ("resend", "--withheld"),
    ("pending", "drop", "0:17"),
    ("pending", "retry-now", "0:17"),
]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return what is asked of the relay; two actions were discarded by a pause."""
    asked: list[Request] = []

    def ask(_: object, __: str, requests: Sequence[Request], *, wait_s: float) -> Iterator[Told]:
        asked.extend(requests)
        yield from (Told(each, None) for each in requests)

    monkeypatch.setattr("consumer.kafka.control.asking.ask", ask)
    monkeypatch.setattr("consumer.commands.control.resend.reach", lambda _: None)
    monkeypatch.setattr("consumer.kafka.orders.withheld.discarded", lambda *_: iter([outcome(3), outcome(4)]))
    return asked


def outcome(offset: int) -> Outcome:
    return Outcome(
        outcome=OutcomeName.WITHHELD,
        connection="default",
        order_id="A-1",
        route="shipped",
        action="ConfirmShipment",
        place=Place(topic="orders", partition=0, offset=offset),
        first_seen_ms=1,
        ended_ms=2,
        reason="pause p1: a replay",
    )


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize(("reason", "told"), [((), "--reason"), (("--reason", " "), "--reason: say why")])
def test_without_a_reason_nothing_is_asked_for(
    written: list[Request], command: tuple[str, ...], reason: tuple[str, ...], told: str
) -> None:
    result = called(*command, *reason)
    assert (result.exit_code, result.stdout, written) == (ExitCode.CONFIGURATION, "", [])
    assert told in result.stderr


@pytest.mark.parametrize("command", [*((*each, *WHY) for each in ASKING), ("dead-letters", "redrive", "--all")])
def test_without_a_control_topic_nothing_can_be_asked_for(written: list[Request], command: tuple[str, ...]) -> None:
    result = called(*command, ENGAGE_RELAY__CONTROL__TOPIC="none")
    assert (result.exit_code, written) == (ExitCode.CONFIGURATION, [])
    assert "control.topic is none" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name an ORDER, or say --withheld"),
        (("A-1", "--withheld"), "--withheld: names no ORDER"),
        (("A-1", "--since", "1d"), "say --withheld (which takes --since)"),
        (("--withheld", "--since", "yesterday"), "--since: must be a duration"),
        (("--withheld", "--topic", "nobody"), "--topic: nobody is none of the source topics"),
        (("--withheld", "--route", "shiped"), "--route: shiped is not configured"),
    ],
)
def test_a_resend_that_names_nothing_or_too_much_is_refused(
    written: list[Request], arguments: tuple[str, ...], told: str
) -> None:
    result = called("resend", *arguments, *WHY)
    assert (result.exit_code, written) == (ExitCode.CONFIGURATION, [])
    assert told in result.stderr


def test_a_terminal_is_asked_with_their_number_before_what_was_withheld_is_sent(
    written: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.commands.options.is_a_terminal", lambda: True)
    refused = called("resend", "--withheld", *WHY, stdin="n\n")
    assert (refused.exit_code, written) == (1, [])
    assert "Send 2 actions that a pause discarded? Customers may get e-mails." in refused.stderr
    called("resend", "--withheld", *WHY, "--no-wait", stdin="y\n")
    assert [each.offset for each in written] == [3, 4]
    called("resend", "--withheld", *WHY, "--no-wait", "--yes", "--route", "confirmed")
    assert len(written) == 2, "none of them is of this route"


def test_whatever_takes_longer_than_a_second_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("consumer.commands.orders.searching.time.monotonic", lambda: now)
    tell = searching.teller()
    spans = {("orders", 3): Span(0, 1_000_000)}
    said = []
    for now in (0.5, 0.9, 1.1, 2.9, 3.2):  # noqa: B007 - read by the clock
        tell(spans)
        said.append(capsys.readouterr().err)
    assert [bool(each) for each in said] == [False, False, True, False, True]
    assert said[2].startswith("reading: orders[3] at 0 of 1,000,000")
