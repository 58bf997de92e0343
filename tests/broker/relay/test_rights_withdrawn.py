"""Rights that are withdrawn and given back: the relay serves again by itself, or ends, so that its next start serves.

It never stays in between: Ready, and consuming nothing for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from consumer.kafka.source.membership import MIN_HAND_OVER_S
from tests.broker.relay.test_security import rights
from tests.support.broker import started
from tests.support.engage import Engage
from tests.support.figures import Figures, Scale
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.secured import Certificates, Right, SecuredBroker
from tests.support.supervised import Supervised, all_accepted, published
from tests.support.waiting import until

PASSWORD = "pass-word-of-the-relay"
SESSION_S = 6.0  # the newer protocol takes the broker's (tests/support/broker.py)
SERVED_WITHIN_S = SESSION_S + 10.0
# A fatal error ends the process after its hand-over, which takes all its time where the group takes no offsets.
ENDED_WITHIN_S = SERVED_WITHIN_S + MIN_HAND_OVER_S
SHORTLY_S, BEYOND_THE_SESSION_S = 2.0, 15.0
PROTOCOLS: Mapping[str, Mapping[str, object]] = {
    "classic": {"session.timeout.ms": int(1000 * SESSION_S), "heartbeat.interval.ms": 500},
    "consumer": {"group.protocol": "consumer"},
}
MEMBERS: Mapping[str, Mapping[str, object]] = {"dynamic": {}, "static": {"group.instance.id": "relay-0"}}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    secured = SecuredBroker(Certificates.issue(tmp_path_factory.mktemp("tls")))
    started(secured.broker)
    secured.set_password(PASSWORD)
    yield secured
    secured.broker.close()


def of_kind(what: str, sandbox: Sandbox) -> list[Right]:
    """Return the rights of `run` on this kind of resource, or on this topic."""
    topic = {"the source": sandbox.topics.source, "the delay topic": sandbox.topics.delay}.get(what)
    found = [each for each in rights("run", sandbox) if (each.name == topic if topic else each.resource == what)]
    assert found, what
    return found


def survived(
    secured: SecuredBroker,
    sandbox: Sandbox,
    directory: Path,
    kafka: Mapping[str, object],
    *,
    what: str,
    for_s: float,
) -> None:
    """Withdraw rights from a relay at work and give them back: it serves everything in time."""
    secured.grant(*rights("run", sandbox))
    kafka = {**secured.scram(PASSWORD), **kafka}
    with Engage() as engage, Supervised(directory, sandbox, engage, kafka) as relay:
        until(partial(all_accepted, engage, published(sandbox, engage), [relay]), "it serves")
        secured.withdraw(*of_kind(what, sandbox))
        orders = published(sandbox, engage)
        back_at = time.monotonic() + for_s

        def time_is_over() -> bool:
            relay.look_after()
            return time.monotonic() >= back_at

        until(time_is_over, "the right is given back")
        secured.grant(*rights("run", sandbox))
        since = time.monotonic()
        orders |= published(sandbox, engage)
        until(partial(all_accepted, engage, orders, [relay]), f"{what}: it serves again")
        assert time.monotonic() - since <= (SERVED_WITHIN_S if relay.starts == 1 else ENDED_WITHIN_S)


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_right_to_the_group_that_was_withdrawn_and_given_back_is_survived(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path, protocol: str, member: str
) -> None:
    kafka = {**PROTOCOLS[protocol], **MEMBERS[member]}
    sandbox = sandboxes(broker=secured.broker)
    survived(secured, sandbox, tmp_path, kafka, what="group", for_s=BEYOND_THE_SESSION_S)


OTHERS = [
    (what, protocol, member, for_s)
    for for_s in (BEYOND_THE_SESSION_S, SHORTLY_S)
    for what in ("the source", "transactional id", "the delay topic", "group")
    for protocol, member in product(PROTOCOLS, MEMBERS)
    if (what, for_s) != ("group", BEYOND_THE_SESSION_S)
]


@pytest.mark.long
def test_so_is_every_other_right(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path, scale: Scale
) -> None:
    for what, protocol, member, for_s in OTHERS[:: scale.of(9, 1)]:
        sandbox = sandboxes(broker=secured.broker)
        kafka = {**PROTOCOLS[protocol], **MEMBERS[member]}
        survived(secured, sandbox, tmp_path, kafka, what=what, for_s=for_s)


def test_an_instance_all_of_whose_partitions_are_refused_names_them_as_set_apart(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path, figures: Figures
) -> None:
    """No other partition shows that the broker takes anything. They were tried on, and nothing named them."""
    sandbox = sandboxes(broker=secured.broker, partitions=3)
    everything = rights("run", sandbox)
    secured.grant(*everything)
    with Engage() as engage, Supervised(tmp_path, sandbox, engage, secured.scram(PASSWORD)) as supervised:
        relay = supervised.relay
        until(partial(all_accepted, engage, published(sandbox, engage), [supervised]), "it serves")

        def named() -> set[object]:
            series = relay.get("/metrics")[1].splitlines()
            return {line for line in series if line.startswith("engage_relay_partitions_set_apart{")}

        secured.withdraw(*[each for each in everything if each.name == sandbox.topics.delay])
        orders = published(sandbox, engage)
        since = time.monotonic()
        until(lambda: len(named()) == sandbox.partitions, "they are named")
        figures(named=len(named()), after_s=round(time.monotonic() - since, 1))
        assert all('reason="unwritable"' in str(each) for each in named())
        secured.grant(*everything)
        until(partial(all_accepted, engage, orders, [supervised]), "it serves again")
        until(lambda: not named(), "they are named no more")
        for line in ("partition set apart: it cannot be served, the others go on", "partition served again"):
            assert sorted(str(each["partition"]) for each in relay.said(line)) == ["0", "1", "2"], line
