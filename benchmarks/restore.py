"""How long a restart takes with 100,000 actions pending, and how much memory each of them takes.

    python -m benchmarks.restore                      figures
    python -m benchmarks.restore --actions 1000000    of so many, most of which are parked (core/parking.py)
    python -m benchmarks.restore --actions 20000 --document-bytes 70000    whose events bring the order's document
    python -m benchmarks.restore --check              exit code 1 where a goal is missed

The delay topic is filled as the journal fills it: the same records, in transactions of the same size, with positions
and committed offsets. Then a fresh process does what the relay does with an assignment (partitions.py): Restorer,
live_action, LowWaterMark, Repeats.assign, Ledger.assign, with the defaults of limits.pending and repeats. A second
fresh process does it again under tracemalloc, which is slow, where nothing is parked.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import process
from benchmarks.events import TOPIC, TOPICS, create_topics, event, publish
from consumer.core.clock import steady_clock
from consumer.core.effects import ActionId, Job, NewAction, Save
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.ownership import Assignment
from consumer.core.parking import Memory
from consumer.core.places import place_of
from consumer.core.repeats import Repeats
from consumer.events.decoding import decode
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.results import Routed
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from consumer.kafka import clients
from consumer.kafka.journal.low_water_mark import LowWaterMark
from consumer.kafka.journal.waiting_writes import MAX_BYTES, MAX_WRITES
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.pending import new_action, pending_value
from consumer.kafka.records.positions import position_value
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.restore.reader import KafkaReader
from consumer.kafka.restore.restore import Restorer
from consumer.kafka.restore.restored import Restored
from schemas.pending_action import POSITION_KEY, SourceIdentity
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

GOAL_S = 5.0
GOAL_S_MANY = 30.0  # where some are parked,
GOAL_FIRST_S = 10.0  # and so soon the first that are due are served
GOAL_BYTES = 1024
GOAL_MIB = 512
PENDING = 100_000  # limits.pending's default
GROUP = "engage-relay"
SOURCE = SourceIdentity(group=GROUP, topic=TOPIC)
CALL_TIMEOUT_S = 30.0
DOCUMENT_ROUTES = {"documents": RouteRule(action="ConfirmOrder", order="order", data="data")}
WINDOW_S = 86_400.0  # of `repeats`, its default


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What one restart took. Bytes are per pending action; of the process's memory, where it was not traced."""

    actions: int
    parked: int
    first_s: float
    read_s: float
    parse_s: float
    ledger_s: float
    total_s: float
    cpu_s: float
    resident_bytes: float
    peak_bytes: float
    traced_bytes: float
    peak_mib: float


# -- filling the delay topic ------------------------------------------------------------------------------------


def fill(bootstrap_servers: str, actions: int, partitions: int, document_bytes: int | None) -> float:
    """Publish the events, and write their pending records as the journal does. Returns a record's bytes on average.

    `document_bytes`: each event brings its order's document, of so many bytes.
    """
    create_topics(bootstrap_servers, partitions)
    publish(
        bootstrap_servers,
        (event(n, f"order-{n}", f"job-{n}", document_bytes=document_bytes) for n in range(actions)),
    )
    producer = Producer(clients.producer({"bootstrap.servers": bootstrap_servers}, "benchmark"), logger=clients.LOGGER)
    producer.init_transactions(CALL_TIMEOUT_S)
    # Not a member of the group: its generation is negative, which the broker does not check.
    reader = Consumer(
        clients.reader({"bootstrap.servers": bootstrap_servers, "group.id": GROUP}), logger=clients.LOGGER
    )
    sizes = 0
    rules = BUILT_IN_ROUTES if document_bytes is None else DOCUMENT_ROUTES
    for batch in _batches(reader, rules, actions, partitions, MAX_BYTES // ((document_bytes or 0) + 1000)):
        producer.begin_transaction()
        positions: dict[int, int] = {}
        for each, action in batch:
            value = pending_value(_save(each, action))
            producer.produce(TOPICS.delay, value, action_key(place_of(0, each.offset), action.route), each.partition)
            producer.poll(0)
            positions[each.partition] = each.offset + 1
            sizes += len(value)
        for partition, position in positions.items():
            producer.produce(TOPICS.delay, position_value(SOURCE, partition, position), POSITION_KEY, partition)
        offsets = [TopicPartition(TOPIC, partition, position) for partition, position in positions.items()]
        offsets += [TopicPartition(TOPICS.delay, partition, 0) for partition in positions]
        producer.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), CALL_TIMEOUT_S)
        producer.commit_transaction(CALL_TIMEOUT_S)
    reader.close()
    return sizes / actions


def _batches(
    reader: Consumer, rules: Mapping[str, RouteRule], actions: int, partitions: int, most: int
) -> Iterator[list[tuple[SourceEvent, NewAction]]]:
    """Read the events back and route them, as many at a time as fit into one transaction."""
    router = Router(compile_routes(rules, repeats_s=WINDOW_S), ["default"])
    reader.assign([TopicPartition(TOPIC, partition, 0) for partition in range(partitions)])
    read = 0
    while read < actions:
        batch: list[tuple[SourceEvent, NewAction]] = []
        for record in reader.consume(min(MAX_WRITES, most), 1.0):
            if record.error() is not None:
                continue
            key, value = record.key(), record.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            at = SourceEvent(
                topic=TOPIC,
                partition=record.partition() or 0,
                offset=record.offset() or 0,
                timestamp_ms=record.timestamp()[1],
                key=key,
                value=value,
            )
            decoded = decode(value)
            assert isinstance(decoded, dict)
            routed = router.route(decoded, at)
            assert isinstance(routed, Routed)
            batch.append((at, new_action(routed, at)))
        read += len(batch)
        if batch:
            yield batch


def _save(of: SourceEvent, action: NewAction) -> Save:
    now = time.time()
    action_id = ActionId(Assignment(TOPIC, of.partition, 1), of.offset)
    return Save(
        action_id=action_id,
        route=action.route,
        payload=action.payload,
        sending=False,
        first_seen=now,
        due=now + 1,
        attempts=0,
        sends=0,
        version_tag=None,
        job_id=action.target.job_id if isinstance(action.target, Job) else None,
    )


# -- the restart, in a process of its own -----------------------------------------------------------------------


def restart(bootstrap_servers: str, actions: int, partitions: int, *, traced: bool) -> Restart:
    """Do what the relay does with an assignment of all partitions."""
    properties = {"bootstrap.servers": bootstrap_servers, "group.id": GROUP}
    reader = KafkaReader(properties)
    restorer = Restorer(
        reader,
        topics={TOPIC: TOPICS},
        identities={TOPIC: SOURCE},
        say=print,
        wanted=lambda _: True,
        clock=steady_clock(),
    )
    assignments = [Assignment(TOPIC, partition, 1) for partition in range(partitions)]
    ledger = Ledger(Policy(), random.random, Memory(PENDING))
    repeats = Repeats(WINDOW_S)
    kept: list[object] = []
    gc.collect()
    before = process.memory_bytes(os.getpid(), "VmRSS")
    if traced:
        tracemalloc.start()

    started, cpu_before_s = time.monotonic(), time.process_time()
    read_s = parse_s = 0.0
    first_s: float | None = None
    while assignments:  # as relay/partitions.py does
        asked = time.monotonic()
        results = restorer.restore(assignments, room=ledger.parking.room_for_restore)
        restored = [each for each in results if isinstance(each, Restored)]
        del results
        reading_s = max(each.seconds for each in restored)  # what their records hold is read behind that
        read_s, parse_s = read_s + reading_s, parse_s + time.monotonic() - asked - reading_s
        for each in restored:
            parked_from = min((min(parked.offsets) for parked in each.parked.values()), default=None)
            kept.append(LowWaterMark(each.live, each.end, parked_from=parked_from))
            facts = [action.action.fact for action in each.actions if action.action.fact is not None]
            repeats.assign(each.assignment, facts, [parked.facts for parked in each.parked.values()])
            ledger.assign(each.assignment, each.actions, time.time(), each.parked)
            assignments.remove(each.assignment)
        del restored, each, facts
        first_s = first_s or time.monotonic() - started
    ended_at = time.monotonic()
    cpu_s = time.process_time() - cpu_before_s

    if ledger.open != actions:
        raise RuntimeError(f"{ledger.open} of {actions} pending actions came back")
    if len(repeats) != actions:
        raise RuntimeError(f"{len(repeats)} facts of {actions} pending actions are known")
    gc.collect()
    return Restart(
        actions=actions,
        parked=ledger.parking.count,
        first_s=first_s or 0.0,
        read_s=read_s,
        parse_s=parse_s,
        ledger_s=ended_at - started - read_s - parse_s,
        total_s=ended_at - started,
        cpu_s=cpu_s,
        resident_bytes=(process.memory_bytes(os.getpid(), "VmRSS") - before) / actions,
        peak_bytes=(process.memory_bytes(os.getpid(), "VmHWM") - before) / actions,
        traced_bytes=tracemalloc.get_traced_memory()[0] / actions if traced else 0.0,
        peak_mib=process.memory_bytes(os.getpid(), "VmHWM") / 2**20,
    )


def _restart_elsewhere(bootstrap_servers: str, actions: int, partitions: int, *, traced: bool) -> Restart:
    measured, _ = process.cores()
    child = [sys.executable, "-m", "benchmarks.restore", "--restart", bootstrap_servers]
    child += ["--actions", str(actions), "--partitions", str(partitions), *(["--traced"] if traced else [])]
    with process.pinned_to(measured):
        done = subprocess.run(child, stdout=subprocess.PIPE, check=True)
    return Restart(**json.loads(done.stdout.splitlines()[-1]))


# -- what is said -----------------------------------------------------------------------------------------------


def _goal_s(runs: list[Restart]) -> float:
    return GOAL_S_MANY if any(run.parked for run in runs) else GOAL_S


def _say(runs: list[Restart], traced: Restart | None, record_bytes: float) -> None:
    def middle(field: str) -> float:
        return statistics.median(float(getattr(run, field)) for run in runs)

    parked = int(middle("parked"))
    print(f"{runs[0].actions} pending actions, records of {record_bytes:.0f} bytes; medians of {len(runs)} restarts.")
    print(f"  {runs[0].actions - parked:8d} held, {parked} parked")
    print(f"  {middle('total_s'):8.2f} s in total (goal: under {_goal_s(runs):g} s), of which")
    print(f"  {middle('first_s'):8.2f} s until the first of them are served (goal: under {GOAL_FIRST_S:g} s)")
    for field, what in (
        ("read_s", "reading from the broker"),
        ("parse_s", "parsing the records"),
        ("ledger_s", "ledger, facts and low-water mark"),
    ):
        print(f"  {middle(field):8.2f} s {what}")
    print(f"  {middle('cpu_s'):8.2f} s of CPU, which other work on the machine does not lengthen as it does the rest")
    if traced is not None:
        print(f"  {traced.traced_bytes:8.0f} bytes per pending action held (tracemalloc; goal: under {GOAL_BYTES})")
    print(f"  {middle('resident_bytes'):8.0f} bytes per pending action that the process stays larger by (VmRSS)")
    print(f"  {middle('peak_bytes'):8.0f} bytes per pending action at the peak of the restart (VmHWM)")
    print(f"  {middle('peak_mib'):8.0f} MiB at the peak, all in all (goal: under {GOAL_MIB})")


def main() -> int:
    """Run and print. Returns the exit code."""
    process.require_linux()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__.split("\n")[0])
    parser.add_argument("--actions", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--document-bytes", type=int, help="each event brings its order's document, of so many bytes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--restart", metavar="SERVERS", help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    # `make bench ARGS=…` hands the same words to both benchmarks.
    given, _ = parser.parse_known_args()
    if given.restart:
        print(json.dumps(asdict(restart(given.restart, given.actions, given.partitions, traced=given.traced))))
        return 0
    _, others = process.cores()
    os.sched_setaffinity(0, others)  # inherited by the broker
    with KafkaBroker(jvm=JVM_FOR_LOAD) as broker:
        servers = broker.bootstrap_servers
        record_bytes = fill(servers, given.actions, given.partitions, given.document_bytes)
        runs = [_restart_elsewhere(servers, given.actions, given.partitions, traced=False) for _ in range(given.runs)]
        traced = None
        if not any(run.parked for run in runs):
            traced = _restart_elsewhere(servers, given.actions, given.partitions, traced=True)
    if given.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "traced": traced and asdict(traced)}))
    else:
        _say(runs, traced, record_bytes)
    total_s = statistics.median(run.total_s for run in runs)
    missed = (
        total_s >= _goal_s(runs)
        or statistics.median(run.first_s for run in runs) >= GOAL_FIRST_S
        or max(run.peak_mib for run in runs) >= GOAL_MIB
        or (traced is not None and traced.traced_bytes >= GOAL_BYTES)
    )
    return 1 if given.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
