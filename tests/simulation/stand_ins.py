"""What the relay is given in place of its threads, its clients, its clock, its metrics and its logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, cast

import consumer.kafka.records
import consumer.kafka.transactions
import consumer.relay.loop
from consumer.core import clock
from consumer.events.decoding import decode
from consumer.kafka import low_water_mark
from consumer.telemetry.metrics import Metrics
from tests.simulation.kafka_clients import SimulatedReader
from tests.simulation.threads import SimulatedJournal, SimulatedSource

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler


def _nothing(*_: object, **__: object) -> None: ...


def _as_it_is(payload: bytes) -> bytes:
    return payload


# Facts that nobody here looks at; tests/unit has the numbers that come of them.
METRICS = cast("Metrics", SimpleNamespace(**{name: _nothing for name in vars(Metrics) if not name.startswith("_")}))
SILENT = SimpleNamespace(beat=_nothing, ended=_nothing, info=_nothing, warning=_nothing, error=_nothing)


class MachineClock:
    """The `time` module on one machine of the world: consumer/core/clock.py makes its clock of it."""

    CLOCK_BOOTTIME = 7

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self._scheduler = scheduler
        self._name = name

    def time(self) -> float:
        """The wall clock, as somebody has set it."""
        return self._scheduler.now + self._scheduler.wall_offset[self._name]

    def clock_gettime(self, _: int) -> float:
        return self._scheduler.now


_NAMES = count()
_PLACED: list[tuple[ModuleType, dict[str, object]]] = [
    (
        consumer.relay.loop,
        {
            "Source": SimulatedSource,
            "Journal": SimulatedJournal,
            "KafkaReader": SimulatedReader,
            "ThreadPoolExecutor": lambda *_, **__: SimpleNamespace(shutdown=_nothing),
            "TICK_S": 300.0,
            "MAX_BACKLOG": 20,
            "_LOG": SILENT,
            "decode": lru_cache(10_000)(decode),  # of bytes, and nobody changes what comes of them
        },
    ),
    (
        consumer.kafka.transactions,
        {"uuid": SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"transaction {next(_NAMES)}"))},
    ),
    (consumer.kafka.records, {"_packed": _as_it_is, "_unpacked": _as_it_is}),  # it saves memory, and takes time
    (low_water_mark, {"PINNED_SPAN": 12, "REWRITES": 4}),
    (clock, {"time": vars(clock)["time"]}),  # set for each machine
]
_placed = False


@contextmanager
def stand_ins() -> Iterator[None]:
    """Give the relay the world's threads and clients, and constants that fit a small world. May be nested."""
    global _placed  # noqa: PLW0603 - as the modules are
    if _placed:
        yield
        return
    before = [(module, {name: vars(module)[name] for name in values}) for module, values in _PLACED]
    for module, values in _PLACED:
        vars(module).update(values)
    _placed = True
    try:
        yield
    finally:
        _placed = False
        for module, values in before:
            vars(module).update(values)
