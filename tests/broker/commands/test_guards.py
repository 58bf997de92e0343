"""Guards of a whole relay: a start that would mail old orders, a connection for few, a run that sends nothing."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.kafka.topics.asking import partition_counts
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import Raw, event, order_id, publish, publish_raw
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import SandboxFactory, relay_topics
from tests.support.waiting import until

DAY_MS = 86_400_000
OLD = datetime.fromtimestamp(time.time() - 3 * 86_400, UTC).isoformat()
A, B, C = (order_id(name) for name in "ABC")


def stopped(relay: RelayProcess, reason: str) -> float:
    """Return how many actions a guard has stopped."""
    series = [line for line in relay.get("/metrics")[1].splitlines() if "actions_stopped_total{" in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in series if f'reason="{reason}"' in line)


def test_a_start_that_would_mail_old_orders_needs_a_decision(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    """An import writes old orders into new records, so the events' own time counts, too."""
    sandbox = sandboxes()
    publish(sandbox, [(A, event(A, occurredAt=OLD)), (B, event(B)), (C, event(C, occurredAt=OLD))])
    with Engage() as engage:
        for order in (A, B, C):
            engage.submit(order)
        config = written(tmp_path, configuration(sandbox, engage.url))
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            assert relay.wait() == 2
            (refusal,) = relay.said("cannot run")
            assert "2 of 3 records are older than a day" in str(refusal["why"])
            assert "--no-max-age" in str(refusal["advice"])
        with RelayProcess(tmp_path, config, "--from", "earliest", "--max-age", "2d") as relay, Books(sandbox) as books:
            until(lambda: engage.events_of(B) == [1], "the young one is sent")
            until(lambda: len(books.read().dead_letters) == 2, "the old ones are dead letters")
            assert {each.reason for each in books.read().dead_letters} == {"too_old"}
            assert relay.stop() == 0
        assert len(engage.accepted) == 1


def test_old_records_need_a_decision_too(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    old_ms = int(time.time() * 1000) - 2 * DAY_MS
    publish_raw(sandbox, [Raw(A.encode(), event(A), timestamp_ms=old_ms), Raw(B.encode(), event(B))])
    with Engage() as engage:
        for order in (A, B):
            engage.submit(order)
        config = written(tmp_path, configuration(sandbox, engage.url, kafka={"auto.offset.reset": "earliest"}))
        with RelayProcess(tmp_path, config) as relay:
            assert relay.wait() == 2
            assert "1 of 2 records are older than a day" in relay.text
        with RelayProcess(tmp_path, config, "--no-max-age") as relay:
            until(lambda: len(engage.accepted) == 2, "both are sent")
            assert relay.stop() == 0


def test_a_shadow_run_posts_nothing_and_what_it_read_is_never_sent(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    document = event(B, order={"orderId": B})
    publish(sandbox, [(A, event(A)), (B, document), (C, event(C, engage={"versionTag": "tag"}))])
    with Engage(processing="fixed:1s") as engage:
        for order in (A, B, C):
            engage.submit(order)
        config = written(tmp_path, configuration(sandbox, engage.url))
        with RelayProcess(tmp_path, config, "--from", "earliest", "--shadow") as relay:
            until(lambda: stopped(relay, "shadow") == 3, "all three end as shadows")
            assert relay.stop() == 0
        assert {call for call, _ in engage.requests} <= {"job", "order"}
        with RelayProcess(tmp_path, config) as relay:
            publish(sandbox, [(A, event(A, 2))])
            until(lambda: engage.events_of(A) == [2], "the next run sends what comes next")
            assert relay.stop() == 0
        assert len(engage.accepted) == 1


def test_a_connection_for_few_orders_mails_nobody_else(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    publish(sandbox, [(A, event(A)), (B, event(B)), (C, event(C))])
    with Engage() as engage:
        for order in (A, B, C):
            engage.submit(order)
        config = written(tmp_path, configuration(sandbox, engage.url, connection={"only_for": [C]}))
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: engage.events_of(C) == [1], "the one is sent")
            assert stopped(relay, "withheld") == 2
            assert relay.stop() == 0
        assert len(engage.accepted) == 1


CDC = {
    "when": "op == 'u' && after.status == 'SHIPPED' && (before == null || before.status != 'SHIPPED')",
    "action": "ConfirmShipment",
    "order_id": "after.order_no",
    "event_time": "after.updated_at",
}


def changed(order: str, note: str) -> bytes:
    """Return an order's row as a CDC connector repeats it with each later change."""
    after = {"order_no": order, "status": "SHIPPED", "updated_at": int(time.time() * 1000), "note": note}
    return json.dumps({"before": None, "after": after, "op": "u"}).encode()


def test_a_state_that_a_producer_repeats_is_mailed_once_also_over_a_restart(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=2)
    publish(sandbox, [(A, changed(A, "sent")), (A, changed(A, "address corrected")), (B, changed(B, "sent"))])
    with Engage() as engage:
        for order in (A, B, C):
            engage.submit(order)
        config = written(tmp_path, configuration(sandbox, engage.url, routes={"cdc": CDC}) | {"repeats": "1h"})
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: len(engage.accepted) == 2, "each order is told once")
            until(lambda: stopped(relay, "repeat") == 1, "the repeated state is a repeat")
            assert relay.stop() == 0
        publish(sandbox, [(A, changed(A, "gift wrapped")), (C, changed(C, "sent")), (B, changed(B, "again"))])
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: engage.accepted_of(C), "what is news is sent")
            until(lambda: stopped(relay, "repeat") == 2, "what was sent before the restart is known")
            assert relay.metric("facts_lost_total") == 0
            assert relay.stop() == 0
        assert [len(engage.accepted_of(order)) for order in (A, B, C)] == [1, 1, 1]


@pytest.mark.long
def test_what_waits_parked_is_parked_again_by_a_restart_that_knows_its_repeats(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    """With `repeats`, the default, a restart held all that was pending, whatever memory that took."""
    sandbox = sandboxes()
    orders = [order_id(number) for number in range(30)]
    with Engage(faults=("hang=1,calls=job",)) as engage:
        events = [(order, event(order, engage={"jobId": engage.submit(order)})) for order in orders]
        publish(sandbox, events)
        config = written(tmp_path, configuration(sandbox, engage.url, limits={"pending": 10}) | {"repeats": "1h"})
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: relay.metric("parked_actions") == 20, "what is beyond the limit is parked")
            assert relay.stop() == 0
        publish(sandbox, events)
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: stopped(relay, "repeat") == len(orders), "all of them are known")
            until(lambda: relay.metric("parked_actions") == 20, "it holds what has room, and no more")
            engage.set_faults()
            until(lambda: len(engage.accepted) == len(orders), "what was parked comes back")
            assert relay.stop() == 0
        assert [len(engage.accepted_of(order)) for order in orders] == [1] * len(orders)


def test_where_nobody_knows_what_was_sent_the_relay_says_so_and_goes_on(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes()
    publish(sandbox, [(A, event(A)), (A, event(A))])
    with Engage() as engage:
        engage.submit(A)
        outcomes: dict[str, object] = {"topic": "none"}
        config = written(tmp_path, configuration(sandbox, engage.url, outcomes=outcomes) | {"repeats": "1h"})
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: stopped(relay, "repeat") == 1, "what this instance itself sent is known")
            assert relay.metric("facts_lost_total") == 1
            until(lambda: engage.accepted, "the first one is sent")
            assert relay.stop() == 0
        assert len(engage.accepted) == 1


def test_an_outcomes_topic_that_was_created_again_is_said_once(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    """It is empty: what it said was sent would be sent again, and nobody would know why."""
    sandbox = sandboxes()
    topic = sandbox.topics.outcomes or ""
    publish(sandbox, [(A, event(A))])
    with Engage() as engage:
        for order in (A, B):
            engage.submit(order)
        config = written(tmp_path, configuration(sandbox, engage.url) | {"repeats": "1h"})
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: engage.accepted_of(A), "it is sent")
            assert relay.stop() == 0
        sandbox.admin.delete_topics([topic])[topic].result(10)
        until(lambda: not partition_counts(sandbox.admin, [topic]), "the topic is deleted")
        relay_topics(sandbox.admin, sandbox.topics.source)
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: relay.metric("facts_lost_total") == 1, "the loss is counted")
            (said,) = relay.said("nobody knows which facts were sent before: their repeats may be sent")
            assert said["why"] == f"{topic}[0] was deleted and created again"
            publish(sandbox, [(A, event(A)), (B, event(B))])
            until(lambda: len(engage.accepted_of(A)) == 2, "the promise is void, the relay goes on")
            until(lambda: engage.accepted_of(B), "what is news is sent")
            assert relay.stop() == 0
        publish(sandbox, [(B, event(B))])
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: stopped(relay, "repeat") == 1, "what was sent since is known")
            assert relay.metric("facts_lost_total") == 0
            assert relay.stop() == 0
