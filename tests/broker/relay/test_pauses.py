"""Quiet mode on a real broker: what is paused stays so over a restart, and is sent when it is resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumer.commands.cli import app
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory, control_topic
from tests.support.waiting import until

WHY = ("--reason", "a wrong template")
PAUSED = 'engage_relay_pending_actions{state="paused"}'


class Shop:
    """A relay's configuration, and somebody at a shell."""

    def __init__(self, sandbox: Sandbox, engage: Engage, directory: Path) -> None:
        self.sandbox = sandbox
        self._directory = directory
        self._config = written(directory, configuration(sandbox, engage.url))

    def relay(self) -> RelayProcess:
        return RelayProcess(self._directory, self._config, "--from", "earliest")

    def calls(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--config", str(self._config)])
        assert result.exit_code == 0, result.output
        return result


def series(relay: RelayProcess, name: str) -> float:
    """Return the value of one series."""
    rows = (line.rsplit(" ", 1) for line in relay.get("/metrics")[1].splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in rows}.get(name, 0.0)


@pytest.mark.long
def test_what_is_on_hold_waits_over_a_restart_and_is_sent_when_it_is_resumed(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    with Engage() as engage:
        shop = Shop(sandboxes(), engage, tmp_path)
        orders = [order_id(number) for number in range(3)]
        for each in orders:
            engage.submit(each)
        shop.calls("pause", *WHY)
        publish(shop.sandbox, [(each, event(each)) for each in orders])
        with relay_on_hold(shop, 3) as relay:
            attention = json.loads(relay.get("/status.json")[1])["attention"]
            assert any("a wrong template" in line for line in attention)
            assert relay.stop() == 0
        with relay_on_hold(shop, 3) as relay:
            assert engage.requests.total() == 0
            (pause,) = json.loads(relay.get("/status.json")[1])["pauses"]
            checked = CliRunner().invoke(app, ["status", "--check", "--url", f"http://127.0.0.1:{relay.admin_port}"])
            assert (checked.exit_code, checked.stdout) == (0, "")
            assert "paused (hold): everything: a wrong template" in checked.stderr
            shown = json.loads(shop.calls("pending", "show", "0:0", "--json").stdout)
            assert shown["paused"] == f"pause {pause['id']}: a wrong template"
            told = shop.calls("order", orders[0]).stdout
            assert f"it is on hold by pause {pause['id']}: a wrong template" in told
            assert "3 pending (3 on hold), 0 that do not add up" in shop.calls("reconcile").stdout
            shop.calls("resume", "--reason", "it is right again")
            until(lambda: len(engage.accepted) == 3, "what was on hold is sent")
            until(lambda: relay.metric("pauses") == 0, "the relay knows of no pause")
            assert relay.stop() == 0
        assert {each.order_id for each in engage.accepted} == set(orders)


def relay_on_hold(shop: Shop, count: int) -> RelayProcess:
    """Start a relay, and wait until so many actions are on hold."""
    relay = shop.relay()
    relay.wait_until_ready()
    until(lambda: series(relay, PAUSED) == count, "they are on hold")
    assert relay.metric("pauses") == 1
    return relay


def test_what_is_discarded_ends_as_withheld_and_all_else_is_sent(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    with Engage() as engage:
        shop = Shop(sandboxes(), engage, tmp_path)
        shipped, confirmed = order_id(1), order_id(2)
        for each in (shipped, confirmed):
            engage.submit(each)
        with shop.relay() as relay:
            relay.wait_until_ready()
            made = shop.calls("pause", *WHY, "--action", "ConfirmShipment", "--discard", "--yes").stdout
            until(lambda: relay.metric("pauses") == 1, "the relay knows of the pause")
            publish(
                shop.sandbox,
                [
                    (shipped, event(shipped, kind="order.shipped")),
                    (confirmed, event(confirmed, kind="order.confirmed")),
                ],
            )
            until(lambda: relay.metric("actions_stopped_total") == 1, "one is discarded")
            until(lambda: len(engage.accepted) == 1, "the other one is sent")
            shop.calls("resume", *WHY)
            until(lambda: relay.metric("pauses") == 0, "the relay knows of no pause")
            assert relay.stop() == 0
        assert [each.order_id for each in engage.accepted] == [confirmed]
        pause = made.partition(":")[0]
        assert f"withheld (pause {pause}: a wrong template)" in shop.calls("order", shipped).stdout
        sums = json.loads(shop.calls("reconcile", "--json").stdout.splitlines()[-1])["sums"]
        assert sums["ends"] == {"withheld": 1, "accepted": 1}
        first_reasons = sums["reasons"]
        with shop.relay() as relay:
            relay.wait_until_ready()
            told = shop.calls("resend", "--withheld", *WHY, "--yes").stdout
            assert "it is saved" in told
            until(lambda: len(engage.accepted) == 2, "what was discarded is sent after all")
            until(lambda: relay.metric("pending_actions") == 0, "nothing is pending")
            assert "nothing was discarded" in shop.calls("resend", "--withheld", *WHY).stderr
            assert relay.stop() == 0
        sums = json.loads(shop.calls("reconcile", "--json").stdout.splitlines()[-1])["sums"]
        assert (sums["ends"], sums["again"], sums["reasons"]) == ({"accepted": 2}, 1, {})
        assert first_reasons == {f"pause {pause}: a wrong template": 1}


def test_a_record_that_nobody_can_read_is_counted_and_holds_nothing(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    with Engage() as engage:
        shop = Shop(sandboxes(), engage, tmp_path)
        engage.submit(order_id(1))
        control = control_topic(shop.sandbox.properties["group.id"])
        shop.sandbox.write(control, [(b"pause/x", b"{"), (b"pause/y", b'{"version": 9}')])
        with shop.relay() as relay:
            relay.wait_until_ready()
            publish(shop.sandbox, [(order_id(1), event(order_id(1)))])
            until(lambda: len(engage.accepted) == 1, "it is sent")
            until(lambda: relay.metric("control_records_unreadable") == 2, "both are counted")
            assert relay.stop() == 0
