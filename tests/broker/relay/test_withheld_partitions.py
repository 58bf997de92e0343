"""Static members and cooperative rebalances leave partitions to nobody when a member dies at a bad moment.

The leader withholds a partition that changes its owner until the former owner has given it up and joins again
(KIP-429). A static member that dies in between is replaced under its name without a rebalance (KIP-345): nobody joins
again, the group is stable, and the partition is nobody's for ever.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

PARTITIONS = 6
# A member that dies when it is told to give partitions up, before it joins again.
DIES_ON_REVOKE = """
import json, os, signal, sys
from confluent_kafka import Consumer
consumer = Consumer(json.loads(sys.argv[1]))
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def taken(consumer, partitions):
    consumer.incremental_assign(partitions)
    print("owns", len(partitions), flush=True)
consumer.subscribe([sys.argv[2]], on_assign=taken, on_revoke=die)
while True: consumer.poll(0.1)
"""


@pytest.mark.long
@pytest.mark.timeout(180)
def test_partitions_that_a_killed_static_member_left_to_nobody_are_served_again(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=PARTITIONS)
    session = {"session.timeout.ms": 30_000}
    member = {
        **sandbox.properties,
        **session,
        "group.instance.id": "relay-0",
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
    }
    with Engage() as engage:

        def relay(name: str) -> RelayProcess:
            kafka = {**session, "group.instance.id": name}
            config = written(tmp_path, configuration(sandbox, engage.url, kafka=kafka), name)
            return RelayProcess(tmp_path, config, "--from", "earliest", impatient=True)

        command = [sys.executable, "-c", DIES_ON_REVOKE, json.dumps(member), sandbox.topics.source]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dies:
            assert dies.stdout is not None
            assert dies.stdout.readline() == f"owns {PARTITIONS}\n"
            with relay("relay-1") as second:
                dies.wait()  # relay-1 has joined, and relay-0 was told to give it its part
                with relay("relay-0") as successor:
                    orders = [order_id(number) for number in range(4 * PARTITIONS)]
                    publish(sandbox, [(o, event(o, engage={"jobId": engage.submit(o)})) for o in orders])
                    until(
                        lambda: {each.order_id for each in engage.accepted} == set(orders),
                        "all partitions are served again",
                    )
                    assert successor.running
                    assert second.running
