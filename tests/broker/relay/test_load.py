"""Load and limits: what waits, is refused, stands still or is garbage delays nothing else, and takes no memory.

Times are compared with what the same relay took for the same work alone, with bounds that only a real delay exceeds.
The long form has a million events in the source, all of which are accepted, and a short soak.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.running import get, instant_engage
from consumer.kafka.source.membership import MAX_RECORDS
from consumer.kafka.source.source import BATCHES_AHEAD
from consumer.relay.connections import slots_of
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import Raw, event, order_id, publish, publish_raw
from tests.support.figures import Figures, Scale
from tests.support.relay_process import ROOT, RelayProcess, configuration, written
from tests.support.relay_thread import QUICK, RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import PATIENCE_S, until

LIMIT = 500
OVERSHOOT = BATCHES_AHEAD * MAX_RECORDS  # what may be on its way when the source is paused
# What is pending takes about 1 KB (`python -m benchmarks.restore`): all that waits would be 200 MB and more. Work at
# full speed takes some 70 MB, whatever waits: batches, transactions and librdkafka's buffers.
FLAT_BYTES = 112 << 20


# Back-pressure


@pytest.mark.long
def test_memory_stays_flat_while_very_many_events_wait_in_the_source(
    sandboxes: SandboxFactory, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    sandbox = sandboxes()
    waiting = scale.of(200_000, 1_000_000)
    marks = range(1000, scale.of(13_001, waiting + 1), scale.of(3000, 27_000))  # the short form stops at the last
    rate_limit = scale.of(1000, 20_000)
    resident: list[float] = []
    parked = 0.0
    with instant_engage(waiting) as url:
        file = written(
            tmp_path,
            configuration(sandbox, url, limits={"pending": LIMIT}, connection={"requests_per_second": rate_limit}),
        )
        with RelayProcess(tmp_path, file, "--from", "earliest") as relay:
            for number, mark in enumerate(marks):
                if number < 2:  # nothing waits before the first mark, everything from then on
                    _publish(sandbox, range(marks[0]) if number == 0 else range(marks[0], waiting))
                until(lambda: _account(url)["orders"] >= mark, f"{mark} are accepted", PATIENCE_S * len(marks))  # noqa: B023
                held = relay.metric("pending_actions")
                assert held <= LIMIT + OVERSHOOT, "what is beyond the limit is parked, not held"
                parked = max(parked, relay.metric("parked_actions"))
                resident.append(_resident_bytes(relay))
            assert relay.stop() == 0
        account = _account(url)
    assert max(resident) - resident[0] < FLAT_BYTES, [int(each) >> 20 for each in resident]
    assert parked > LIMIT + OVERSHOOT
    assert account["orders"] >= marks[-1] > LIMIT + OVERSHOOT, "parked actions came back"
    assert account["repeated"] == account["wrong"] == 0
    growth = f"{(max(resident) - resident[0]) / (1 << 20):.1f} MiB"
    figures(events_waiting=waiting, limit=LIMIT, accepted=account["orders"], memory_growth=growth)
    if scale is Scale.LONG:
        assert sandbox.offset(sandbox.topics.source) == account["orders"] == waiting
        return
    with Books(sandbox) as books:
        books.read()
        assert books.dead_letters == []
        # Stopped in the middle, nothing is lost: what was taken is accepted or pending.
        assert sandbox.offset(sandbox.topics.source) == account["orders"] + len(books.live) < waiting


def _publish(sandbox: Sandbox, numbers: range) -> None:
    """Publish events that instant_engage accepts with one request each."""
    for some in (numbers[first : first + 20_000] for first in range(0, len(numbers), 20_000)):
        tagged = ((f"order-{number}", {"versionTag": f"tag-{number}"}) for number in some)
        sandbox.write(sandbox.topics.source, [(order.encode(), event(order, engage=tag)) for order, tag in tagged])


def _account(url: str) -> dict[str, int]:
    account: dict[str, int] = json.loads(get(f"{url}/account"))
    return account


def _resident_bytes(relay: RelayProcess) -> float:
    """Return the process's resident memory, which /metrics has from /proc."""
    lines = relay.get("/metrics")[1].splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("process_resident_memory_bytes "))
    return float(value)


CLASSIC = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300}
CONSUMER = {"group.protocol": "consumer"}


@pytest.mark.long
def test_while_everything_is_paused_the_partitions_stay_past_the_max_poll_interval(sandboxes: SandboxFactory) -> None:
    max_poll_s, job_s = 2.0, 6.0
    waiting = [order_id(number) for number in range(10)]
    with Engage() as engage, ExitStack() as closing:
        tags = {}
        for order in waiting:
            engage.submit(order)
            tags[order] = engage.tag(order)
        relays: dict[str, tuple[Sandbox, RelayThread]] = {}
        for slow, protocol in ((order_id("classic"), CLASSIC), (order_id("consumer"), CONSUMER)):
            sandbox = sandboxes()
            sandbox.properties.update({**protocol, "max.poll.interval.ms": int(max_poll_s * 1000)})
            relay = RelayThread(sandbox, engage.url, max_pending=1, max_parked=1)
            relays[slow] = sandbox, closing.enter_context(relay)
        for _, relay in relays.values():
            relay.wait_until_restored()
        for slow, (sandbox, _) in relays.items():
            parked = waiting[0]
            publish(sandbox, [(slow, event(slow, engage={"jobId": engage.submit(slow, takes_s=job_s)}))])
            publish(sandbox, [(parked, event(parked, engage={"versionTag": tags[parked]}))])
        paused_at = {}
        for slow, (sandbox, relay) in relays.items():
            until(lambda: relay.metric("source_paused"), "the source is paused")  # noqa: B023
            paused_at[slow] = time.time()
            publish(sandbox, [(order, event(order, engage={"versionTag": tags[order]})) for order in waiting[1:]])
        for slow, (sandbox, relay) in relays.items():
            closing.enter_context(Books(sandbox)).wait_until_settled()
            (accepted,) = engage.accepted_of(slow)
            assert accepted.accepted_at - paused_at[slow] > 1.5 * max_poll_s
            assert relay.metric("events_consumed_total", topic=sandbox.topics.source) == 1 + len(waiting)
            rebalances = {kind: relay.metric("rebalances_total", kind=kind) for kind in ("assigned", "revoked", "lost")}
            assert rebalances == {"assigned": 1, "revoked": 0, "lost": 0}
        assert len(engage.accepted) == len(relays) * (1 + len(waiting))


# Neighbours

BATCH = 150
RATE = 400.0  # requests per second
SLOTS = slots_of(RATE)  # requests of a connection that may be in flight


def _seconds_for(sandbox: Sandbox, engage: Engage, name: str, among: Iterable[Raw] = (), **more: object) -> float:
    """Publish a batch of orders' events, among others; return how long it takes until all are accepted."""
    orders = [order_id(f"{name}-{number}") for number in range(BATCH)]
    ours = [Raw(order.encode(), event(order, engage={"jobId": engage.submit(order), **more})) for order in orders]
    before, started = len(engage.accepted), time.monotonic()
    publish_raw(sandbox, [*_spread(ours, list(among))])
    until(lambda: len(engage.accepted) >= before + BATCH, f"the batch is accepted: {name}")
    return time.monotonic() - started


def _spread(few: list[Raw], many: list[Raw]) -> Iterator[Raw]:
    """Put many records evenly between a few."""
    done = 0
    for number, each in enumerate(few, 1):
        until_here = len(many) * number // len(few)
        yield from many[done:until_here]
        yield each
        done = until_here


def _as_fast_as(alone: float) -> float:
    """Return what counts as no delay, on a machine that does other things too."""
    return 2 * alone + 2.0


@pytest.mark.long
def test_connections_that_are_refused_hanging_or_slow_delay_no_other(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    much = SLOTS + 100
    with ExitStack() as closing:
        good = closing.enter_context(Engage())
        bad = {
            "refused": closing.enter_context(Engage(valid_keys=frozenset({"another"}))),
            "hanging": closing.enter_context(Engage(faults=("hang=1,calls=job|order",))),
            "slow": closing.enter_context(Engage(faults=("slow=1",), slow="fixed:3s")),
        }
        urls = {"default": good.url, **{name: engage.url for name, engage in bad.items()}}
        with RelayThread(sandbox, urls, timeout_s=15.0, requests_per_second=RATE) as relay:
            relay.wait_until_restored()
            alone = _seconds_for(sandbox, good, "alone")
            for name, engage in bad.items():
                orders = [order_id(f"{name}-{number}") for number in range(much)]
                jobs = {order: engage.submit(order) for order in orders}
                publish(
                    sandbox,
                    [(id_, event(id_, engage={"jobId": job, "connection": name})) for id_, job in jobs.items()],
                )
            until(lambda: relay.metric("connection_suspended", connection="refused"), "one is suspended")
            until(lambda: bad["hanging"].faults["hang"] >= SLOTS, "one hangs, in all its slots")
            until(lambda: bad["slow"].faults["slow"] >= SLOTS, "one is slow, in all its slots")
            beside = _seconds_for(sandbox, good, "beside")
            assert beside < _as_fast_as(alone), (alone, beside)
            assert [len(bad[name].accepted) for name in ("refused", "hanging")] == [0, 0]
            assert relay.metric("connection_suspended", connection="default") == 0
            bad["hanging"].set_faults()


def test_an_order_that_stands_still_delays_no_other(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    stuck, queued = order_id("stuck"), 300
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay, Books(sandbox) as books:
        relay.wait_until_restored()
        alone = _seconds_for(sandbox, engage, "alone")
        job = engage.submit(stuck, fate="never")
        publish(sandbox, [(stuck, event(stuck, number, engage={"jobId": job})) for number in range(1, queued + 1)])
        polled = engage.requests["job", "200"]
        until(lambda: engage.requests["job", "200"] >= polled + 3, "the stuck order is polled")
        beside = _seconds_for(sandbox, engage, "beside")
        assert beside < _as_fast_as(alone), (alone, beside)
        until(lambda: len(books.read().live) == queued, "only the stuck order's actions are open")
        assert engage.events_of(stuck) == []


def test_a_flood_of_dead_letters_does_not_stop_the_stream(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    garbage = [Raw(b"k", b'{"type": "order.shipped", "orderId": %d' % number) for number in range(6_000)]
    with Engage() as engage, RelayThread(sandbox, engage.url) as relay, Books(sandbox) as books:
        relay.wait_until_restored()
        alone = _seconds_for(sandbox, engage, "alone")
        among = _seconds_for(sandbox, engage, "among", garbage)
        assert among < _as_fast_as(alone) + 6.0, (alone, among)
        books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.UNDECODABLE] * len(garbage)
        assert sorted(each.value or b"" for each in books.dead_letters) == sorted(each.value or b"" for each in garbage)
        assert len(engage.accepted) == 2 * BATCH


# Lateness


def polls_of(relay: RelayThread, series: str, **labels: str) -> float:
    return relay.metric(f"due_lateness_seconds_{series}", connection="default", **labels)


@pytest.mark.parametrize(("requests_per_second", "free"), [(RATE, True), (15.0, False)], ids=["free", "short"])
def test_how_late_a_due_poll_is_started_tells_a_free_rate_limit_from_a_short_one(
    sandboxes: SandboxFactory, requests_per_second: float, free: bool
) -> None:
    sandbox = sandboxes()
    calm = replace(QUICK, schedule=replace(QUICK.schedule, max_interval_s=5.0))
    orders = [order_id(number) for number in range(20)]
    with (
        Engage(processing="uniform:0s..1500ms") as engage,
        RelayThread(sandbox, engage.url, policy=calm, requests_per_second=requests_per_second) as relay,
    ):
        relay.wait_until_restored()
        publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)})) for order in orders])
        until(lambda: polls_of(relay, "count") >= len(orders), "they are polled")
        polls, in_a_second = polls_of(relay, "count"), polls_of(relay, "bucket", le="1.0")
        assert (in_a_second >= 0.99 * polls) is free


# The soak


def test_the_soak_reports_what_it_is_asked_for(scale: Scale) -> None:
    if scale is Scale.SHORT:
        pytest.skip("takes half a minute")
    command = [sys.executable, "-m", "benchmarks.endurance", "--minutes", "0.34", "--pending", "300", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    report: Mapping[str, object] = json.loads(done.stdout)
    assert report["published"] == sum(int(str(report[name])) for name in ("accepted", "pending", "dead_letters"))
    assert int(str(report["accepted"])) > 0
    assert int(str(report["pending"])) >= 300
    late = report["late_free"]
    assert isinstance(late, dict)
    assert late["polls"] > 100
    assert 0 < late["p50_s"] <= late["p99_s"] <= late["max_s"]
    assert done.returncode == (1 if report["misses"] else 0)
