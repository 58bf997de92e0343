"""What must hold in the world, checked at every commit, acceptance and request.

Rules (each has a mutation of the production code that breaks it, mutations.py):
 1. The account balances at every commit and acceptance: each event behind a partition's position is exactly one of
    passed, pending, dead letter, accepted. Kafka's content is one counter, Engage's account with the list of events
    the other.
 2. An action is sent only under an intent that is committed and was not sent under before, only by the partition's
    owner, and not before every earlier action of its order has ended.
 3. It is sent again only in doubt, only where its route says so, and never at once.
 4. Offsets are committed for owned partitions only, under a generation, after the records; no position goes back.
 5. The low-water mark never passes a live record.
 6. No second holds more requests than the budget (and one more per instance, which rounds its share up).
 7. When everything is healed, everything ends.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from consumer.outcomes import Accepted, ActionOutcome
from consumer.ownership import Partition
from consumer.records import read_position
from schemas.dead_letter import PREFIX
from schemas.pending_action import POSITION_KEY
from tests.world.events import Event
from tests.world.instance import TOPICS, Instance
from tests.world.kafka import Member, Record, Transaction

if TYPE_CHECKING:
    from tests.world.world import World

BUDGET = 5.0
LEAST_WAIT_S = 8.0  # before an action in doubt is sent again: 10 s, spread by 20 %


class Account:
    """The two counters and the rules of the module. `by_offset`: what was published, by partition."""

    def __init__(self, world: World, partitions: int) -> None:
        self._world = world
        self._requests: deque[float] = deque()
        self._letters: Counter[tuple[int, int]] = Counter()
        self.excused_until = 0.0  # until then a process may not know yet that its share is another one's
        self.positions = dict.fromkeys(range(partitions), 0)
        self.by_offset: list[list[Event]] = [[] for _ in range(partitions)]

    def requested(self, instance: Instance) -> None:
        """A request goes to Engage: rule 6."""
        self._requests.append(self._world.now)
        while self._requests[0] <= self._world.now - 1.0:
            self._requests.popleft()
        stale = self._world.now < self.excused_until or any(
            i is not None and (i.cut or i.frozen) for i in self._world.instances.values()
        )
        # Each instance may round its share up, and catch a little up.
        if len(self._requests) > BUDGET and not stale:
            self._world.violate(f"{len(self._requests)} requests within a second")

    def _owner(self, at: Partition) -> Member | None:
        return next((member for member in self._world.kafka.members.values() if at in member.owned), None)

    def posted(self, instance: Instance, event: Event) -> int:
        """An action is sent: rules 2 and 3. Returns the epoch under which."""
        at = (TOPICS.source, event.partition)
        epoch = instance.source.ownership.owned.get(at, -1)
        self._world.say(f"{instance.id} sends event {event.number} (epoch {epoch})")
        record = self._world.kafka.logs[TOPICS.delay, event.partition].latest.get(event.key)
        if record is None or record.value is None or b'"state":"sending"' not in record.value[:40]:
            self._world.violate(f"event {event.number} is sent without a saved intent")
        elif record.offset <= event.sent_under:
            self._world.violate(f"event {event.number} is sent twice under one intent")
        else:
            event.sent_under = record.offset
        owner = self._owner(at)
        if owner is None or not owner.id.startswith(instance.id.encode() + b"/"):
            self._world.violate(
                f"event {event.number} is sent by {instance.id}, though {owner and owner.id!r} owns {at}"
            )
        for earlier in self.by_offset[event.partition][: event.offset]:
            if earlier.order == event.order and earlier.routed and not self._ended(earlier):
                self._world.violate(f"event {event.number} overtakes event {earlier.number}")
        if event.unanswered:
            self._world.reach("an action in doubt was sent again")
            if not event.resend:
                self._world.violate(f"event {event.number} is sent again in doubt, though its route says dead_letter")
            if self._world.now - event.sent_at < LEAST_WAIT_S:
                self._world.violate(f"event {event.number} is sent again at once, in doubt")
        if event.told == (instance.id, epoch):
            self._world.violate(f"event {event.number} is sent again, though its acceptance was taken in")
        event.unanswered = event.ever_in_doubt = True
        event.sent_at = self._world.now
        return epoch

    def _ended(self, event: Event) -> bool:
        return event.deleted or event.accepted > 0 or self._letters[event.partition, event.offset] > 0

    def answered(self, instance: Instance, event: Event, epoch: int, outcome: ActionOutcome) -> None:
        event.unanswered = False
        if isinstance(outcome, Accepted):
            event.told = (instance.id, epoch)

    def accepted(self, event: Event) -> None:
        """Engage processed an action: its account."""
        event.accepted += 1
        self._world.say(f"Engage accepts event {event.number}")
        if event.accepted > 1:
            self._world.reach("an action was accepted twice, in doubt")
        self._balance([event.partition])

    def offsets_sent(self, member: Member | None, generation: int, serial: int, offsets: Iterable[Partition]) -> None:
        """The broker takes offsets: rule 4."""
        if generation < 0:
            self._world.violate(f"offsets are sent under generation {generation}, which nobody checks")
        for at in offsets:
            if at[0] == TOPICS.source and (member is None or at not in member.owned):
                self._world.violate(f"{member and member.id!r} commits for {at}, which it does not own")
            if (TOPICS.delay, at[1]) not in self._world.kafka.written.get(serial, ()):
                self._world.violate(f"offsets of {at} are sent before the records")

    def committed(self, transaction: Transaction, torn: bool) -> None:
        partitions = {log.partition for log, _ in transaction.records} | {at[1] for at in transaction.offsets}
        for log, record in transaction.records:
            if log.topic == TOPICS.dead_letters:
                self._letters[log.partition, _source_offset(record)] += 1
                self._world.reach(f"dead letter: {_header(record, 'reason')}")
        if torn or {at[1] for at in transaction.offsets} != partitions:
            self._world.reach("a delayed request committed another transaction")
            for number in partitions:
                for event in self.by_offset[number][self.positions[number] :]:
                    event.torn = True
            for log, record in transaction.records:
                # It is written again, and a dead letter has no key that would make it one.
                if log.topic == TOPICS.dead_letters:
                    self.by_offset[log.partition][_source_offset(record)].torn = True
        self._balance(partitions)

    def position(self, number: int) -> int:
        known = self._world.kafka.committed.get((TOPICS.source, number))
        if known is not None:
            return known[0]
        record = self._world.kafka.logs[TOPICS.delay, number].latest[POSITION_KEY]
        return read_position(record.value or b"") or 0

    def _balance(self, partitions: Iterable[int]) -> None:
        """Rules 1, 4 and 5, for these partitions."""
        for number in partitions:
            log = self._world.kafka.logs[TOPICS.delay, number]
            position = self.position(number)
            if position < self.positions[number]:
                self._world.violate(f"the position of {number} goes back from {self.positions[number]} to {position}")
            self.positions[number] = position
            mark = self._world.kafka.committed.get((TOPICS.delay, number))
            live: dict[bytes, Record] = {r.key: r for r in log.live if r.key is not None and r.key != POSITION_KEY}
            if mark is not None and any(record.offset < mark[0] for record in live.values()):
                self._world.violate(f"the low-water mark of {number} is {mark[0]}, behind a live record")
            balance: Counter[str] = Counter()
            for event in self.by_offset[number]:
                what = self._what_became(
                    event, event.offset < position, live.pop(event.key, None), event.key in log.latest
                )
                balance[what] += 1
            if live:
                self._world.violate(f"pending records of no event: {sorted(live)}")
            if self._world.trace is not None:
                self._world.say(f"partition {number}: position {position}, {dict(balance)}")

    def _what_became(self, event: Event, read: bool, record: Record | None, known: bool) -> str:
        letters = self._letters[event.partition, event.offset]
        wrong: str | None = None
        if event.deleted:
            return "deleted"
        if letters > 1 and not event.torn:
            wrong = f"{letters} dead letters"
        elif not event.routed:
            wanted = event.kind in ("misrouted", "garbage")
            if (
                record is not None
                or known
                or event.accepted
                or (letters and not wanted)
                or (read and wanted and not letters)
            ):
                wrong = f"a {event.kind} event with {letters} dead letters"
        elif not read:
            if (record is not None or letters or event.accepted) and not event.torn:
                wrong = "acted upon before its offset is settled"
            return "unread" if wrong is None else self._wrong(event, wrong)
        elif record is not None:
            if event.accepted and b'"state":"sending"' not in (record.value or b"")[:40]:
                wrong = "accepted and still pending, not in doubt"
            elif letters and not event.torn:
                wrong = "pending and a dead letter"
            return "pending" if wrong is None else self._wrong(event, wrong)
        elif not letters and not event.accepted:
            wrong = "lost: neither pending, nor accepted, nor a dead letter"
        elif letters and event.accepted and not event.ever_in_doubt:
            wrong = "accepted and a dead letter, never in doubt"
        if wrong is not None:
            return self._wrong(event, wrong)
        return "dead letter" if letters else "accepted" if event.accepted else "passed"

    def _wrong(self, event: Event, wrong: str) -> str:
        self._world.violate(
            f"event {event.number} ({event.kind} of {event.order} at {event.partition}:{event.offset}): {wrong}"
        )
        return wrong


def _header(record: Record, name: str) -> str:
    value = next(value for key, value in record.headers if key == PREFIX + name)
    return value.decode() if isinstance(value, bytes) else str(value)


def _source_offset(record: Record) -> int:
    return int(_header(record, "source-offset"))
