"""The real Relay, built of the simulation's models as consumer/run/wiring.py builds it of Kafka's edges.

Everything comes in as a parameter: nothing of the production code is overwritten (test_simulation.py sees to it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from structlog.stdlib import BoundLogger

from consumer.admin.server import Heartbeats
from consumer.core import clock
from consumer.core.clock import Clock
from consumer.core.ledger.waits import Policy
from consumer.core.ownership import Assignment
from consumer.core.pacing import Pace, PollSchedule
from consumer.core.repeats import Repeats
from consumer.engage.client import EngageClient
from consumer.events.routing.router import Router
from consumer.kafka.control.asked_for import AskedFor
from consumer.kafka.facts import Fact
from consumer.kafka.journal.low_water_mark import Pinning
from consumer.kafka.parking.read_back import ParkedRecord, ReadBack
from consumer.kafka.restore.restore import Restorer
from consumer.kafka.restore.restored import Restored, Unservable
from consumer.relay.connections import Connection
from consumer.relay.dispatch import lease_of
from consumer.relay.inbox import Inbox
from consumer.relay.loop import Relay
from consumer.relay.outbox import Limits
from consumer.telemetry.metrics import Metrics
from tests.simulation.control import SimulatedControl
from tests.simulation.engage_model import SimulatedEngage
from tests.simulation.kafka_clients import SimulatedReader, read_facts
from tests.simulation.oracle import CONTACT_GRACE_S, DEADLINE_S, RATE_LIMIT
from tests.simulation.process import TOPICS, Process
from tests.simulation.threads import SimulatedJournal, SimulatedSource
from tests.simulation.workload import CONNECTIONS, ROUTER, ROUTER_ONCE, WINDOW_S

if TYPE_CHECKING:
    from tests.simulation.neighbour import NeighbourEngage
    from tests.simulation.scheduler import Scheduler

POLICY = Policy(
    PollSchedule(initial_s=1.0, max_interval_s=150.0, growth=3.0),
    deadline_s=DEADLINE_S,
    not_found_grace_s=60.0,
    contact_grace_s=CONTACT_GRACE_S,
)
LEARNING = replace(POLICY, schedule=PollSchedule(learns=True, max_interval_s=150.0))
LEARNS_IN = 8  # of so many schedules one: to plan takes longer than all the rest of a schedule
# Of production's sizes, what fits schedules of a few events.
MAX_BACKLOG = 20
MAX_PARKED = 4
PINNING = Pinning(span=12, rewrites=4)
CHECK_INTERVAL_S = 300.0


def _nothing(*_: object, **__: object) -> None: ...


# Facts that nobody here looks at; tests/unit has the numbers that come of them.
METRICS = cast("Metrics", SimpleNamespace(**{name: _nothing for name in vars(Metrics) if not name.startswith("_")}))
HEARTBEATS = cast("Heartbeats", SimpleNamespace(beat=_nothing, ended=_nothing))


class NotedReadBack(ReadBack):
    """Says what it does."""

    reach: Callable[[str], None]

    def read(self, assignment: Assignment, offsets: Sequence[int]) -> list[ParkedRecord]:
        found = super().read(assignment, offsets)
        self.reach("parked actions were read back" if len(found) == len(offsets) else "a parked record was not found")
        return found


class NotedRestorer(Restorer):
    """Says what it does."""

    reach: Callable[[str], None]

    def restore(
        self, assignments: Iterable[Assignment], patience_s: float | None = None, room: int | None = None
    ) -> list[Restored | Unservable]:
        assignments = list(assignments)
        restored = super().restore(assignments, patience_s, room)
        if 0 < len(restored) < sum(map(self._wanted, assignments)):
            self.reach("a restore left partitions for later")
        for each in restored:
            if isinstance(each, Restored) and each.parked:
                self.reach("a restore left actions parked")
            if isinstance(each, Restored) and each.again:
                self.reach("a restore found records of events that are still to be read")
        return restored


def clock_of(scheduler: Scheduler, name: str) -> Clock:
    """Return the clock of a process on a machine whose wall clock somebody may set."""

    def now() -> float:
        return scheduler.now

    if not scheduler.profile.skew_s:
        return now
    return clock.steady_clock(wall=lambda: scheduler.now + scheduler.wall_offset[name], since_boot=now)


def relay_of(
    scheduler: Scheduler, process: Process, engage: type[SimulatedEngage | NeighbourEngage] = SimulatedEngage
) -> Relay:
    """Return a process's relay; the process gets its source, its journal and its clock."""
    topics = {TOPICS.source: process.topics}
    properties: dict[str, str | int | float | bool] = {"session.timeout.ms": int(1000 * scheduler.profile.session_s)}
    inbox = Inbox()
    process.clock = clock_of(scheduler, process.name)
    process.source = source = SimulatedSource(process, properties, inbox.put)

    def noted(fact: Fact) -> None:
        scheduler.note(fact)
        inbox.put(fact)

    is_twin = scheduler.twins and process.name == "relay-1"
    process.journal = journal = SimulatedJournal(process, "relay-0" if is_twin else process.name, PINNING, noted)
    restorer = NotedRestorer(
        SimulatedReader(process),
        topics=topics,
        identities={TOPICS.source: process.identity},
        say=_nothing,
        wanted=source.owns,
        clock=process.clock,
        at_a_time=4,
        sequences=scheduler.sequences,
    )
    parked = NotedReadBack(
        lambda: SimulatedReader(process),
        topics=topics,
        wanted=source.owns,
        clock=process.clock,
    )
    parked.reach = scheduler.reach
    restorer.reach = scheduler.reach
    connections = [
        Connection(
            name=name,
            client=cast("EngageClient", engage(process, name)),
            pace=Pace(RATE_LIMIT),
            api_key=lambda: "key",
            slots=10,
            ahead=3,
        )
        for name in CONNECTIONS
    ]
    once = scheduler.profile.repeats
    return Relay(
        inbox=inbox,
        source=source,
        journal=journal,
        restorer=restorer,
        parked=parked,
        connections=connections,
        router=cast("Router", ROUTER_ONCE if once else ROUTER),
        repeats=Repeats(WINDOW_S) if once else None,
        sequences=scheduler.sequences,
        read_facts=partial(read_facts, process) if once or scheduler.profile.steps else None,
        policy=POLICY if scheduler.seed % LEARNS_IN else LEARNING,
        limits=Limits(scheduler.profile.max_pending, MAX_PARKED, MAX_BACKLOG),
        dead_letter_topics={process.topics.dead_letters},
        partition_counts={TOPICS.source: len(scheduler.numbers)},
        lease_s=lease_of(properties),
        clock=process.clock,
        jitter=scheduler.random,
        metrics=METRICS,
        heartbeats=HEARTBEATS,
        check_interval_s=CHECK_INTERVAL_S,
        control=SimulatedControl(process, inbox.put),
        asked_for=AskedFor(lambda: SimulatedReader(process), topics=topics, clock=process.clock),
        incarnations={TOPICS.source: process.identity.incarnation},
        log=cast(
            "BoundLogger",
            SimpleNamespace(info=_nothing, warning=_nothing, error=partial(scheduler.set_apart, process)),
        ),
    )
