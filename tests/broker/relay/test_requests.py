"""What people ask for single actions, on a real broker: carried out once, whoever dies meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumer.commands.cli import app
from consumer.core.requests import Request
from consumer.kafka.control.control import Record, read_controls, write_controls
from consumer.kafka.control.records import request_key, request_value
from consumer.relay.turns import MAX_PENDING
from tests.support.engage import API_KEY, Asked, Engage, Reply, ScriptedEngage, tagged_order
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory, control_topic
from tests.support.waiting import until

WHY = ("--reason", "the customer asked")


class Shop:
    """Relays of one configuration, and somebody at a shell."""

    def __init__(
        self, sandbox: Sandbox, engage: Engage | ScriptedEngage, directory: Path, **sections: dict[str, object]
    ) -> None:
        self.sandbox = sandbox
        self._directory = directory
        self._config = written(directory, configuration(sandbox, engage.url, **sections))

    def relay(self) -> RelayProcess:
        return RelayProcess(self._directory, self._config, "--from", "earliest")

    def calls(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--config", str(self._config)])
        assert result.exit_code == code, result.output
        return result

    def sums(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.calls("reconcile", "--json").stdout.splitlines()[-1])["sums"]
        return found


def test_what_is_accepted_is_sent_again_once_for_each_request(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    order = order_id(1)
    with Engage() as engage:
        shop = Shop(sandboxes(), engage, tmp_path)
        publish(shop.sandbox, [(order, event(order, engage={"jobId": engage.submit(order)}))])
        with shop.relay() as relay:
            until(lambda: len(engage.accepted) == 1, "it is accepted")
            until(lambda: "Engage accepted it" in shop.calls("order", order).stdout, "its outcome is written")
            asked = shop.calls("resend", order, *WHY)
            assert "it is saved, and its versionTag is polled for next" in asked.stdout
            until(lambda: len(engage.accepted) == 2, "it is accepted again")
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending")
            assert relay.stop() == 0
        with shop.relay() as relay:
            relay.wait_until_ready()
            until(lambda: relay.metric("partitions_owned") == 1, "it owns the partition again")
            assert relay.stop() == 0
        assert [each.order_id for each in engage.accepted] == [order, order]
        told = shop.calls("order", order).stdout
        assert told.count("Engage accepted it") == 2
        assert "asked for by resend" in told
        assert "(the customer asked)" in told
        assert (shop.sums()["ends"], shop.sums()["again"]) == ({"accepted": 1}, 1)


@pytest.mark.long
def test_a_pending_action_is_hastened_or_dropped(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    hastened, dropped = order_id(1), order_id(2)
    with Engage() as engage:
        shop = Shop(sandboxes(), engage, tmp_path, polling={"initial": "1h", "max_interval": "1h"})
        publish(
            shop.sandbox, [(each, event(each, engage={"jobId": engage.submit(each)})) for each in (hastened, dropped)]
        )
        with shop.relay() as relay:
            relay.wait_until_ready()
            until(lambda: relay.metric("pending_actions") == 2, "both are pending")
            assert "polled for now" in shop.calls("pending", "retry-now", "0:0", *WHY).stdout
            until(lambda: len(engage.accepted) == 1, "the first one is sent")
            assert "it was dropped" in shop.calls("pending", "drop", "0:1", *WHY).stdout
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending")
            refused = shop.calls("pending", "drop", "0:1", *WHY, code=2)
            assert "nothing is pending of this event" in refused.stderr
            assert relay.stop() == 0
        assert [each.order_id for each in engage.accepted] == [hastened]
        assert "nothing was sent: dropped (request" in shop.calls("order", dropped).stdout
        assert shop.sums()["ends"] == {"accepted": 1, "dropped": 1}


@pytest.mark.long
def test_who_drops_what_engage_may_have_is_told_how_it_ended(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    order = order_id(1)

    def failing(asked: Asked) -> Reply:
        return Reply(500) if asked.method == "POST" else tagged_order(asked)

    with ScriptedEngage(failing) as engage:
        shop = Shop(sandboxes(), engage, tmp_path, connection={"timeout": "1s"})
        publish(shop.sandbox, [(order, event(order))])
        with shop.relay() as relay:
            until(lambda: relay.metric("in_doubt_actions") == 1, "it is in doubt")
            told = shop.calls("pending", "drop", "0:0", *WHY).stdout
            assert "it ended as a dead letter: Engage may have had it" in told
            assert relay.stop() == 0
        assert shop.sums()["ends"] == {"dead_letter": 1}


def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    order, twice = order_id(1), order_id(2)
    with Engage() as engage:
        shop = Shop(sandboxes(), engage, tmp_path)
        events = [(order, event(order)), (twice, event(twice)), (twice, event(twice, kind="order.shipped"))]
        for each in (order, twice):
            engage.submit(each)
        publish(shop.sandbox, events)
        with shop.relay() as relay:
            until(lambda: len(engage.accepted) == 3, "all are accepted")
            for arguments, why in (
                (("resend", "nobody", *WHY), "nothing found"),
                (("resend", order, *WHY, "--partition", "7"), "has the partitions 0 to 0"),
                (("resend", twice, *WHY), "name one with --action, --route or --event"),
                (("resend", order, *WHY, "--event", "0:1"), "has no such action"),
                (("resend", order, *WHY, "--action", "ConfirmX"), "is not configured"),
                (("resend", order, "--reason", " "), "say why"),
                (("resend", order, "--reason", "x" * 201), "at most 200 characters"),
                (("pending", "drop", "0:0", *WHY), "nothing is pending"),
                (("pending", "retry-now", "0-0", *WHY), "must be TOPIC/PARTITION/OFFSET"),
            ):
                assert why in shop.calls(*arguments, code=2).stderr
            assert relay.stop() == 0
        publish(shop.sandbox, [(order, event(order))])
        assert "has not read its event yet" in shop.calls("resend", order, *WHY, "--event", "0:3", code=2).stderr
        assert shop.sandbox.read(control_topic(shop.sandbox.properties["group.id"])) == []


def resend_of(sandbox: Sandbox, offset: int, partition: int = 0) -> Request:
    return Request(
        id=f"{partition}-{offset:04}",
        what="send_again",
        topic=sandbox.topics.source,
        partition=partition,
        offset=offset,
        reason="a test",
        asked_by="resend",
        asked=time.time(),
    )


@pytest.mark.long
def test_orders_that_are_never_ready_keep_no_other_request_waiting(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    never_ready, other = [order_id(number) for number in range(MAX_PENDING + 3)], order_id(99)
    closed = threading.Event()

    def until_closed(asked: Asked) -> Reply:
        return Reply(200, {"orderId": "any"}) if closed.is_set() and asked.method == "GET" else tagged_order(asked)

    sandbox = sandboxes()
    with ScriptedEngage(until_closed) as theirs, ScriptedEngage(tagged_order) as ours:
        shop = {"api_key": API_KEY, "requests_per_second": 400}
        connections = {"theirs": {"base_url": theirs.url, **shop}, "ours": {"base_url": ours.url, **shop}}
        config = written(tmp_path, configuration(sandbox, ours.url, engage={"connections": connections}))
        events = [(each, event(each, engage={"connection": "theirs"})) for each in never_ready]
        publish(sandbox, [*events, (other, event(other, engage={"connection": "ours"}))])
        topic, properties = control_topic(sandbox.properties["group.id"]), sandbox.properties
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: len(theirs.actions() + ours.actions()) == len(never_ready) + 1, "all are accepted")
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending")
            closed.set()
            requests = [resend_of(sandbox, offset) for offset in range(len(never_ready) + 1)]
            write_controls(properties, topic, [Record(request_key(each), request_value(each)) for each in requests])
            until(lambda: len(ours.actions()) == 2, "the other one is accepted again")
            until(lambda: not read_controls(properties, topic).requests, "all requests are answered")
            until(lambda: relay.metric("pending_actions") == len(never_ready), "theirs are pending")
            assert relay.stop() == 0


def held(sandbox: Sandbox, what: bytes) -> int:
    """Count the records of the delay topic that begin with this."""
    return sum(
        what in (value or b"")[:40]
        for partition in range(sandbox.partitions)
        for value in dict(sandbox.pairs(sandbox.topics.delay, partition)).values()
    )


def test_two_relays_of_which_one_is_killed_carry_each_request_out_once(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    orders = [order_id(number) for number in range(40)]
    with Engage(seed=3, processing="uniform:0s..200ms") as engage:
        sandbox = sandboxes(partitions=2)
        shop = Shop(sandbox, engage, tmp_path, kafka={"session.timeout.ms": 6000, "heartbeat.interval.ms": 500})
        publish(sandbox, [(each, event(each, engage={"jobId": engage.submit(each)})) for each in orders])
        topic, properties = control_topic(sandbox.properties["group.id"]), sandbox.properties
        with shop.relay() as first, shop.relay() as second:
            until(lambda: len(engage.accepted) == len(orders), "all are accepted")
            until(lambda: first.partitions == second.partitions == 1, "each owns a partition")
            requests = [
                resend_of(sandbox, record.offset() or 0, partition)
                for partition in range(2)
                for record in sandbox.read(sandbox.topics.source, partition)
            ]
            write_controls(properties, topic, [Record(request_key(each), request_value(each)) for each in requests])
            until(lambda: len(engage.accepted) >= len(orders) + 8, "some are accepted again")
            first.kill()
            in_doubt = held(sandbox, b'"state":"sending"')
            until(lambda: not read_controls(properties, topic).requests, "all are answered")
            until(
                lambda: not held(sandbox, b'"state":"'), "nothing is pending, nor in doubt of the one that was killed"
            )
            assert second.stop() == 0
        answers = read_controls(properties, topic).answered.values()
        assert len(answers) == len(orders)
        assert all(each.answer.is_done for each in answers), answers
        times = Counter(each.order_id for each in engage.accepted)
        assert set(times) == set(orders)
        assert min(times.values()) == 2
        print(
            f"{len(orders)} requests, one kill: {in_doubt} in doubt, {sum(times.values()) - 2 * len(orders)} once more"
        )
        assert sum(times.values()) <= 2 * len(orders) + in_doubt
        assert shop.sums()["again"] == len(orders)
