"""A rolling change of `group.protocol`, there and back: whoever is let in serves, whoever is not ends and says so.

A broker refuses to turn a classic group into one of the newer protocol while a classic member is in it (the assignor's
data would be lost). The newer member's error is fatal then; the next start tries again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.broker import KafkaBroker, started
from tests.support.engage import Engage
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import SandboxFactory
from tests.support.supervised import Supervised, all_accepted, published
from tests.support.waiting import until

SESSION_S = 6.0  # the newer protocol takes the broker's (tests/support/broker.py)
SERVED_WITHIN_S = SESSION_S + 10.0
PROTOCOLS: Mapping[str, Mapping[str, object]] = {
    "classic": {"session.timeout.ms": int(1000 * SESSION_S), "heartbeat.interval.ms": 500},
    "consumer": {"group.protocol": "consumer"},
}
INSTANCES = 2


def let_in_or_refused(relay: Supervised, starts: int) -> bool:
    """Whether the group let it in, or it was started again since."""
    relay.look_after()
    return relay.starts > starts or relay.ready


def all_let_in(relays: Sequence[Supervised]) -> bool:
    for each in relays:
        each.look_after()
    return all(each.ready for each in relays)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("killed", [False, True], ids=["SIGTERM", "kill -9"])
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_rolling_change_of_the_protocol_there_and_back_leaves_nothing_behind(
    sandboxes: SandboxFactory, tmp_path: Path, static: bool, killed: bool
) -> None:
    sandbox = sandboxes(partitions=3)

    def kafka(protocol: str, number: int) -> dict[str, object]:
        return {**PROTOCOLS[protocol], **({"group.instance.id": f"relay-{number}"} if static else {})}

    with Engage() as engage, ExitStack() as running:
        relays = [
            running.enter_context(Supervised(tmp_path, sandbox, engage, kafka("classic", number)))
            for number in range(INSTANCES)
        ]
        orders = published(sandbox, engage)
        until(partial(all_accepted, engage, orders, relays), "all partitions are served")
        for protocol in ("consumer", "classic"):
            for number, relay in enumerate(relays):
                relay.end(killed=killed)
                relay.configure(kafka(protocol, number))
                starts, since = relay.starts, time.monotonic()
                orders = published(sandbox, engage)
                until(partial(all_accepted, engage, orders, relays), f"{number} is {protocol}: all are served")
                served_s = time.monotonic() - since
                assert served_s <= SERVED_WITHIN_S
                until(partial(let_in_or_refused, relay, starts), f"{number} is let in, or ends", SERVED_WITHIN_S)
            until(partial(all_let_in, relays), f"all are {protocol} and let in", SERVED_WITHIN_S)
        orders = published(sandbox, engage)
        until(partial(all_accepted, engage, orders, relays), "all partitions are served in the end")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_brokers_that_do_not_know_the_newer_protocol_are_suspected_by_name(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    broker = started(KafkaBroker(version="3.9.1"))
    try:
        sandbox = sandboxes(broker=broker)
        with Engage() as engage:
            file = written(tmp_path, configuration(sandbox, engage.url, kafka={"group.protocol": "consumer"}))
            with RelayProcess(tmp_path, file, "--from", "earliest") as relay:
                until(lambda: "`group.protocol: consumer`" in relay.get("/readyz")[1], "it says why", patience_s=120)
                assert any("`group.protocol: consumer`" in str(each["why"]) for each in relay.said("Kafka"))
    finally:
        broker.close()
