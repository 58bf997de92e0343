"""Whether the relay keeps its shape: memory, descriptors, threads, CPU, and how late it asks, over a long while.

    python -m benchmarks.endurance                                 30 minutes with 10,000 actions pending
    python -m benchmarks.endurance --minutes 1 --pending 1000      a short look

Two connections, a simulator behind each, one relay process on one core:
  * `default` has the pending actions. Their orders take from 1 s to 24 h to process (uniform: what one finds waiting
    after days of such traffic, most of it long), and each that ends is replaced.
  * `fresh` has steady traffic, some events a second, whose orders take seconds.

Rules:
 1. Lateness is how long after its due time a poll was started. The aim holds while the rate limit is free:
    in samples in which, as in the one before, a connection used less than FREE of it. The others are shown apart.
 2. Growth is judged after a warm-up, in which the pending actions are read and polled often because they are young.
 3. In the end everything is accounted for: published = accepted + dead letters + pending, by the simulators' account.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from prometheus_client import Metric

from benchmarks import process
from benchmarks.events import TOPIC, Publisher, create_topics, event
from benchmarks.running import BULK, ENGAGE_LIMIT, BenchmarkError, Relay, get, relay_against, simulator, submit
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

AIM_S = 0.25  # p99 of the lateness while the rate limit is free
FREE = 0.8  # of the rate limit used: above it, polls begin to queue for their permit
PENDING, FRESH = "default", "fresh"  # the connections
PROCESSING = {PENDING: "uniform:1s..1440m", FRESH: "lognormal:4s,0.8"}
# The mean wait between two polls of an old action is 100 s (120 s is the longest, less the jitter): 10,000 of them
# come to 100 requests per second: half of the rate limit is free.
MAX_INTERVAL = "120s"
# A tenth below Engage's limit: a request that is held up on its way falls into the next second, which is full then.
RATE = 0.9 * ENGAGE_LIMIT
PARTITIONS = 6
TICK_S = 1.0
MAX_SAMPLE_S = 5.0
WARM_UP_SHARE, MAX_WARM_UP_S = 0.2, 300.0
SETTLE_S = 30.0
# Tags that are remembered for an order's next action (10,000 of them: 3 MB) and histograms fill up while it runs.
SLACK_BYTES = 8 << 20
# Engage counts requests where they arrive, and what a busy machine delays falls into the next second.
SLACK_429 = 1e-4  # of all requests
SLACK_COUNT = 4  # descriptors or threads: connections to Engage come and go with its answers
MIB = 1 << 20

Buckets = Mapping[float, float]  # upper bound in seconds -> how many were at most so late


@dataclass(frozen=True, slots=True)
class Options:
    """How long, with how many pending, beside how many fresh events a second, and at which rate per connection."""

    seconds: float
    pending: int
    fresh_per_s: float
    rate: float


@dataclass(frozen=True, slots=True)
class Use:
    """One connection at one moment: its rate at present, the requests made and the lateness of its polls so far."""

    rate: float
    requests: float
    lateness: Buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The relay at one moment. `at` counts from the start of the run, in seconds; memory is what is resident."""

    at: float
    memory_bytes: int
    descriptors: int
    threads: int
    cpu_s: float
    pending: int
    accepted: int
    used: Mapping[str, Use] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Late:
    """Lateness in seconds, as exact as the histogram: interpolated within a bucket; `max_s` is a bucket's bound."""

    polls: int
    p50_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to, after warm-up.

    `late_free` covers the samples with a free rate limit, `late_busy` the others.
    """

    seconds: float
    warm_up_s: float
    published: int
    accepted: int
    pending: int
    dead_letters: int
    requests: int
    answers_429: int
    memory_bytes: int
    memory_growth_bytes: float
    descriptors_growth: int
    threads_growth: int
    cpu_share: float
    late_free: Late
    late_busy: Late

    def misses(self) -> list[str]:
        """Say which aims were missed."""
        found = {
            "not everything is accounted for": self.published != self.accepted + self.pending + self.dead_letters,
            "Engage answered 429": self.answers_429 > SLACK_429 * self.requests,
            "memory grows": self.memory_growth_bytes > SLACK_BYTES,
            "descriptors grow": self.descriptors_growth > SLACK_COUNT,
            "threads grow": self.threads_growth > SLACK_COUNT,
            "the rate limit was never free": self.late_free.polls == 0,
            f"p99 of the lateness is above {AIM_S:g} s": self.late_free.p99_s > AIM_S,
        }
        return [what for what, missed in found.items() if missed]


# -- figures ----------------------------------------------------------------------------------------------------


def since(later: Buckets, earlier: Buckets) -> Buckets:
    """Return what was added between two readings of a histogram."""
    return {bound: count - earlier.get(bound, 0.0) for bound, count in later.items()}


def together(histograms: Iterable[Buckets]) -> Buckets:
    """Add histograms with the same bounds up."""
    total: dict[float, float] = {}
    for each in histograms:
        for bound, count in each.items():
            total[bound] = total.get(bound, 0.0) + count
    return total


def quantile(buckets: Buckets, share: float) -> float:
    """Return the value that a `share` stays below, interpolated within its bucket; 0 of nothing."""
    wanted = share * max(buckets.values(), default=0.0)
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted and count > below:
            return lower + (bound - lower) * (wanted - below) / (count - below) if bound < math.inf else math.inf
        lower, below = bound, count
    return 0.0


def late(buckets: Buckets) -> Late:
    """Sum a histogram up."""
    polls = max(buckets.values(), default=0.0)
    most = min((bound for bound, count in buckets.items() if count == polls > 0), default=0.0)
    return Late(int(polls), quantile(buckets, 0.5), quantile(buckets, 0.99), most)


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much a straight line through the points rises from the first to the last."""
    if len(points) < 2:
        return 0.0
    at, values = [x for x, _ in points], [y for _, y in points]
    slope: float = statistics.linear_regression(at, values).slope
    return slope * (at[-1] - at[0])


def rise(values: Sequence[int]) -> int:
    """Return by how much the most of the last third is above the most of the first."""
    third = math.ceil(len(values) / 3)
    return max(values[-third:]) - max(values[:third]) if values else 0


def lateness(samples: Sequence[Sample], *, free: bool) -> Buckets:
    """Return all connections' lateness in those samples in which the rate limit was free (or was not)."""
    found: list[Buckets] = []
    for name in samples[-1].used if samples else ():
        was_free = False
        for before, after in itertools.pairwise(samples):
            then, now = before.used[name], after.used[name]
            is_free = now.requests - then.requests < FREE * now.rate * (after.at - before.at)
            if (is_free and was_free) is free:
                found.append(since(now.lateness, then.lateness))
            was_free = is_free
    return together(found)


# -- the run ----------------------------------------------------------------------------------------------------


class _Feed:
    """Submits orders to the simulators and publishes their events."""

    def __init__(self, bootstrap_servers: str, urls: Mapping[str, str]) -> None:
        self._publisher = Publisher(bootstrap_servers)
        self._urls = urls
        self.published = dict.fromkeys(urls, 0)

    def bring(self, connection: str, count: int) -> None:
        """Bring so many more."""
        while count > 0:
            first, some = self.published[connection], min(count, BULK)
            order_ids = [f"{connection}-{number}" for number in range(first, first + some)]
            jobs = submit(self._urls[connection], order_ids)
            numbered = enumerate(order_ids, first)
            self._publisher.publish(event(number, id_, jobs[id_], connection) for number, id_ in numbered)
            self.published[connection] += some
            count -= some

    def accounts(self) -> dict[str, dict[str, int]]:
        """Return what the simulators say: `accepted`, `repeated`, `throttled`, by connection."""
        summaries = {name: json.loads(get(f"{url}/simulator/account?summary=1")) for name, url in self._urls.items()}
        return {
            name: {
                "accepted": summary["accepted"],
                "repeated": summary["repeated"],
                "throttled": sum(statuses.get("429", 0) for statuses in summary["requests"].values()),
            }
            for name, summary in summaries.items()
        }


def _total(families: Iterable[Metric], name: str, connection: str | None = None) -> float:
    """Return a metric of the relay's, summed over its labels."""
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"engage_relay_{name}" and connection in (None, sample.labels.get("connection"))
    )


def _pending(families: Sequence[Metric]) -> int:
    return int(_total(families, "pending_actions") + _total(families, "parked_actions"))


def _buckets(families: Iterable[Metric], name: str, connection: str) -> Buckets:
    return {
        float(sample.labels["le"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"engage_relay_{name}_bucket" and sample.labels["connection"] == connection
    }


def _sample(relay: Relay, at: float, accepted: int) -> Sample:
    families = relay.scrape()
    return Sample(
        at=at,
        memory_bytes=process.memory_bytes(relay.pid, "VmRSS"),
        descriptors=process.descriptors(relay.pid),
        threads=process.threads(relay.pid),
        cpu_s=process.cpu_s(relay.pid),
        pending=_pending(families),
        accepted=accepted,
        used={
            name: Use(
                _total(families, "connection_requests_per_second", name),
                _total(families, "requests_total", name),
                _buckets(families, "due_lateness_seconds", name),
            )
            for name in PROCESSING
        },
    )


def _accepted(accounts: Mapping[str, Mapping[str, int]]) -> int:
    if any(account["repeated"] for account in accounts.values()):
        raise BenchmarkError("an action was accepted twice")
    return sum(account["accepted"] for account in accounts.values())


def soak(options: Options, say: Callable[[str], None]) -> Report:
    """Run it; `say` hears a line per minute. Raises BenchmarkError."""
    connection = "ENGAGE_RELAY__ENGAGE__CONNECTIONS"
    with (
        KafkaBroker(jvm=JVM_FOR_LOAD) as broker,
        simulator(PROCESSING[PENDING], ENGAGE_LIMIT) as pending_url,
        simulator(PROCESSING[FRESH], ENGAGE_LIMIT) as fresh_url,
    ):
        environment = {
            f"{connection}__DEFAULT__REQUESTS_PER_SECOND": str(options.rate),
            f"{connection}__FRESH__REQUESTS_PER_SECOND": str(options.rate),
            f"{connection}__FRESH__BASE_URL": fresh_url,
            f"{connection}__FRESH__API_KEY": "benchmark",
            "ENGAGE_RELAY__POLLING__MAX_INTERVAL": MAX_INTERVAL,
            "ENGAGE_RELAY__POLLING__DEADLINE": "48h",
            # Room for all of it in the share that one of two connections has: nothing is parked.
            "ENGAGE_RELAY__LIMITS__PENDING": str(4 * (options.pending + BULK)),
        }
        create_topics(broker.bootstrap_servers, PARTITIONS)
        feed = _Feed(broker.bootstrap_servers, {PENDING: pending_url, FRESH: fresh_url})
        with relay_against(broker, pending_url, environment) as relay:
            relay.await_ready()
            samples = _run(options, relay, feed, say)
            return _report(samples, relay, feed)


def _run(options: Options, relay: Relay, feed: _Feed, say: Callable[[str], None]) -> list[Sample]:
    sample_every_s = min(MAX_SAMPLE_S, max(TICK_S, options.seconds / 20))
    feed.bring(PENDING, options.pending)
    started = time.monotonic()
    samples = [_sample(relay, 0.0, 0)]
    said = samples[0]
    for tick in itertools.count(1):
        time.sleep(max(0.0, started + tick * TICK_S - time.monotonic()))
        at = time.monotonic() - started
        feed.bring(FRESH, int(options.fresh_per_s * at) - feed.published[FRESH])
        if at - samples[-1].at < sample_every_s:
            continue
        relay.check_alive()
        accounts = feed.accounts()  # not each second: adding it up takes the simulator longer and longer
        feed.bring(PENDING, options.pending - feed.published[PENDING] + accounts[PENDING]["accepted"])
        samples.append(_sample(relay, at, _accepted(accounts)))
        if samples[-1].at - said.at >= 60 - sample_every_s / 2:
            say(_line([each for each in samples if each.at >= said.at]))
            said = samples[-1]
        if at >= options.seconds:
            break
    return samples


def _report(samples: Sequence[Sample], relay: Relay, feed: _Feed) -> Report:
    published = sum(feed.published.values())
    deadline = time.monotonic() + SETTLE_S
    while True:  # the relay's figures are a second old: until they meet, or it is clear that they will not
        accounts, families = feed.accounts(), relay.scrape()
        accepted = _accepted(accounts)
        pending = _pending(families)
        dead_letters = int(_total(families, "dead_letters_total"))
        if accepted + pending + dead_letters == published or time.monotonic() > deadline:
            break
        time.sleep(TICK_S / 4)
    seconds = samples[-1].at
    warm_up_s = min(MAX_WARM_UP_S, WARM_UP_SHARE * seconds)
    warm = [each for each in samples if each.at >= warm_up_s]
    return Report(
        seconds=seconds,
        warm_up_s=warm_up_s,
        published=published,
        accepted=accepted,
        pending=pending,
        dead_letters=dead_letters,
        requests=int(sum(use.requests for use in samples[-1].used.values())),
        answers_429=sum(account["throttled"] for account in accounts.values()),
        memory_bytes=warm[-1].memory_bytes,
        memory_growth_bytes=growth([(each.at, each.memory_bytes) for each in warm]),
        descriptors_growth=rise([each.descriptors for each in warm]),
        threads_growth=rise([each.threads for each in warm]),
        cpu_share=(samples[-1].cpu_s - warm[0].cpu_s) / max(samples[-1].at - warm[0].at, 1e-9),
        late_free=late(lateness(warm, free=True)),
        late_busy=late(lateness(warm, free=False)),
    )


# -- what is said -----------------------------------------------------------------------------------------------


def _line(minute: Sequence[Sample]) -> str:
    first, last = minute[0], minute[-1]
    span_s = last.at - first.at
    lines = [
        f"{last.at / 60:5.1f} min {last.memory_bytes / MIB:7.1f} MiB {last.descriptors:4d} descriptors "
        f"{last.threads:3d} threads {(last.cpu_s - first.cpu_s) / span_s:5.1%} CPU "
        f"{last.pending:7d} pending {last.accepted:8d} accepted"
    ]
    for name, use in last.used.items():
        then = first.used[name]
        busy = (use.requests - then.requests) / (use.rate * span_s) if use.rate else 0.0
        lines.append(
            f"          {name:8} {busy:4.0%} of its rate limit; {_told(late(since(use.lateness, then.lateness)))}"
        )
    return "\n".join(lines)


def _told(figures: Late) -> str:
    if not figures.polls:
        return "no poll"
    return (
        f"{figures.polls} polls late by {figures.p50_s * 1000:.0f} ms (p50), {figures.p99_s * 1000:.0f} ms (p99), "
        f"at most {figures.max_s * 1000:.0f} ms"
    )


def _say(report: Report) -> None:
    print(f"{report.seconds / 60:.1f} min, of which {report.warm_up_s / 60:.1f} min are warm-up.")
    print(
        f"  {report.published} published = {report.accepted} accepted + {report.dead_letters} dead letters "
        f"+ {report.pending} pending"
    )
    print(f"  {report.requests} requests, {report.answers_429} of them answered 429")
    per_hour = report.memory_growth_bytes / MIB / max(report.seconds - report.warm_up_s, 1.0) * 3600
    print(
        f"  memory {report.memory_bytes / MIB:.1f} MiB; a line through it rises by "
        f"{report.memory_growth_bytes / MIB:+.2f} MiB ({per_hour:+.1f} MiB/h)"
    )
    print(f"  descriptors {report.descriptors_growth:+d}, threads {report.threads_growth:+d}")
    print(f"  {report.cpu_share:.1%} of a core")
    print(f"  rate limit free: {_told(report.late_free)}")
    print(f"  rate limit busy: {_told(report.late_busy)}")
    print("Verdict: " + ("; ".join(report.misses()) or "all aims met") + ".")


def _options() -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--fresh", type=float, default=10.0, help="events per second on the other connection")
    parser.add_argument("--rate", type=float, default=RATE, help="each connection's requests_per_second")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    return Options(given.minutes * 60, given.pending, given.fresh, given.rate), given.json


def main() -> int:
    """Run and print. Returns the exit code: 1 where an aim was missed."""
    process.require_linux()
    options, as_json = _options()
    measured, others = process.cores()
    os.sched_setaffinity(0, others)  # inherited by broker and simulators
    where = f"relay on core {measured}, everything else on {others}, {TOPIC} with {PARTITIONS} partitions"
    print(where, file=sys.stderr)
    try:
        report = soak(options, lambda line: print(line, file=sys.stderr, flush=True))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({**asdict(report), "misses": report.misses()}))
    else:
        _say(report)
    return 1 if report.misses() else 0


if __name__ == "__main__":
    sys.exit(main())
