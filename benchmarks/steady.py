"""What the relay costs at rest and at a shop's ordinary rate, where it is never busy, and how late actions are then.

    python -m benchmarks.steady                         at rest for 30 s, then 12 events/s for a minute
    python -m benchmarks.steady --per-second 60 --connections 100 --partitions 60 --instances 2
    python -m benchmarks.steady --peer                  Parallel Consumer after it, with the same load

Rules:
 1. Every event's action must be accepted exactly once, or the benchmark fails.
 2. The relay runs as a user runs it, with polls that it learns by itself, and the limit that Engage recommends (50).
 3. Lateness counts from when the tag was there until the action was accepted: by the simulator's own account.
    The first LEARNING events, while the relay learns when to poll, count for CPU and not for lateness.
 4. A peer does the same: the same events, the same Engage, the same core, after the relay. It sends an action again
    where it does not hear of its first one, so only its repeats are told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from benchmarks import process
from benchmarks.events import Publisher, create_topics, event
from benchmarks.peers import parallel_consumer
from benchmarks.running import (
    BULK,
    ENGAGE_LIMIT,
    BenchmarkError,
    Relay,
    answers_429_in,
    await_accepted,
    get,
    relay_against,
    requests_in,
    simulator,
    submit,
)
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

LEARNING = 300
RATE = 50.0
TICK_S = 0.05
PROCESSING = "lognormal:2s,0.8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is played: `seconds` of `per_second` events, spread over all connections, after `rest_s` without any."""

    connections: int = 1
    partitions: int = 6
    instances: int = 1
    per_second: float = 12.0
    seconds: float = 60.0
    rest_s: float = 30.0
    rate: float = RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What came of it. CPU is that of all instances together; memory that of the largest. Lateness is in seconds.

    `scrape_s`, `scrape_kib`: what a scrape took in the end, and its size before it is compressed.
    """

    start_s: float
    rest_share: float
    rest_mib: float
    actions: int
    cpu_ms: float
    cpu_ms_by_thread: dict[str, float]
    peak_mib: float
    requests: float
    transactions: float
    late_mean: float
    late_p50: float
    late_p99: float
    answers_429: int
    scrape_s: float
    scrape_kib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What came of a peer. See Steady."""

    cpu_ms: float
    peak_mib: float
    requests: float
    late_mean: float
    late_p50: float
    late_p99: float
    answers_429: int
    doubled: int


def play(load: Load) -> Steady:
    """Run it. Raises BenchmarkError."""
    with ExitStack() as closing:
        broker = closing.enter_context(KafkaBroker(jvm=JVM_FOR_LOAD))
        url = closing.enter_context(simulator(PROCESSING, ENGAGE_LIMIT))
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        create_topics(broker.bootstrap_servers, load.partitions)
        config = directory / "relay.yaml"
        config.write_bytes(_config(load, url))
        started = time.monotonic()
        relays = [closing.enter_context(relay_against(broker, url, {}, config=config)) for _ in range(load.instances)]
        for relay in relays:
            relay.await_ready()
        start_s = max(relay.began_at for relay in relays) - started
        time.sleep(2.0)  # what belongs to the start is not rest
        before = _cpu(relays)
        time.sleep(load.rest_s)
        rest_share = (_cpu(relays).total() - before.total()) / max(load.rest_s, 1.0) / load.instances
        rest_mib = max(process.memory_bytes(relay.pid, "VmRSS") for relay in relays) / 2**20
        transactions, before = _transactions(relays), _cpu(relays)
        published = _publish(load, broker, url)
        await_accepted(f"{url}/simulator/account?summary=1", "accepted", published, relays)
        time.sleep(1.0)  # the last tombstone
        cpu = _cpu(relays)
        cpu.subtract(before)
        transactions = _transactions(relays) - transactions
        peak_mib = max(process.memory_bytes(relay.pid, "VmHWM") for relay in relays) / 2**20
        scraped_at = time.monotonic()
        scrape_kib = len(get(f"http://127.0.0.1:{relays[0].port}/metrics")) / 1024
        scrape_s = time.monotonic() - scraped_at
        account = json.loads(get(f"{url}/simulator/account"))
    accepted = Counter(entry["orderId"] for entry in account["actions"])
    if len(accepted) != published or accepted.total() != published:
        raise BenchmarkError(f"{accepted.total()} actions accepted for {len(accepted)} of {published} orders")
    late = _lateness(account, published)
    percentiles = statistics.quantiles(late, n=100)
    return Steady(
        start_s=start_s,
        rest_share=rest_share,
        rest_mib=rest_mib,
        actions=published,
        cpu_ms=cpu.total() / published * 1000,
        cpu_ms_by_thread={kind: taken / published * 1000 for kind, taken in cpu.most_common()},
        peak_mib=peak_mib,
        requests=requests_in(account) / published,
        transactions=transactions / published,
        late_mean=statistics.fmean(late),
        late_p50=percentiles[49],
        late_p99=percentiles[98],
        answers_429=answers_429_in(account),
        scrape_s=scrape_s,
        scrape_kib=scrape_kib,
    )


def play_peer(load: Load) -> Peer:
    """Run Parallel Consumer with the same load. Raises BenchmarkError, UnavailableError."""
    with ExitStack() as closing:
        broker = closing.enter_context(KafkaBroker(jvm=JVM_FOR_LOAD))
        url = closing.enter_context(simulator(PROCESSING, ENGAGE_LIMIT))
        create_topics(broker.bootstrap_servers, load.partitions)
        peer = closing.enter_context(parallel_consumer.peer_against(broker, url))
        peer.await_ready()
        time.sleep(2.0)  # what belongs to the start is not counted
        before_s = peer.cpu_s
        published = _publish(load, broker, url)
        await_accepted(f"{url}/simulator/account?summary=1", "accepted", published, [peer])
        cpu_s, peak_mib = peer.cpu_s - before_s, peer.peak_mib
        account = json.loads(get(f"{url}/simulator/account"))
    late = _lateness(account, published)
    percentiles = statistics.quantiles(late, n=100)
    return Peer(
        cpu_ms=cpu_s / published * 1000,
        peak_mib=peak_mib,
        requests=requests_in(account) / published,
        late_mean=statistics.fmean(late),
        late_p50=percentiles[49],
        late_p99=percentiles[98],
        answers_429=answers_429_in(account),
        doubled=len(account["actions"]) - published,
    )


def _lateness(account: dict[str, Any], published: int) -> list[float]:
    """Return the seconds from tag ready to accepted (rule 3)."""
    number = {entry["orderId"]: int(entry["orderId"].rpartition("-")[2]) for entry in account["actions"]}
    return [
        entry["acceptedAt"] - entry["tagReadyAt"]
        for entry in account["actions"]
        if number[entry["orderId"]] >= min(LEARNING, published // 2)
    ]


def _names(load: Load) -> list[str]:
    return ["default", *(f"shop-{n}" for n in range(1, load.connections))]


def _config(load: Load, url: str) -> bytes:
    connections = {
        name: {"base_url": url, "api_key": f"benchmark-{name}", "requests_per_second": load.rate}
        for name in _names(load)
    }
    return to_json({"engage": {"connections": connections}})  # JSON is YAML


def _publish(load: Load, broker: KafkaBroker, url: str) -> int:
    publisher, names = Publisher(broker.bootstrap_servers), _names(load)
    total, published = int(load.per_second * load.seconds), 0
    started = time.monotonic()
    while published < total:
        time.sleep(TICK_S)
        due = min(total, int((time.monotonic() - started) * load.per_second), published + BULK)
        numbers = range(published, due)
        if numbers:
            jobs = submit(url, [f"order-{n}" for n in numbers])
            publisher.publish(event(n, f"order-{n}", jobs[f"order-{n}"], names[n % len(names)]) for n in numbers)
        published = due
    return published


def _cpu(relays: Sequence[Relay]) -> Counter[str]:
    taken: Counter[str] = Counter()
    for relay in relays:
        taken.update(process.cpu_s_by_thread(relay.pid))
    return taken


def _transactions(relays: Sequence[Relay]) -> float:
    return sum(relay.figures()["transaction_duration_seconds_count"] for relay in relays)


def _say(steady: Steady, load: Load) -> None:
    print(
        f"{load.instances} instance(s), {load.connections} connection(s) of {load.rate:g} requests/s, "
        f"{load.partitions} partitions; processing {PROCESSING}."
    )
    print(f"  {steady.start_s:8.2f} s from the start until it reads")
    print(f"At rest for {load.rest_s:g} s:")
    print(f"  {steady.rest_share:8.2%} of a core, each instance")
    print(f"  {steady.rest_mib:8.0f} MiB of memory")
    print(f"{steady.actions} events, {load.per_second:g} a second, each action accepted exactly once:")
    print(f"  {steady.cpu_ms:8.2f} ms CPU per action")
    for kind, taken in steady.cpu_ms_by_thread.items():
        print(f"  {taken:12.2f} {kind}")
    print(f"  {steady.peak_mib:8.0f} MiB of memory at the peak")
    print(f"  {steady.requests:8.2f} requests per action; {steady.answers_429} answers 429")
    print(f"  {steady.transactions:8.2f} transactions per action")
    print(f"  {steady.scrape_s:8.2f} s for a scrape of {steady.scrape_kib:.0f} KiB")
    print(
        f"  {steady.late_mean:8.2f} s from tag ready to accepted on average, "
        f"{steady.late_p50:.2f} s at the median, {steady.late_p99:.2f} s at the 99th percentile"
    )


def _say_peer(steady: Steady, peer: Peer | str) -> None:
    name = parallel_consumer.NAME
    if isinstance(peer, str):
        print(f"{name} is left out: {peer}")
        return
    print(f"{name}, the same load on the same core:")
    print(f"  {peer.cpu_ms:8.2f} ms CPU per action ({steady.cpu_ms / peer.cpu_ms:.2f} x that is the relay's)")
    print(f"  {peer.peak_mib:8.0f} MiB of memory at the peak ({steady.peak_mib / peer.peak_mib:.2f} x)")
    print(f"  {peer.requests:8.2f} requests per action; {peer.answers_429} answers 429; {peer.doubled} doubled")
    print(
        f"  {peer.late_mean:8.2f} s from tag ready to accepted on average ({steady.late_mean / peer.late_mean:.2f} x), "
        f"{peer.late_p50:.2f} s at the median, {peer.late_p99:.2f} s at the 99th percentile"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__.split("\n")[0])
    for name, default in (("connections", 1), ("partitions", 6), ("instances", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, value in (("per-second", 12.0), ("seconds", 60.0), ("rest-s", 30.0), ("rate", RATE)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--peer", action="store_true")
    given = vars(parser.parse_args(arguments))
    with_peer = given.pop("peer")
    load = Load(**given)
    if with_peer and load.connections > 1:
        parser.error("--peer: it knows one connection only")
    process.require_linux()
    os.sched_setaffinity(0, process.cores()[1])
    try:
        steady = play(load)
        _say(steady, load)
        if with_peer:
            _say_peer(steady, parallel_consumer.beside(lambda: play_peer(load)))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
