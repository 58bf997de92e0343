"""How much the relay delivers and what it costs: the real relay, on one core, against a real broker.

    python -m benchmarks.throughput                               an Engage that answers at once
    python -m benchmarks.throughput --processing lognormal:2s,0.8   an Engage that takes its time (the simulator)

Rules:
 1. Every event's action must be accepted exactly once, or the benchmark fails: losing work is no speed.
 2. The relay runs as a user runs it, from its command line and environment, with nothing in it switched off.
 3. Where its CPU time goes is sampled in a second, shorter run, so that the first one is not slowed.
 4. A peer does the same: the same events, the same Engage, the same core, one after the other. One that is not
    installed is left out, and that is said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import process
from benchmarks.events import TOPIC, create_topics, event, publish
from benchmarks.peers.parallel_consumer import NAME, beside, peer_against
from benchmarks.running import (
    BULK,
    ENGAGE_LIMIT,
    LOOK_EVERY_S,
    START_TIMEOUT_S,
    BenchmarkError,
    Cost,
    answers_429_in,
    await_accepted,
    get,
    instant_engage,
    relay_against,
    requests_in,
    simulator,
    submit,
)
from benchmarks.sampled_relay import EVENT_LOOP
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

MAX_FUNCTIONS = 15
PROFILED_EVENTS = 10_000
NO_LIMIT = 20_000.0  # requests per second: more than one core can make


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `processing` None: the Engage that answers at once. `rate` is the connection's, per second."""

    events: int
    partitions: int
    processing: str | None
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A run against the Engage that answers at once.

    `actions_per_s` is from the first accepted to the last; `with_reading_per_s` also counts the time from the
    moment at which the relay began to read. `sending_cpu_ms` is the CPU per action between those first and last.
    """

    actions: int
    actions_per_s: float
    with_reading_per_s: float
    sending_cpu_ms: float
    requests_per_action: float
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A run against the simulator. Seconds are from when the tag was ready until the action was accepted."""

    actions: int
    seconds: float
    requests_per_action: float
    p50_s: float
    p95_s: float
    answers_429: int
    max_requests_in_a_second: int
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInstant:
    """A peer's run against the Engage that answers at once. See Instant; `doubled`: actions accepted once more."""

    actions_per_s: float
    with_reading_per_s: float
    cpu_ms_per_action: float
    peak_mib: float
    doubled: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a profiled run's CPU went, as shares of all of it: by component, and by function of the event loop's."""

    samples: int
    components: dict[str, float]
    functions: dict[str, float]


# -- the runs ---------------------------------------------------------------------------------------------------


def run_instant(options: Options, profile: Path | None = None) -> Instant:
    """Publish everything, then let the relay loose on it."""
    environment = {
        "ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__REQUESTS_PER_SECOND": str(options.rate),
        # Where processing takes no time, waiting for it would only move work before the first acceptance.
        "ENGAGE_RELAY__POLLING__INITIAL": "0s",
    }
    with _published(options) as (broker, url), relay_against(broker, url, environment, profile) as relay:
        get(f"{url}/watch?{relay.pid}", b"{}")
        relay.await_ready()
        await_accepted(f"{url}/account", "orders", options.events, [relay])
        cost = relay.cost(options.events)
        account = json.loads(get(f"{url}/account"))
        if profile is not None:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not profile.exists() and time.monotonic() < deadline:
                time.sleep(LOOK_EVERY_S)
    if account["repeated"] or account["wrong"]:
        raise BenchmarkError(f"{account['repeated']} actions accepted twice, {account['wrong']} requests refused")
    span_s = account["last_at"] - account["first_at"]
    return Instant(
        actions=options.events,
        actions_per_s=options.events / span_s,
        with_reading_per_s=options.events / (account["last_at"] - relay.began_at),
        sending_cpu_ms=(account["last_cpu_s"] - account["first_cpu_s"]) / options.events * 1000,
        requests_per_action=(account["jobs"] + account["actions"]) / options.events,
        cost=cost,
    )


def run_peer_instant(options: Options) -> PeerInstant:
    """Publish the same, then let the peer loose on it. Raises UnavailableError."""
    with _published(options) as (broker, url), peer_against(broker, url) as peer:
        peer.await_ready()
        await_accepted(f"{url}/account", "orders", options.events, [peer])
        cpu_s, peak_mib = peer.cpu_s, peer.peak_mib
        account = json.loads(get(f"{url}/account"))
    return PeerInstant(
        actions_per_s=options.events / (account["last_at"] - account["first_at"]),
        with_reading_per_s=options.events / (account["last_at"] - peer.began_at),
        cpu_ms_per_action=cpu_s / options.events * 1000,
        peak_mib=peak_mib,
        doubled=account["repeated"],
    )


@contextlib.contextmanager
def _published(options: Options) -> Iterator[tuple[KafkaBroker, str]]:
    with KafkaBroker(jvm=JVM_FOR_LOAD) as broker, instant_engage(options.events) as url:
        create_topics(broker.bootstrap_servers, options.partitions)
        publish(broker.bootstrap_servers, (event(n, f"order-{n}", f"job-{n}") for n in range(options.events)))
        yield broker, url


def run_slow(options: Options) -> Slow:
    """Submit orders and publish their events at once, to a relay that waits for them."""
    assert options.processing is not None
    limit = ENGAGE_LIMIT if options.rate <= ENGAGE_LIMIT else 0
    environment = {"ENGAGE_RELAY__ENGAGE__CONNECTIONS__DEFAULT__REQUESTS_PER_SECOND": str(options.rate)}
    with KafkaBroker(jvm=JVM_FOR_LOAD) as broker, simulator(options.processing, limit) as url:
        create_topics(broker.bootstrap_servers, options.partitions)
        with relay_against(broker, url, environment) as relay:
            relay.await_ready()
            started = time.monotonic()
            _submit_and_publish(broker, url, options.events)
            await_accepted(f"{url}/simulator/account?summary=1", "accepted", options.events, [relay])
            seconds = time.monotonic() - started
            cost = relay.cost(options.events)
        summary = json.loads(get(f"{url}/simulator/account"))
    accepted = Counter(entry["orderId"] for entry in summary["actions"])
    if len(accepted) != options.events or accepted.total() != options.events:
        raise BenchmarkError(f"{accepted.total()} actions accepted for {len(accepted)} of {options.events} orders")
    waits = [entry["acceptedAt"] - entry["tagReadyAt"] for entry in summary["actions"]]
    percentiles = statistics.quantiles(waits, n=20)
    return Slow(
        actions=options.events,
        seconds=seconds,
        requests_per_action=requests_in(summary) / options.events,
        p50_s=percentiles[9],
        p95_s=percentiles[18],
        answers_429=answers_429_in(summary),
        max_requests_in_a_second=max(summary["mostRequestsPerSecond"].values()),
        cost=cost,
    )


def _submit_and_publish(broker: KafkaBroker, url: str, count: int) -> None:
    for start in range(0, count, BULK):
        order_ids = [f"order-{n}" for n in range(start, min(start + BULK, count))]
        jobs = submit(url, order_ids)
        publish(broker.bootstrap_servers, (event(n, id_, jobs[id_]) for n, id_ in enumerate(order_ids, start)))


def run_profiled(options: Options) -> Profile:
    """Run it under the sampler (sampled_relay.py)."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "profile"
        run_instant(options, file)
        written = json.loads(file.read_text())
    cpu: dict[str, float] = written["cpu_s_by_thread"]
    total = sum(cpu.values())
    samples: list[tuple[str, str, int]] = written["event_loop_samples"]
    taken = sum(count for _, _, count in samples)
    components: Counter[str] = Counter()
    functions: dict[str, float] = {}
    for component, function, count in samples:
        share = count / taken * cpu[EVENT_LOOP] / total
        components[component] += share  # type: ignore[assignment]
        functions[function] = functions.get(function, 0.0) + share
    for thread, seconds in cpu.items():
        if thread != EVENT_LOOP:
            components[f"{thread} (thread)"] += seconds / total  # type: ignore[assignment]
    ordered = sorted(functions.items(), key=lambda item: -item[1])
    return Profile(taken, dict(components.most_common()), dict(ordered[:MAX_FUNCTIONS]))


# -- what is said -----------------------------------------------------------------------------------------------


def _say_instant(instant: Instant, profile: Profile) -> None:
    cost = instant.cost
    print(f"{instant.actions} events, each action accepted exactly once by an Engage that answers at once.")
    print(f"  {instant.actions_per_s:8.0f} actions/s, from the first accepted to the last")
    print(f"  {instant.with_reading_per_s:8.0f} actions/s, from the moment the relay began to read")
    print(f"  {cost.cpu_ms_per_action:8.3f} ms CPU per action, reading, journal and last tombstone included")
    print(f"  {instant.sending_cpu_ms:8.3f} ms CPU per action, from the first accepted to the last")
    print(f"  {instant.requests_per_action:8.2f} requests per action")
    _say_cost(cost)
    print(f"Where the CPU goes, in ms per action (shares of a second, shorter run; {profile.samples} samples):")
    for component, share in profile.components.items():
        print(f"  {share * cost.cpu_ms_per_action:8.3f}  {share:4.0%}  {component}")
    print("The event loop's thread by innermost function of ours (what it calls in other code included):")
    for function, share in profile.functions.items():
        print(f"  {share * cost.cpu_ms_per_action:8.3f}  {share:4.0%}  {function}")
    print("Method: CPU per thread from the kernel; the event loop's own by a timer on that thread's CPU clock.")


def _say_beside(instant: Instant, peer: PeerInstant | str) -> None:
    if isinstance(peer, str):
        print(f"{NAME} is left out: {peer}")
        return
    cost = instant.cost
    print(
        f"{NAME} in the same run, on the same core: {peer.actions_per_s:.0f} actions/s "
        f"({peer.with_reading_per_s:.0f} with reading), {peer.cpu_ms_per_action:.3f} ms CPU per action, "
        f"{peer.peak_mib:.0f} MiB, {peer.doubled} accepted more than once."
    )
    print(
        f"  the relay: {instant.actions_per_s / peer.actions_per_s:.2f} x its actions/s "
        f"({instant.with_reading_per_s / peer.with_reading_per_s:.2f} x with reading), "
        f"{cost.cpu_ms_per_action / peer.cpu_ms_per_action:.2f} x its CPU, "
        f"{cost.peak_mib / peer.peak_mib:.2f} x its memory"
    )


def _say_slow(slow: Slow, options: Options) -> None:
    print(f"{slow.actions} orders, submitted at once, processing {options.processing}; each accepted exactly once.")
    print(f"  {slow.seconds:8.1f} s in total")
    print(f"  {slow.requests_per_action:8.2f} requests per action")
    print(f"  {slow.p50_s:8.3f} s from tag ready to accepted at the median, {slow.p95_s:.3f} s at the 95th percentile")
    print(f"  {slow.answers_429:8d} answers 429; {slow.max_requests_in_a_second} requests in the busiest second")
    print(f"  {slow.cost.cpu_ms_per_action:8.3f} ms CPU per action")
    _say_cost(slow.cost)


def _say_cost(cost: Cost) -> None:
    print(f"  {cost.peak_mib:8.0f} MiB of memory at the peak")
    print(f"  {cost.transactions:8d} transactions, of {cost.writes_per_transaction:.0f} writes on average")


def _options() -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--processing", help="how long the simulator's Engage takes, such as lognormal:2s,0.8")
    parser.add_argument(
        "--rate",
        type=float,
        default=NO_LIMIT,
        help=f"the connection's requests_per_second; up to {ENGAGE_LIMIT}, the simulator answers 429 above that",
    )
    parser.add_argument("--json", action="store_true")
    # `make bench ARGS=…` hands the same words to both benchmarks.
    given, _ = parser.parse_known_args()
    return Options(given.events, given.partitions, given.processing, given.rate), given.json


def main() -> int:
    """Run and print. Returns the exit code."""
    process.require_linux()
    options, as_json = _options()
    measured, others = process.cores()
    os.sched_setaffinity(0, others)  # inherited by broker and Engage
    where = f"relay on core {measured}, everything else on {others}, {TOPIC} with {options.partitions} partitions"
    print(where, file=sys.stderr)
    try:
        if options.processing is not None:
            slow = run_slow(options)
            print(json.dumps(asdict(slow))) if as_json else _say_slow(slow, options)
            return 0
        instant, peer = run_instant(options), beside(lambda: run_peer_instant(options))
        profile = run_profiled(replace(options, events=min(options.events, PROFILED_EVENTS)))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    if as_json:
        beside_it = peer if isinstance(peer, str) else asdict(peer)
        print(json.dumps({**asdict(instant), "parallel_consumer": beside_it, "profile": asdict(profile)}))
    else:
        _say_instant(instant, profile)
        _say_beside(instant, peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
