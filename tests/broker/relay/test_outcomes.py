"""The outcomes topic beside a relay: one record for each action that ended, visible with what ended it."""

from __future__ import annotations

from consumer.kafka.outcomes.outcomes import read_outcome
from schemas.outcome import Outcome
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import event, order_id, partition_of, publish
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until


def outcomes(sandbox: Sandbox, partition: int) -> list[Outcome]:
    topic = sandbox.topics.outcomes
    assert topic is not None
    read = [read_outcome(record.value() or b"") for record in sandbox.read(topic, partition)]
    return [each for each in read if isinstance(each, Outcome)]


def test_what_became_of_each_action_lies_in_its_events_own_partition(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    good, unknown, poison = order_id("good"), order_id("unknown"), order_id("poison")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(
            sandbox,
            [
                (good, event(good, engage={"jobId": engage.submit(good)})),
                (good, event(good, 2, engage={"jobId": engage.submit(good)})),
                (unknown, event(unknown, engage={"connection": "nobody"})),
                (poison, b"\xff not an event"),
                (good, event(good, kind="order.nobody-cares")),
            ],
        )
        books.wait_until_settled()
        until(lambda: sum(len(outcomes(sandbox, n)) for n in (0, 1)) == 4, "all outcomes are there")
        found = {
            (each.order_id, each.action, each.outcome, each.reason)
            for order in (good, unknown, poison)
            for each in outcomes(sandbox, partition_of(order, 2))
        }
        assert found == {
            (good, "ConfirmOrder", "accepted", None),
            (good, "ConfirmShipment", "accepted", None),
            (unknown, None, "dead_letter", "unknown_connection"),
            (None, None, "dead_letter", "undecodable"),
        }
        first, second = (each for each in outcomes(sandbox, partition_of(good, 2)) if each.order_id == good)
        assert first.first_seen_ms <= (first.tag_ready_ms or 0) <= (first.sent_ms or 0) <= (first.answered_ms or 0)
        assert (first.answered_ms or 0) <= (second.sent_ms or 0)
