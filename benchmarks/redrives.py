"""Whether many redrives make events late: one relay, events at a steady rate, then dead letters beside them.

    python -m benchmarks.redrives                      10,000 redrives beside 12 events a second
    python -m benchmarks.redrives --rate-limit 50      with Engage's ordinary limit, of which events leave little
    python -m benchmarks.redrives --check              exit code 1 where the goal is missed

First Engage fails the jobs of as many orders, and they become dead letters. Then only events come. Then the command
asks the relay for all dead letters by its control topic, while events come as before. The goal: the events' p99
lateness is at most GOAL times that without. Each redrive and each event is accepted once.

Lateness counts from when an order is processed until its action is accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
PER_SECOND = 12.0
MEDIAN_S, SIGMA = 2.0, 0.8
SETTLE_TIMEOUT_S = 120.0
BULK = "bulk"  # the orders that become dead letters
_JOB = b"/api/v3/orders/jobs/job-"
_ORDER = b"/api/v3/orders/"


@dataclass(slots=True)
class Engage:
    """What was accepted, and how late. The name of a job, and a tag, say when its order is processed."""

    fails_bulk: bool = True
    accepted: Counter[str] = field(default_factory=Counter)
    bulk: int = 0  # of those
    late: list[float] = field(default_factory=list)

    def answer(self, method: bytes, target: bytes, body: bytes) -> bytes | None:
        """Return the answer to one request."""
        if method == b"GET" and target.startswith(_JOB):
            tag = target[len(_JOB) :]
            order, _, ready_ms = tag.rpartition(b"-")
            status = b"Completed" if time.time() * 1000 >= int(ready_ms) else b"Processing"
            if self.fails_bulk and order.startswith(BULK.encode()):
                status = b"Failed"
            done = b',"orderId":"%b","versionTag":"%b"' % (order, tag) if status == b"Completed" else b""
            return response(b"200 OK", b'{"jobId":"job-%b","status":"%b"%b}' % (tag, status, done))
        if method == b"POST" and target.startswith(_ORDER) and target.endswith(b"/action"):
            tag_ = str(json.loads(body)["versionTag"])
            self.accepted[tag_] += 1
            if tag_.startswith(BULK):
                self.bulk += 1
            else:
                self.late.append(time.time() - int(tag_.rpartition("-")[2]) / 1000)
            return response(b"202 Accepted", b'{"status":"Accepted"}')
        return response(b"404 Not Found", b"{}")


@contextlib.contextmanager
def served(engage: Engage) -> Iterator[int]:
    """Run it on a thread; yields its port."""
    ports: list[int] = []
    started, loop = threading.Event(), uvloop.new_event_loop()

    async def serve() -> None:
        server = await loop.create_server(partial(Served, engage.answer), "127.0.0.1", 0)
        ports.append(cast("asyncio.Server", server).sockets[0].getsockname()[1])
        started.set()

    def run() -> None:
        loop.create_task(serve())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    started.wait()
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)


class Load:
    """Publishes events at PER_SECOND, on a thread, until it is ended."""

    def __init__(self, publisher: Publisher) -> None:
        self.published = 0
        self._publisher = publisher
        self._chance = random.Random(1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(0.02):
            due = int((time.monotonic() - started) * PER_SECOND)
            self._publisher.publish([self._event(number) for number in range(self.published, due)])
            self.published = due

    def _event(self, number: int) -> tuple[str, bytes]:
        takes_s = self._chance.lognormvariate(math.log(MEDIAN_S), SIGMA)
        tag = f"order-{number}-{int((time.time() + takes_s) * 1000)}"
        return event(number, f"order-{number}", f"job-{tag}")

    def end(self) -> None:
        """Publish no more."""
        self._ended.set()
        self._thread.join()


def bulk_events(count: int) -> Iterator[tuple[str, bytes]]:
    """Return the events whose jobs Engage fails. Their orders are processed at once."""
    now_ms = int(time.time() * 1000)
    for number in range(count):
        yield event(number, f"{BULK}-{number}", f"job-{BULK}-{number}-{now_ms}")


def await_(what: str, seconds: float, is_so: Callable[[], bool]) -> None:
    """Wait until it is so. Ends where it takes too long."""
    give_up_at = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > give_up_at:
            sys.exit(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


@dataclass(slots=True)
class Phase:
    """How late events were, and what the relay took, while something went on."""

    name: str
    p50: float
    p99: float
    events: int
    seconds: float
    cpu_s: float

    def __str__(self) -> str:
        return (
            f"  {self.name:14} p50 {self.p50:5.2f} s, p99 {self.p99:5.2f} s late, of {self.events:,} events in "
            f"{self.seconds:.0f} s; {self.cpu_s:.1f} s of CPU ({self.cpu_s / self.seconds:.1%} of a core)"
        )


@contextlib.contextmanager
def phase(name: str, relay: Relay, engage: Engage, into: list[Phase]) -> Iterator[None]:
    """Measure what goes on within, and print it."""
    engage.late.clear()
    began_at, cpu_s = time.monotonic(), process.cpu_s(relay.pid)
    yield
    late = list(engage.late)
    percentiles = statistics.quantiles(late, n=100)
    took_s = time.monotonic() - began_at
    into.append(Phase(name, percentiles[49], percentiles[98], len(late), took_s, process.cpu_s(relay.pid) - cpu_s))
    print(into[-1], flush=True)


def redrive(config: Path, environment: dict[str, str]) -> str:
    """Ask for all dead letters, as a person does; returns what the command said at the end."""
    command = [sys.executable, "-m", "consumer.cli", "dead-letters", "redrive", "--all", "--yes"]
    command += ["--config", str(config)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the redrive failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stderr.strip().splitlines()[-1]


def main() -> int:
    """Run and print. Returns the exit code."""
    process.require_linux()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redrives", description=__doc__.split("\n")[0])
    parser.add_argument("--redrives", type=int, default=10_000)
    parser.add_argument("--rate-limit", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="of the events alone")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the goal is missed")
    given = parser.parse_args()
    engage = Engage()
    os.sched_setaffinity(0, process.cores()[1])  # inherited by the broker
    with (
        KafkaBroker(jvm=JVM_FOR_LOAD) as broker,
        served(engage) as port,
        tempfile.TemporaryDirectory() as folder,
    ):
        create_topics(broker.bootstrap_servers, 6)
        config = Path(folder) / "relay.yaml"
        config.write_text(
            f"engage: {{connections: {{default: {{base_url: 'http://127.0.0.1:{port}', api_key: benchmark, "
            f"requests_per_second: {given.rate_limit:g}}}}}}}\n"
        )
        with relay_against(broker, None, {}, config=config) as relay:
            relay.await_ready()
            publisher = Publisher(broker.bootstrap_servers)
            publisher.publish(bulk_events(given.redrives))
            await_(
                "the dead letters",
                given.redrives / given.rate_limit * 3 + 60,
                lambda: relay.figures()["dead_letters_total"] >= given.redrives,
            )
            engage.fails_bulk = False
            phases: list[Phase] = []
            load = Load(publisher)
            time.sleep(60.0)  # the polls' times are learnt, and the failed jobs' forgotten
            with phase("events alone", relay, engage, phases):
                time.sleep(given.seconds)
            with phase("and redrives", relay, engage, phases):
                said = redrive(config, {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers})
                await_("the redrives", SETTLE_TIMEOUT_S, lambda: engage.bulk >= given.redrives)
            load.end()
            expected = given.redrives + load.published
            await_("the last events", SETTLE_TIMEOUT_S, lambda: len(engage.accepted) >= expected)
    alone, beside = phases
    more_s = beside.cpu_s - alone.cpu_s / alone.seconds * beside.seconds
    print(
        f"  {said}: {given.redrives / beside.seconds:.0f} redrives a second, "
        f"{more_s / given.redrives * 1000:.2f} ms of CPU each"
    )
    if doubled := [tag for tag, times in engage.accepted.items() if times > 1]:
        sys.exit(f"accepted more than once: {doubled[:5]}")
    ratio = beside.p99 / alone.p99
    print(
        f"the events' p99 lateness beside {given.redrives:,} redrives: {ratio:.2f} times that without (goal: {GOAL:g})"
    )
    return 1 if given.check and ratio > GOAL else 0


if __name__ == "__main__":
    sys.exit(main())
