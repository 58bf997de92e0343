"""How much memory a relay takes at its default limits, while Engage hangs and events with large documents come.

    python -m benchmarks.memory                   8,000 documents of 70 kB: some are held, the rest is parked
    python -m benchmarks.memory --check           exit code 1 where the goal is missed

First half of them wait when the relay starts, the others come meanwhile. When all are taken, Engage answers again, and
everything is delivered: what was parked is read back. The goal is the chart's limit with a tenth to spare.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import process
from benchmarks.events import TOPIC, create_topics, event, publish
from benchmarks.isolation import Engages, peak_mib, served
from benchmarks.plain_http import response
from benchmarks.running import Relay, relay_against
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

GOAL_MIB = 0.9 * 512
EVENTS = 8_000
DOCUMENT_BYTES = 70_000
REQUESTS_PER_S = 200
PARTITIONS = 6
PUBLISHED_AT_ONCE = 500
TIMEOUT_S = 900.0
LOOK_EVERY_S = 1.0
NAME = "good"
_ORDERS = b"/api/v3/orders"


class Documents(Engages):
    """An Engage that takes documents, too. Each is processed at once."""

    def answer(self, name: str, method: bytes, target: bytes, body: bytes) -> bytes | None:
        """Return the answer to a request; None while it hangs."""
        if method == b"POST" and target == _ORDERS and self.mode.get(name) != "hanging":
            job = f"job-{json.loads(body)['orderId']}-{int(time.time() * 1000)}"
            return response(b"202 Accepted", json.dumps({"jobId": job}).encode())
        return super().answer(name, method, target, body)


def config_for(port: int) -> str:
    """Return the relay's file."""
    connection = {"base_url": f"http://127.0.0.1:{port}", "api_key": "k", "requests_per_second": REQUESTS_PER_S}
    route = {"action": "ConfirmOrder", "order": "order", "data": "data"}
    return json.dumps({"engage": {"connections": {"default": connection}}, "routes": {"documents": route}})


def publish_range(servers: str, first: int, end: int, document_bytes: int) -> None:
    """Publish the events of these numbers."""
    for start in range(first, end, PUBLISHED_AT_ONCE):
        numbers = range(start, min(end, start + PUBLISHED_AT_ONCE))
        publish(servers, (event(n, f"order-{n}", f"job-{n}", document_bytes=document_bytes) for n in numbers))


def wait_for(relay: Relay, what: str, count: int, engages: Engages, *, taken: bool) -> None:
    """Wait until so many were taken, or accepted."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        relay.check_alive()
        figures = relay.figures()
        pending = figures["pending_actions"] + figures["parked_actions"]
        if (pending if taken else len(engages.accepted[NAME])) >= count:
            break
        if time.monotonic() > deadline:
            sys.exit(f"{what}: {figures['pending_actions']:.0f} held, {figures['parked_actions']:.0f} parked")
        time.sleep(LOOK_EVERY_S)
    print(
        f"  {what}: {figures['pending_actions']:,.0f} held, {figures['parked_actions']:,.0f} parked, "
        f"{process.memory_bytes(relay.pid, 'VmRSS') / 2**20:.0f} MiB, peak so far {peak_mib(relay):.0f} MiB",
        flush=True,
    )


def main() -> int:
    """Run and print. Returns the exit code."""
    process.require_linux()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--document-bytes", type=int, default=DOCUMENT_BYTES)
    parser.add_argument("--check", action="store_true", help="exit code 1 where the goal is missed")
    given = parser.parse_args()
    engages = Documents(mode={NAME: "hanging"})
    os.sched_setaffinity(0, process.cores()[1])  # inherited by the broker
    with (
        KafkaBroker(jvm=JVM_FOR_LOAD) as broker,
        served(engages, [NAME]) as ports,
        tempfile.TemporaryDirectory() as folder,
    ):
        servers, half = broker.bootstrap_servers, given.events // 2
        create_topics(servers, PARTITIONS)
        publish_range(servers, 0, half, given.document_bytes)
        config = Path(folder) / "relay.yaml"
        config.write_text(config_for(ports[NAME]))
        with relay_against(broker, None, {}, config=config) as relay:
            relay.await_ready()
            print(f"{given.events:,} events of {TOPIC}, each with a document of {given.document_bytes:,} bytes")
            others = threading.Thread(target=publish_range, args=(servers, half, given.events, given.document_bytes))
            others.start()
            wait_for(relay, "all taken", given.events, engages, taken=True)
            others.join()
            engages.mode = {}
            wait_for(relay, "all delivered", given.events, engages, taken=False)
            peak = peak_mib(relay)
    print(f"at most {peak:.0f} MiB (goal: {GOAL_MIB:.0f}, nine tenths of the chart's limit)")
    return 1 if given.check and peak > GOAL_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
