"""A dead letter is the original record with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from consumer.kafka.records.dead_letters import dead_letter_of_action, without_value
from consumer.kafka.records.pending import new_action
from schemas.dead_letter import REDRIVE_OF, DeadLetterHeaders, Reason
from tests.unit.kafka.records.samples import event, given_up, routed


def test_the_dead_letter_of_an_item_says_which_it_is() -> None:
    action = new_action(replace(routed(), item=2), event())
    why = DeadLetterHeaders.from_kafka(cast("Any", dead_letter_of_action(given_up(action), now=5.0).headers))
    assert why.item == 2


def test_a_dead_letter_is_the_original_with_the_reason_and_without_an_earlier_ones() -> None:
    earlier = ("engage-relay-reason", b"stale_tag")
    action = new_action(routed(), event(b"\xff", [("x", b"1"), earlier, (REDRIVE_OF, b"t/0/1"), ("y", None)]))
    dead_letter = dead_letter_of_action(given_up(action, errors="[]"), now=5.0)

    assert (dead_letter.key, dead_letter.value) == (b"A-1", b"\xff")
    assert dead_letter.headers[:3] == [("x", b"1"), (REDRIVE_OF, b"t/0/1"), ("y", None)]
    told = DeadLetterHeaders.from_kafka([(n, v if isinstance(v, bytes) else None) for n, v in dead_letter.headers[3:]])
    assert (told.reason, told.detail, told.source_offset, told.failed_at_ms) == (Reason.REJECTED, "why", 17, 5000)
    assert told.source_timestamp_ms == 1_762_162_200_000


def test_a_dead_letter_without_its_value_says_so() -> None:
    action = new_action(routed(), event(b"x" * 3000))
    dead_letter = dead_letter_of_action(given_up(action), now=5.0)
    smaller = without_value(dead_letter)
    assert (smaller.key, smaller.value) == (dead_letter.key, None)
    assert "why; its value of 3000 bytes was left out" in str(dict(smaller.headers)["engage-relay-detail"])
