"""A busy instance at a busy moment, for the tests of the status page and for its picture: the same every time."""

from __future__ import annotations

import math
import random

from consumer.admin.status import status_of
from consumer.admin.status_model import Status
from consumer.core.ledger.book import AGE_SLOT_S
from consumer.core.ledger.entries import State
from consumer.telemetry.rolling import Flow, History
from consumer.telemetry.snapshot import ConnectionFigures, DeadLettered, Halt, PartitionFigures, Snapshot
from schemas.dead_letter import Reason

NOW = 1_795_608_000.0  # 2026-11-25T12:00:00Z
STARTED = NOW - 3 * 3600 - 17 * 60
DEAD_LETTERS = (
    (Reason.REJECTED, 3, 48_211, 95.0),
    (Reason.INVALID_EVENT, 0, 51_020, 260.0),
    (Reason.REJECTED, 1, 49_876, 1_320.0),
    (Reason.NOT_FOUND, 2, 47_003, 4_100.0),
    (Reason.REJECTED, 3, 46_950, 9_700.0),
)


def flow(seed: int = 3) -> Flow:
    """Return ten minutes of a sale that begins: more and more events, and Engage keeps up."""
    chance = random.Random(seed)
    history = History()
    history.tick(STARTED, 0, 0)
    for each in reversed(DEAD_LETTERS):
        history.dead_lettered(each[0])
    start, found = NOW - 606, Flow()
    for second in range(607):
        busy = 6 + 10 / (1 + math.exp((260 - second) / 45)) + 2 * math.sin(second / 37)
        for connection, share in (("nordics", 0.7), ("dach", 0.3)):
            for _ in range(_about(busy * share, chance)):
                history.consumed(1)
                history.requested(connection)
                history.requested(connection)
                history.accepted(connection)
                history.took(chance.lognormvariate(0.95 + busy / 60, 0.55), chance.lognormvariate(-2.6, 0.45))
        waiting = round(busy * 3.1 + chance.random() * 4) + 77
        found = history.tick(start + second, waiting, 0)
    return Flow(STARTED, found.slices, found.dead_letters)


def _about(rate: float, chance: random.Random) -> int:
    return int(rate) + (chance.random() < rate % 1)


def snapshot() -> Snapshot:
    """Return what goes with it: one of three connections is suspended."""
    open_ = {"queued": 9, "waiting": 52, "due": 0, "polling": 11, "tagged": 41, "saving": 2, "ready": 1, "sending": 6}
    counts = {each.name.lower(): open_.get(each.name.lower(), 0) for each in State if each is not State.GONE}
    slot = int(NOW // AGE_SLOT_S)
    return Snapshot(
        pending=counts,
        overdue=41,
        rate_limit_share=0.5,
        partitions_owned=4,
        lag={("orders", 0): 3, ("orders", 1): 0, ("orders", 2): 11, ("orders", 3): 1},
        connections={
            "nordics": ConnectionFigures(requests_per_second=23.25, rate_limit=50, in_flight=13),
            "dach": ConnectionFigures(requests_per_second=23.25, rate_limit=50, in_flight=4),
            "outlet": ConnectionFigures(
                requests_per_second=11.1,
                suspended=True,
                cooling_down=True,
                halt=Halt("Engage refuses its API key (401)", NOW - 760, suspended=True),
                next_at=NOW + 21,
                rate_limit=25,
            ),
        },
        at=NOW,
        first_seen={slot: 49, slot - 3: 20, slot - 12: 11, slot - 40: 14, slot - 70: 28},
        next_due=NOW + 0.9,
        max_pending=100_000,
        partitions={
            ("orders", number): PartitionFigures("open", pending) for number, pending in enumerate((38, 17, 44, 23))
        },
        dead_letters=tuple(
            DeadLettered(reason, "orders", partition, offset, "orders.engage.dead-letters", offset // 7000, NOW - ago_s)
            for reason, partition, offset, ago_s in reversed(DEAD_LETTERS)
        ),
    )


def status() -> Status:
    """Return all of it."""
    return status_of((snapshot(), flow()), version="0.2.0", age_s=0.4)
