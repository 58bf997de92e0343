"""The control topic in a schedule: who pauses what, who has heard of it, and what must hold then.

What must hold (mutations of the production code that break it: pause_mutants.py):
 1. Nothing is sent to Engage that changes something while a pause holds it that the instance knows of, nor before the
    instance has read the topic at all.
 2. No deadline and no grace counts the time on hold: no action is given up because of a pause.
 3. What was on hold ends as all else does once everything is resumed.
 4. Only what a person discards is withheld, and nothing that Engage may have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from consumer.core.pauses import Pause, Pauses, Scope
from consumer.kafka.control.records import PARTITION
from consumer.kafka.facts import ControlRead, Report
from tests.simulation.process import CONTROL
from tests.simulation.workload import Event

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.scheduler import Scheduler

HEARD_AFTER_S = (0.0, 0.01, 0.5, 5.0)
RETRY_S = 1.0  # of a reader that is cut off or frozen
LASTS_S = (5.0, 60.0, 300.0)


class SimulatedControl:
    """consumer/kafka/control/reader.py without its thread: it hears some time later of what the topic says."""

    def __init__(self, process: Process, report: Report) -> None:
        self._process = process
        self._report = report
        self._stopped = False
        self._asked = 0

    def start(self) -> None:
        self._process.scheduler.control.readers.append(self)
        self.hear_soon()

    def stop(self) -> None:
        self._stopped = True

    def ask(self) -> int:
        self._asked += 1
        self.hear_soon()
        return self._asked

    def hear_soon(self) -> None:
        scheduler = self._process.scheduler
        scheduler.at(scheduler.now + scheduler.pick(HEARD_AFTER_S), self._hear)

    def _hear(self) -> None:
        scheduler, process = self._process.scheduler, self._process
        if self._stopped or not process.alive or process.ended:
            return
        log = scheduler.kafka.logs[CONTROL, PARTITION]
        if process.frozen or process.cut or log.open:  # settled records alone are read, up to the end
            scheduler.at(scheduler.now + RETRY_S, self._hear)
            return
        told = () if process.is_neighbour else tuple(scheduler.control.pauses.values())
        if any(each.is_on(scheduler.now) for each in told):
            scheduler.reach("an instance heard of a pause")
        self._report(ControlRead(Pauses(told), 0, scheduler.requests.open, self._asked))
        scheduler.at(scheduler.now + 1.0, self._look)

    def _look(self) -> None:
        if self._process.alive and self._process.relay._ledger.counts()["paused"]:
            self._process.scheduler.reach("an action was on hold")


class ControlTopic:
    """All that the topic says, and those who follow it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.pauses: dict[str, Pause] = {}
        self.readers: list[SimulatedControl] = []

    def pause(self) -> None:
        """Be the operator, and pause something for a while."""
        scheduler = self._scheduler
        of = scheduler.pick(("all", "route", "action", "connection"))
        pause = Pause(
            id=str(len(self.pauses)),
            begun=scheduler.now,
            reason="a simulation",
            connection="default" if of == "connection" else None,
            route=scheduler.pick(("resend", "with_document", "dead_letter")) if of == "route" else None,
            action=scheduler.pick(("ConfirmShipment", "ConfirmOrder")) if of == "action" else None,
            until=scheduler.now + scheduler.pick(LASTS_S) if scheduler.chance(0.3) else None,
            discard=scheduler.chance(0.3),
        )
        scheduler.say(f"paused: {pause.what}, {'discard' if pause.discard else 'hold'}, until {pause.until}")
        self.pauses[pause.id] = pause
        self.tell()
        if pause.until is None:
            scheduler.at(scheduler.now + scheduler.pick(LASTS_S), lambda: self.resume(pause.id))

    def resume(self, pause_id: str) -> None:
        """Be the operator, and end a pause."""
        pause = self.pauses[pause_id]
        if pause.ended is None:  # also where its own end has passed: not by the clock of an instance that is behind
            self._scheduler.say(f"resumed: {pause.what}")
            self.pauses[pause_id] = replace(pause, ended=self._scheduler.now)
            self.tell()

    def resume_all(self) -> None:
        for each in list(self.pauses):
            self.resume(each)

    def tell(self) -> None:
        for reader in self.readers:
            reader.hear_soon()

    # -- what must hold -----------------------------------------------------------------------------------------

    def sent(self, process: Process, event: Event) -> None:
        """Something leaves: rule 1."""
        relay, now = process.relay, process.clock()
        if relay._control_facts.wait is not None:
            self._scheduler.violate(f"event {event.number} is sent before {process.id} knows which pauses there are")
        for each in relay._ledger.pauses.known:
            if each.is_on(now) and covers(each, event):
                self._scheduler.violate(f"event {event.number} is sent, though {process.id} knows of a pause")

    def held_s(self, event: Event, since: float, heard_after_s: float = 0.0) -> float:
        """Return for how long a pause covered an event since then, if everybody heard of each pause so much later."""
        now, held_s, counted_to = self._scheduler.now, 0.0, since
        for each in sorted(self.pauses.values(), key=lambda pause: pause.begun):
            begun, end = max(each.begun + heard_after_s, counted_to), min(each.end, now)
            if covers(each, event) and end > begun:
                held_s += end - begun
                counted_to = end
        return held_s

    def may_be_withheld(self, event: Event) -> bool:
        """Whether somebody discards, or discarded, such actions."""
        return any(each.discard and covers(each, event) for each in self.pauses.values())


def scope_of(event: Event) -> Scope:
    """Return what its action is, as the routes of workload.py say."""
    action = "ConfirmShipment" if event.route in ("resend", "each") else "ConfirmOrder"
    return Scope("other" if event.order == "C" else "default", event.route, action)


def covers(pause: Pause, event: Event) -> bool:
    named = (pause.connection, pause.route, pause.action)
    return all(name is None or name == its for name, its in zip(named, scope_of(event), strict=True))
