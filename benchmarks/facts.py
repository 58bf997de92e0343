"""What it takes to know a million facts, sent ones and open ones: memory, and the time to read them back.

`python -m benchmarks.facts [MILLIONS]`: without a broker, so the figures are those of parsing and keeping alone. The
broker's part is the time that its log takes to travel.
"""

from __future__ import annotations

import sys
import time
import tracemalloc

from consumer.config.sections.connections import RECOMMENDED_REQUESTS_PER_SECOND
from consumer.core.ownership import Assignment
from consumer.core.pacing import Pace
from consumer.core.repeats import Repeats
from consumer.events.facts import digest_of
from consumer.kafka.outcomes.sent_facts import sent_fact

OURS = Assignment("orders", 0, 1)
PARSED = 100_000
RECORD = (
    '{{"version":1,"outcome":"accepted","connection":"default","order_id":"A-{0}","route":"shipped","action":'
    '"ConfirmShipment","fact":"{1}","place":{{"topic":"orders","partition":0,"offset":{0}}},"event_ms":1795000000000,'
    '"first_seen_ms":1795000000000,"sent_ms":1795000000100,"answered_ms":1795000000200,"ended_ms":1795000000200,'
    '"attempts":1,"sends":1,"asked_by":"event"}}'
)


def outcome_of(number: int) -> bytes:
    """Return the outcome of an accepted action, as the relay writes it."""
    return RECORD.format(number, digest_of("default", f"ConfirmShipment A-{number}")).encode()


def main() -> None:
    """Print the figures."""
    count = int(float(sys.argv[1] if len(sys.argv) > 1 else "1") * 1_000_000)
    values = [outcome_of(n) for n in range(PARSED)]
    started = time.perf_counter()
    for value in values:
        sent_fact(value)
    parsing_s = time.perf_counter() - started
    facts = [bytes.fromhex(digest_of("default", f"ConfirmShipment A-{n}")) for n in range(count)]
    repeats = Repeats(86_400.0)
    repeats.assign(OURS, [])
    started = time.perf_counter()
    repeats.restore(OURS, ((fact, float(n)) for n, fact in enumerate(facts)))
    keeping_s = time.perf_counter() - started
    tracemalloc.start()
    measured = Repeats(86_400.0)
    measured.assign(OURS, [])
    measured.restore(OURS, ((fact, float(n)) for n, fact in enumerate(facts[:PARSED])))
    held = tracemalloc.get_traced_memory()[0] / PARSED
    parked = bytearray().join(facts)
    tracemalloc.stop()
    started = time.perf_counter()
    Repeats(86_400.0).assign(OURS, [], [parked])
    opening_s = time.perf_counter() - started
    tracemalloc.start()
    measured = Repeats(86_400.0)
    measured.assign(OURS, [], [parked])
    held_open = tracemalloc.get_traced_memory()[0] / count
    print(f"parsing {parsing_s / PARSED * 1e6:.1f} s, keeping {keeping_s / count * 1e6:.1f} s per million facts")
    print(f"{held:.0f} bytes of memory per fact, {len(values[-1])} bytes of a record to read")
    pace = Pace(RECOMMENDED_REQUESTS_PER_SECOND)
    pace.set_share(1.0, 0.0)
    facts_of_a_day = 86_400 * pace.rate(0.0) / 2
    print(f"{held * facts_of_a_day / 1e6:.0f} MB for a day at Engage's recommended rate limit, two requests for each")
    print(f"opening {opening_s / count * 1e6:.1f} s per million parked facts, {held_open:.0f} bytes of memory for each")


if __name__ == "__main__":
    main()
