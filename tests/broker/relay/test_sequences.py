"""An order's sequence in a whole relay: what a later event withdraws, and which step comes too late. Over restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.kafka.outcomes.outcomes import read_outcome
from schemas.outcome import Outcome
from tests.broker.commands.test_guards import stopped
from tests.broker.commands.test_orders import calls, order, states
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

A, B, C = (order_id(name) for name in "ABC")
NO_JOB = ("hang=1,calls=job",)
CONFIRMED = BUILT_IN_ROUTES["confirmed"].model_dump(exclude_unset=True) | {"superseded_by": ["cancelled"]}


def config_of(folder: Path, sandbox: Sandbox, engage: Engage, **sections: Mapping[str, object]) -> Path:
    """Return a configuration in which the cancellation takes the confirmation's place."""
    return written(folder, configuration(sandbox, engage.url, routes={"confirmed": CONFIRMED}, **sections))


def confirmed(order: str, engage: Engage) -> tuple[str, bytes]:
    return order, event(order, 1, kind="order.confirmed", engage={"jobId": engage.submit(order)})


def cancelled(order: str) -> tuple[str, bytes]:
    return order, event(order, 2, kind="order.cancelled")


def outcomes(sandbox: Sandbox) -> dict[tuple[str | None, str | None], Outcome]:
    """Return what became of each action, by order and action."""
    found = [read_outcome(record.value() or b"") for record in sandbox.read(sandbox.topics.outcomes or "")]
    return {(each.order_id, each.action): each for each in found if isinstance(each, Outcome)}


def test_a_confirmation_that_waits_is_withdrawn_when_its_order_is_cancelled_also_after_a_restart(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=2)
    with Engage(faults=NO_JOB) as engage:
        config = config_of(tmp_path, sandbox, engage)
        publish(sandbox, [confirmed(each, engage) for each in (A, B, C)])
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: relay.metric("pending_actions") == 3, "all three wait")
            publish(sandbox, [cancelled(A)])
            until(lambda: engage.events_of(A) == [2], "the cancellation does not wait for the confirmation")
            assert stopped(relay, "superseded") == 1
            assert relay.stop() == 0
        publish(sandbox, [cancelled(B)])
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: engage.events_of(B) == [2], "what was pending before the restart is withdrawn")
            engage.set_faults()
            until(lambda: engage.events_of(C) == [1], "an order that is not cancelled is confirmed")
            assert relay.stop() == 0
        assert [engage.events_of(each) for each in (A, B, C)] == [[2], [2], [1]]
    ended = outcomes(sandbox)
    assert {ended[each, "ConfirmOrder"].outcome for each in (A, B)} == {"superseded"}
    assert (ended[A, "ConfirmOrder"].reason or "").startswith("by route cancelled, offset ")
    environment = {"ENGAGE_RELAY__ROUTES": json.dumps({"confirmed": CONFIRMED})}
    told = order(sandbox, A, **environment)
    assert [each[:2] for each in states(told)] == [("ConfirmOrder", "superseded"), ("ConfirmCancellation", "accepted")]
    reconciled = calls(sandbox, "reconcile", "--since", "1d", **environment)
    assert reconciled.exit_code == 0, reconciled.output


@pytest.mark.long
def test_a_confirmation_that_is_parked_is_withdrawn_by_a_cancellation_that_is_parked_behind_it(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    """It is read back first, while nothing in memory knows of the cancellation but its mark. Over a restart, too."""
    sandbox = sandboxes()
    orders = [order_id(number) for number in range(30)]
    with Engage(faults=NO_JOB) as engage:
        config = config_of(tmp_path, sandbox, engage, limits={"pending": 10})
        publish(sandbox, [confirmed(each, engage) for each in orders])
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: relay.metric("parked_actions") == 20, "what is beyond the limit is parked")
            publish(sandbox, [cancelled(each) for each in orders[15:]])
            until(lambda: relay.metric("parked_actions") == 35, "the cancellations are parked behind it")
            assert relay.stop() == 0
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: relay.metric("parked_actions") >= 30, "they are parked again")
            engage.set_faults()
            until(lambda: len(engage.accepted) == len(orders), "each order hears of one thing")
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending any more")
            assert stopped(relay, "superseded") == 15
            assert relay.stop() == 0
        assert [engage.events_of(each) for each in orders] == [[1]] * 15 + [[2]] * 15


def test_a_producer_that_writes_an_order_backwards_mails_no_step_behind_a_later_one(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=2)
    steps = {"steps": ["ConfirmOrder", "ConfirmShipment", "ConfirmDelivery"]}
    with Engage() as engage:
        for each in (A, B, C):
            engage.submit(each)
        config = written(tmp_path, configuration(sandbox, engage.url) | steps)
        backwards = [(A, event(A, number)) for number in (3, 1)]
        publish(sandbox, [*backwards, (B, event(B, 3))])
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: stopped(relay, "out_of_sequence") == 1, "the confirmation comes too late")
            until(lambda: engage.events_of(B) == [3], "the delivery is sent")
            assert relay.stop() == 0
        publish(sandbox, [(A, event(A, 2)), (B, event(B, 1)), (C, event(C, 1)), (C, event(C, 2))])
        with RelayProcess(tmp_path, config) as relay:
            until(lambda: stopped(relay, "out_of_sequence") == 2, "what was sent before the restart is known")
            until(lambda: engage.events_of(C) == [1, 2], "steps forwards are sent")
            assert relay.metric("facts_lost_total") == 0
            assert relay.stop() == 0
        assert [engage.events_of(each) for each in (A, B, C)] == [[3], [3], [1, 2]]
    ended = outcomes(sandbox)
    late = [ended[A, "ConfirmOrder"], ended[A, "ConfirmShipment"], ended[B, "ConfirmOrder"]]
    assert [(each.outcome, each.reason) for each in late] == [
        ("out_of_sequence", "ConfirmDelivery was sent before")
    ] * 3
    reconciled = calls(sandbox, "reconcile", "--since", "1d")
    assert reconciled.exit_code == 0, reconciled.output
