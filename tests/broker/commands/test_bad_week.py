"""A merchant's bad week: all that goes wrong at shops, one after the other, and who hears of what in the end.

The producer writes everything twice and some orders out of order, old orders are imported, a template is wrong over a
restart, an order is cancelled while its confirmation waits, an order names no contact, a customer deletes the mail.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumer.commands.cli import app
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

IMPORTED = 5000
ORDERS = [order_id(number) for number in range(40)]
BACKWARDS = ORDERS[::8]  # their shipment is written before their confirmation
CANCELLED, NO_CONTACT = order_id("cancelled"), order_id("no-contact")
CONFIRMED = BUILT_IN_ROUTES["confirmed"].model_dump(exclude_unset=True) | {"superseded_by": ["cancelled"]}
GUARDS = {
    "repeats": "24h",
    "max_age": "7d",
    "too_old": "ignore",
    "steps": ["ConfirmOrder", "ConfirmShipment", "ConfirmDelivery"],
    "routes": {"confirmed": CONFIRMED},
}
QUICK_TAKEOVER = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
QUICK_ANSWERS = {"timeout": "2s", "action_timeout": "2s"}
PAUSED = 'engage_relay_pending_actions{state="paused"}'


class Shop:
    """A merchant with a relay, somebody at a shell, and a producer that writes everything twice."""

    def __init__(self, sandbox: Sandbox, engage: Engage, directory: Path) -> None:
        self.sandbox = sandbox
        self.engage = engage
        self._directory = directory
        self._config = written(
            directory, configuration(sandbox, engage.url, kafka=QUICK_TAKEOVER, connection=QUICK_ANSWERS) | GUARDS
        )

    def relay(self) -> RelayProcess:
        return RelayProcess(self._directory, self._config, "--from", "earliest", impatient=True)

    def calls(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--config", str(self._config)])
        assert result.exit_code == 0, result.output
        return result

    def publish(self, events: Iterable[tuple[str, bytes]]) -> None:
        publish(self.sandbox, [each for each in events for _ in range(2)])

    def told(self, order: str) -> list[tuple[str, str, str | None]]:
        """Return what became of each event of an order: action, state, reason."""
        timeline = json.loads(self.calls("order", order, "--json").stdout)
        return [(each["action"], each["state"], each["reason"]) for each in timeline["entries"]]

    def mails(self, order: str) -> list[str]:
        """Return the actions that Engage accepted for an order."""
        return [each.action for each in self.engage.accepted if each.order_id == order]


def paused(relay: RelayProcess) -> int:
    rows = dict(line.rsplit(" ", 1) for line in relay.get("/metrics")[1].splitlines() if not line.startswith("#"))
    return int(float(rows.get(PAUSED, 0)))


def imported(count: int) -> Iterable[tuple[str, bytes]]:
    """Yield orders of last year, as an import writes them."""
    then = (datetime.now(UTC) - timedelta(days=300)).isoformat()
    for number in range(count):
        order = order_id(f"imported-{number}")
        yield order, event(order, 1 + number % 3, occurredAt=then)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_after_a_bad_week_nobody_was_mailed_twice_and_each_mail_not_sent_has_its_reason(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    with Engage() as engage:
        shop = Shop(sandboxes(partitions=3), engage, tmp_path)
        for each in ORDERS:
            engage.submit(each)
        with shop.relay() as relay:
            # Monday: an import, and confirmations.
            shop.publish(imported(IMPORTED))
            shop.publish((each, event(each, 1)) for each in ORDERS if each not in BACKWARDS)
            until(lambda: len(engage.accepted) == len(ORDERS) - len(BACKWARDS), "new orders are confirmed")

            # Tuesday: the template of shipments is wrong.
            shop.calls("pause", "--action", "ConfirmShipment", "--reason", "a wrong template")
            shop.publish((each, event(each, 2)) for each in ORDERS)
            until(lambda: paused(relay) == len(ORDERS), "shipments are on hold")
            relay.kill()
        with shop.relay() as relay:
            until(lambda: paused(relay) == len(ORDERS), "over a restart, too")
            assert not any("ConfirmShipment" in shop.mails(each) for each in ORDERS)
            shop.calls("resume", "--action", "ConfirmShipment", "--reason", "the template is right")
            until(lambda: all("ConfirmShipment" in shop.mails(each) for each in ORDERS), "then they are sent")

            # Wednesday: confirmations that come behind their shipments; deliveries.
            shop.publish((each, event(each, 1)) for each in BACKWARDS)
            shop.publish((each, event(each, 3)) for each in ORDERS)
            until(lambda: all("ConfirmDelivery" in shop.mails(each) for each in ORDERS), "all are delivered")

            # Thursday: an order is cancelled while its confirmation waits for Engage.
            engage.set_faults("hang=1,calls=job")
            job = engage.submit(CANCELLED)
            shop.publish([(CANCELLED, event(CANCELLED, 1, engage={"jobId": job}))])
            until(lambda: relay.metric("pending_actions") == 1, "the confirmation waits")
            shop.publish([(CANCELLED, event(CANCELLED, 2, kind="order.cancelled"))])
            until(lambda: shop.mails(CANCELLED) == ["ConfirmCancellation"], "the cancellation does not")
            engage.set_faults()

            # Friday: an order names no contact. The shop writes it again, and the event is redriven.
            engage.submit(NO_CONTACT, contact=False)
            shop.publish([(NO_CONTACT, event(NO_CONTACT, 1))])
            until(lambda: relay.metric("dead_letters_total") == 1, "there is no contact")
            engage.submit(NO_CONTACT)
            shop.calls("dead-letters", "redrive", "--reason", "no_contact", "--yes")
            until(lambda: shop.mails(NO_CONTACT) == ["ConfirmOrder"], "the redriven event is sent")

            # Saturday: a customer deleted the mail.
            shop.calls("resend", ORDERS[1], "--action", "ConfirmShipment", "--reason", "the customer deleted the mail")
            until(lambda: shop.mails(ORDERS[1]).count("ConfirmShipment") == 2, "it is sent again")
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending")
            assert relay.stop() == 0

        # Sunday: does it add up?
        sums = json.loads(shop.calls("reconcile", "--since", "1d", "--json").stdout.splitlines()[-1])["sums"]
        mails = Counter((each.order_id, each.action) for each in engage.accepted)
        assert {each for each, times in mails.items() if times > 1} == {(ORDERS[1], "ConfirmShipment")}
        assert not any("imported" in order for order, _ in mails)
        for each in ORDERS:
            steps = ["ConfirmShipment", "ConfirmDelivery"]
            again = ["ConfirmShipment"] if each == ORDERS[1] else []
            assert shop.mails(each) == ([] if each in BACKWARDS else ["ConfirmOrder"]) + steps + again
        assert sums["problems"] == 0
        assert sums["events"] == 2 * (IMPORTED + 3 * len(ORDERS) + 3)
        # Each mail that was not sent, and why.
        sent = 3 * len(ORDERS) - len(BACKWARDS) + 2
        assert sums["ends"] == {
            "accepted": sent,
            "repeat": sent + 1,
            "too_old": 2 * IMPORTED,
            "out_of_sequence": 2 * len(BACKWARDS),
            "superseded": 1,
        }
        assert sums["again"] == 2  # the redriven one, and the resent one
        assert shop.told(BACKWARDS[0])[2:4] == [
            ("ConfirmOrder", "out_of_sequence", "ConfirmShipment was sent before"),
            ("ConfirmOrder", "out_of_sequence", "ConfirmShipment was sent before"),
        ]
        assert [state for _, state, _ in shop.told(CANCELLED)] == ["superseded", "repeat", "accepted", "repeat"]
        assert [state for _, state, _ in shop.told(ORDERS[2])] == 3 * ["accepted", "repeat"]
