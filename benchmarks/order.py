"""How long customer service waits for the timeline of one order, where its partition holds very many.

    python -m benchmarks.order                       a million events, and as many outcomes
    python -m benchmarks.order --events 100000

Rules:
 1. The command is called as a person calls it, as a process of its own: its start counts.
 2. The order lies in the middle. Nobody knows where, so both topics are read whole.
 3. What it says while it reads is counted as the seconds until its first line of progress.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

from confluent_kafka import Producer

from benchmarks import process
from benchmarks.events import MAX_QUEUED, TOPIC, TOPICS, create_topics, event, publish
from benchmarks.facts import outcome_of
from consumer.kafka.outcomes.outcomes import key_of
from tests.support.broker import JVM_FOR_LOAD, KafkaBroker

GOAL_S = 2.0  # until it has the answer, or says what it does
OUTCOMES = f"{TOPIC}.engage.outcomes"


def fill(bootstrap_servers: str, events: int) -> None:
    """Write the events, and what became of each."""
    create_topics(bootstrap_servers, 1, replace(TOPICS, outcomes=OUTCOMES))
    publish(bootstrap_servers, (event(n, f"A-{n}", f"job-{n}") for n in range(events)))
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "log_level": 0})
    for n in range(events):
        while len(producer) >= MAX_QUEUED:
            producer.poll(0.1)
        producer.produce(OUTCOMES, outcome_of(n), key_of("default", f"A-{n}"), 0)
        producer.poll(0)
    if producer.flush(60.0):
        raise RuntimeError("outcomes were not written: the broker is too slow")


def ask(bootstrap_servers: str, order_id: str) -> tuple[float, float | None, int]:
    """Call the command. Returns its seconds, those until its first line of progress, and how many events it found."""
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "ENGAGE_BASE_URL": "http://127.0.0.1:9",
        "ENGAGE_API_KEY": "benchmark",
    }
    started = time.monotonic()
    first_s: float | None = None
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", "order", order_id, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        if asked.stderr.readline():
            first_s = time.monotonic() - started
        asked.stderr.read()
        told = json.loads(asked.stdout.read())
    if asked.returncode:
        raise RuntimeError(f"it ended with {asked.returncode}")
    return time.monotonic() - started, first_s, len(told["entries"])


def main() -> int:
    """Run and print. Returns the exit code."""
    process.require_linux()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.order", description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    measured, others = process.cores()
    os.sched_setaffinity(0, others)  # inherited by the broker
    with KafkaBroker(jvm=JVM_FOR_LOAD) as broker:
        fill(broker.bootstrap_servers, events)
        with process.pinned_to(measured):
            seconds, first_s, found = ask(broker.bootstrap_servers, f"A-{events // 2}")
    print(f"{found} event of the order, among {events} events and as many outcomes in its partition:")
    print(f"  {seconds:8.2f} s until the answer")
    if first_s is None:
        print("           without a word before")
    else:
        print(f"  {first_s:8.2f} s until it says what it does")
    print(f"  {GOAL_S:8.2f} s is the goal for the first of the two")
    return 0


if __name__ == "__main__":
    sys.exit(main())
