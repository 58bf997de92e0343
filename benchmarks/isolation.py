"""Whether connections that do not serve make the others late: one relay, many connections, an Engage for each.

    python -m benchmarks.isolation                       100 connections, 5 of them bad, three kinds of bad
    python -m benchmarks.isolation --connections 1000    and what so many cost: start, memory, CPU
    python -m benchmarks.isolation --check               exit code 1 where a goal is missed

First nobody is bad. Then five connections hang, are suspended, or never have an order ready, with 30 % of the events.
Their share of the memory is soon full, and the rest is parked. The goal: the others' p99 lateness is at most
GOAL times that of the first run. When the bad ones recover, all of theirs is delivered, in order, none twice.

Lateness counts from when an order is processed until its action is accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import process
from benchmarks.events import Publisher, create_topics, event
from benchmarks.plain_http import Served, response
from benchmarks.running import Relay, relay_against
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

GOAL = 1.5
BAD = 5
BAD_SHARE = 0.3
PENDING = 1500
PER_SECOND = 120.0
EVENTS_OF_ORDER = 3
MEDIAN_S, SIGMA = 2.0, 0.5
SETTLE_TIMEOUT_S = 400.0
MODES = ("hanging", "suspended", "never ready")
_JOB = b"/api/v3/orders/jobs/"
_ORDER = b"/api/v3/orders/"


@dataclass(slots=True)
class Engages:
    """All of them: what was accepted, in order, and how late. A job's name says when its order is processed."""

    mode: dict[str, str] = field(default_factory=dict)
    accepted: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    late: list[float] = field(default_factory=list)

    def answer(self, name: str, method: bytes, target: bytes, body: bytes) -> bytes | None:
        """Return the answer of one connection's Engage; None where it hangs."""
        mode = self.mode.get(name, "well")
        if mode == "hanging":
            return None
        if mode == "suspended":
            return response(b"401 Unauthorized", b"{}")
        if method == b"GET" and target.startswith(_JOB):
            job = target[len(_JOB) :]
            order, _, ready_ms = job[4:].rpartition(b"-")
            if mode == "never ready" or time.time() * 1000 < int(ready_ms):
                return response(b"200 OK", b'{"jobId":"%b","status":"Processing"}' % job)
            tag = b"%b-%b" % (order, ready_ms)
            done = b'{"jobId":"%b","status":"Completed","orderId":"%b","versionTag":"%b"}' % (job, order, tag)
            return response(b"200 OK", done)
        if method == b"POST" and target.startswith(_ORDER) and target.endswith(b"/action"):
            tag = json.loads(body)["versionTag"]
            self.accepted[name].append(tag)
            if name.startswith("good"):
                self.late.append(time.time() - int(tag.rpartition("-")[2]) / 1000)
            return response(b"202 Accepted", b'{"status":"Accepted"}')
        return response(b"404 Not Found", b"{}")


@contextlib.contextmanager
def served(engages: Engages, names: list[str]) -> Iterator[dict[str, int]]:
    """Run an Engage for each name, on a thread; yields their ports."""
    ports: dict[str, int] = {}
    started, loop = threading.Event(), uvloop.new_event_loop()

    async def serve() -> None:
        for name in names:
            server = await loop.create_server(partial(Served, partial(engages.answer, name)), "127.0.0.1", 0)
            ports[name] = cast("asyncio.Server", server).sockets[0].getsockname()[1]
        started.set()

    def run() -> None:
        loop.create_task(serve())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    started.wait()
    yield ports
    loop.call_soon_threadsafe(loop.stop)


def config_for(ports: dict[str, int]) -> str:
    """Return the relay's file: a connection for each name."""
    connections = "".join(
        f"    {name}: {{base_url: 'http://127.0.0.1:{port}', api_key: k, requests_per_second: 50, timeout: 10s}}\n"
        for name, port in ports.items()
    )
    return f"limits: {{pending: {PENDING}}}\nengage:\n  connections:\n{connections}"


def peak_mib(relay: Relay) -> float:
    """Return the most memory that it had."""
    return process.memory_bytes(relay.pid, "VmHWM") / 2**20


@dataclass(slots=True)
class Load:
    """Publishes events at PER_SECOND, as orders of a few events each, and remembers them."""

    publisher: Publisher
    good: list[str]
    bad: list[str]
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    numbers: Iterator[int] = field(default_factory=itertools.count)
    published: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    orders: dict[str, tuple[str, int]] = field(default_factory=dict)

    def run(self, seconds: float, *, with_bad: bool) -> None:
        """Publish for so long."""
        started, done = time.monotonic(), 0
        while (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * PER_SECOND)
            events = [each for _ in range(due - done) if (each := self._event(with_bad=with_bad)) is not None]
            self.publisher.publish(events)
            done = due
            time.sleep(0.02)

    def _event(self, *, with_bad: bool) -> tuple[str, bytes] | None:
        is_bad = self.chance.random() < BAD_SHARE
        if is_bad and not with_bad:
            return None
        name = self.chance.choice(self.bad if is_bad else self.good)
        order, left = self.orders.pop(name, ("", 0))
        number = next(self.numbers)
        if not left:
            order, left = f"{name}-{number}", EVENTS_OF_ORDER
        if left > 1:
            self.orders[name] = (order, left - 1)
        takes_s = self.chance.lognormvariate(math.log(MEDIAN_S), SIGMA)
        tag = f"{order}-{int((time.time() + takes_s) * 1000)}"
        self.published[name].append(tag)
        return event(number, order, f"job-{tag}", name)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    mode: str
    p50: float
    p99: float
    actions: int
    parked: int
    recovered_in_s: float


def check_order(engages: Engages, load: Load) -> None:
    """End where an action is missing, was sent twice, or overtook an earlier one of its order."""
    for name, published in load.published.items():
        accepted = engages.accepted[name]
        for order, tags in _by_order(published).items():
            got = _by_order(accepted).get(order, [])
            if got != tags:
                sys.exit(f"{order}: published {tags}, accepted {got}")


def _by_order(tags: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for tag in tags:
        found.setdefault(tag.rpartition("-")[0], []).append(tag)
    return found


def measure(mode: str, seconds: float, relay: Relay, engages: Engages, load: Load) -> Result:
    """Publish with these connections bad, then let them recover and wait until all is delivered."""
    with_bad = mode != "none"
    engages.mode = dict.fromkeys(load.bad, mode) if with_bad else {}
    engages.late.clear()
    load.run(seconds, with_bad=with_bad)
    parked = int(relay.figures()["parked_actions"])
    late = sorted(engages.late)
    recovered_at = time.monotonic()
    engages.mode = {}
    expected = sum(map(len, load.published.values()))
    while (left := expected - sum(map(len, engages.accepted.values()))) > 0:
        if time.monotonic() > recovered_at + SETTLE_TIMEOUT_S:
            sys.exit(f"{mode}: {left} actions were not delivered")
        time.sleep(0.1)
    check_order(engages, load)
    percentiles = statistics.quantiles(late, n=100)
    return Result(mode, percentiles[49], percentiles[98], len(late), parked, time.monotonic() - recovered_at)


def main() -> int:
    """Run and print. Returns the exit code."""
    process.require_linux()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the goal is missed")
    given = parser.parse_args()
    good = [f"good-{n}" for n in range(given.connections - BAD)]
    bad = [f"bad-{n}" for n in range(BAD)]
    engages = Engages()
    os.sched_setaffinity(0, process.cores()[1])  # inherited by the broker
    with (
        KafkaBroker(jvm=JVM_FOR_LOAD) as broker,
        served(engages, [*good, *bad]) as ports,
        tempfile.TemporaryDirectory() as folder,
    ):
        create_topics(broker.bootstrap_servers, 6)
        config = Path(folder) / "relay.yaml"
        config.write_text(config_for(ports))
        started = time.monotonic()
        with relay_against(broker, None, {}, config=config) as relay:
            relay.await_ready()
            print(
                f"{given.connections} connections: started in {relay.began_at - started:.1f} s, "
                f"{peak_mib(relay):.0f} MiB"
            )
            load = Load(Publisher(broker.bootstrap_servers), good, bad)
            load.run(5.0, with_bad=False)  # the polls' times are learnt
            results = []
            for mode in ("none", *MODES):
                cpu_s = process.cpu_s(relay.pid)
                result = measure(mode, given.seconds, relay, engages, load)
                results.append(result)
                print(
                    f"  {mode:12} p50 {result.p50:5.2f} s, p99 {result.p99:5.2f} s late, of {result.actions:,}; "
                    f"{result.parked:,} parked at the end; the bad ones delivered {result.recovered_in_s:.0f} s after "
                    f"they recovered; {process.cpu_s(relay.pid) - cpu_s:.1f} s of CPU, peak {peak_mib(relay):.0f} MiB",
                    flush=True,
                )
    worst = max(result.p99 for result in results[1:]) / results[0].p99
    print(f"the others' p99 lateness is at most {worst:.2f} times that without bad ones (goal: {GOAL:g})")
    return 1 if given.check and worst > GOAL else 0


if __name__ == "__main__":
    sys.exit(main())
