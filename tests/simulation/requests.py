"""People's requests in a schedule, and what must hold (mutations of the production code: request_mutants.py).

1. A request is answered once. What it asks for is done in the transaction of its answer, or not at all.
2. Only an action that had ended is sent again, once for each request that is answered so; a dead letter once at all.
3. Only what somebody asked to drop is dropped, and nothing that Engage may have.
4. In the end each request is answered.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from consumer.core.places import incarnation_at
from consumer.core.requests import DeadLetterId, Request, What
from consumer.kafka.control.records import PARTITION, Answered, read_request, request_key, request_value
from schemas.control import REQUEST
from schemas.dead_letter import DeadLetterHeaders
from tests.simulation.kafka_model import Record
from tests.simulation.outcomes import is_mark
from tests.simulation.process import CONTROL, TOPICS
from tests.simulation.workload import Event

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler

_ASKED_BY = re.compile(rb'"asked_by":"([^"]+)"')
WHAT: tuple[What, ...] = ("send_again", "send_again", "send_again", "retry_now", "drop")


class Requests:
    """What people ask, and what they are answered."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._asked: dict[str, Request] = {}
        self._answered: set[str] = set()
        self._torn: set[str] = set()
        self._redriven: defaultdict[DeadLetterId, set[str]] = defaultdict(set)
        self._seen: set[bytes] = set()

    @property
    def open(self) -> dict[str, Request]:
        """Those that the topic's settled records say are open."""
        latest = self._scheduler.kafka.logs[CONTROL, PARTITION].live.values()
        read = (read_request((each.key or b"").decode().removeprefix(REQUEST), each.value or b"") for each in latest)
        return {each.id: each for each in read if isinstance(each, Request)}

    def ask(self) -> bool:
        """Be a person, and ask for something; tells whether there was something to ask for."""
        request = self._redrive() if self._scheduler.chance(0.3) else self._of_event()
        if request is None:
            return False
        scheduler = self._scheduler
        scheduler.say(f"request {request.id}: {request.what} {request.partition}:{request.offset}")
        self._asked[request.id] = request
        scheduler.kafka.logs[CONTROL, PARTITION].append(request_key(request), request_value(request), scheduler.now)
        scheduler.control.tell()
        return True

    def _of_event(self) -> Request | None:
        scheduler = self._scheduler
        there = [
            event
            for events in scheduler.oracle.events.values()
            for event in events
            if event.payload and incarnation_at(event.place) == scheduler.oracle.incarnation
        ]
        if not there:
            return None
        event, what = scheduler.pick(there), scheduler.pick(WHAT)
        return self._new(what, event.partition, event.offset, incarnation_at(event.place))

    def _redrive(self) -> Request | None:
        found = [
            (log.partition, record)
            for (topic, _), log in self._scheduler.kafka.logs.items()
            if topic == TOPICS.dead_letters
            for record in log.settled()
            if not is_mark(record)
        ]
        if not found:
            return None
        partition, record = self._scheduler.pick(found)
        why = DeadLetterHeaders.from_kafka((n, v.encode() if isinstance(v, str) else v) for n, v in record.headers)
        at = DeadLetterId(TOPICS.dead_letters, partition, record.offset)
        return self._new("send_again", why.source_partition, why.source_offset, why.source_incarnation or 0, at)

    def _new(
        self, what: What, partition: int, offset: int, incarnation: int, dead_letter: DeadLetterId | None = None
    ) -> Request:
        return Request(
            id=f"{len(self._asked):04}",
            what=what,
            topic=TOPICS.source,
            partition=partition,
            offset=offset,
            incarnation=incarnation,
            dead_letter=dead_letter,
            reason="a simulation",
            asked_by="resend" if dead_letter is None else "redrive",
            asked=self._scheduler.now,
        )

    def is_first(self, record: Record) -> bool:
        """Whether an action's record is the first one that says who asked for it."""
        found = _ASKED_BY.search(record.value or b"")
        if found is None or found[1] in self._seen:
            return False
        self._seen.add(found[1])
        return True

    # -- what must hold -----------------------------------------------------------------------------------------

    def answered(self, record: Record, *, torn: bool) -> tuple[int, int] | None:
        """Take an answer. Returns the partition and place of what is sent again.

        `torn`: a delayed request committed it, so who wrote it may write it again.
        """
        scheduler = self._scheduler
        answer = read_request((record.key or b"").decode().removeprefix(REQUEST), record.value or b"")
        assert isinstance(answer, Answered), answer
        request, text = answer.request, answer.answer
        scheduler.say(f"request {request.id} is answered: {text.detail}")
        if request.id in self._answered - self._torn:
            scheduler.violate(f"request {request.id} is answered twice")
        self._answered.add(request.id)
        (self._torn.add if torn else self._torn.discard)(request.id)
        scheduler.control.tell()
        scheduler.reach(f"{request.what} {'done' if text.is_done else 'refused'}: {text.detail}")
        at = request.dead_letter
        self._seen.add((f"{request.asked_by} {request.id}" if at is None else f"redrive of {at}").encode())
        if not text.is_done or request.what != "send_again":
            return None
        if request.dead_letter is not None:
            self._redriven[request.dead_letter].add(request.id)
            if len(self._redriven[request.dead_letter]) > 1:
                scheduler.violate(f"dead letter {request.dead_letter} is redriven twice")
        return request.partition, request.place

    def may_be_dropped(self, event: Event) -> bool:
        """Whether somebody asked for that."""
        at = (event.partition, event.place)
        return any(each.what == "drop" and (each.partition, each.place) == at for each in self._asked.values())
