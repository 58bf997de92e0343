"""What must hold, checked at every commit, acceptance, request and fault.

Rules (each has a mutation of the production code that breaks it, mutants.py):
 1. The books balance at every instant: events read = accepted + dead letters + pending + ignored. Kafka is one
    counter (its logs alone say what was read, what is pending, what is a dead letter), the scheduler the other (the
    events that it published, Engage's acceptances); what both count is in doubt, and is named. Each event is in its
    place.
 2. An action is sent only under an intent that is committed and was not sent under before, only by the partition's
    owner, and not before every earlier action of its order has ended.
 3. It is sent again only in doubt, only where its route says so, and never at once.
 4. Offsets are committed for owned partitions only, under a generation, after the records; no position goes back.
 5. The low-water mark never hides a live record.
 6. No second holds more requests than the rate limit, over all processes, zombies included. Each takes the share that
    it believes is its own: where these add up to more than one (a zombie; a source that has grown, before all have
    heard), so many times the rate limit, and one more for each process, which rounds its share up.
 7. When everything is healed, everything ends, and soon: no wait outlasts a clock that jumped by an hour.
 8. An order's document, or change, never replaces a newer one: its version is where its event lay when it came for
    the first time. Engage applies what it was sent although the sender has died meanwhile. A document leaves only from
    the partition's owner, under a committed record that says so. The partition is handed over only when none of it is
    under way. Once Engage took a document with an action in it, it is not sent again.
 9. What is pending outlives the delay topic's deletion in its owner's memory, and is written again. Only what nobody
    holds any more is gone with it, and what is parked.

10. No action whose order has no contact yet is given up before its grace or its deadline is over, and none waits for
    one after that. (Where a wall clock was set, a successor may take the grace for over.)
11. Each action that ends, and each event that becomes a dead letter, has one outcome, in the same transaction
    (outcomes.py).

12. The deadline counts from when an event was first read, however often its action was restored or parked since.
13. Within the window a fact is accepted once, unless a person redrove it. Nothing is dropped that is no repeat
    (repeats.py).
14. A source that is deleted and recreated brings other events at the same offsets. Once a person has adopted it, what
    was pending is still sent, and each new event is an event of its own. Before that nobody reads it.

15. What a pause holds stays where it is, and loses nothing by it (control.py).
16. What a later action of its order supersedes is not sent, nor is a step backwards; nothing else is dropped for it
    (sequences.py).
17. A request of a person is carried out once or refused, and in the end one of the two (requests.py). An action that
    is sent again begins a new life in its place, for which all these rules hold anew.

18. Of an event with several items all this holds for each of them: they are saved, or end, in one transaction with its
    offset, and those of one order keep their sequence. Redriven, an item is that action alone.

Excused: a dead letter more for each that a delayed request committed without its own offset, and a record that such a
request made visible ahead of its offset; nothing else of these events.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from consumer.core.outcomes import Accepted, ActionOutcome
from consumer.core.ownership import Assignment, Partition
from consumer.core.places import incarnation_at, place_of
from consumer.kafka.records.keys import place_of_key
from consumer.kafka.records.positions import read_position
from schemas.outcome import OutcomeName
from schemas.pending_action import POSITION_KEY, Position, RefusedDeadLetter
from tests.simulation import faults, outcomes
from tests.simulation.control import HEARD_AFTER_S
from tests.simulation.kafka_model import Log, Member, Record, Transaction
from tests.simulation.outcomes import Outcomes, header, is_mark, raw, source_place
from tests.simulation.process import CONTROL, TOPICS, Process
from tests.simulation.repeats import RepeatsOracle
from tests.simulation.sequences import SequencesOracle
from tests.simulation.workload import Event

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler

RATE_LIMIT = 5.0
DEADLINE_S = 600.0
CONTACT_GRACE_S = 60.0
MAX_LATE_TRIES = 4  # one is due at the grace's end; a crash may take its answer away, as it may the first one's
MAX_LATE_POLLS = 5  # three in a row without a tag, and the two before a hand-over
MIN_WAIT_S = 8.0  # before an action in doubt is sent again: 10 s, spread by 20 %
HEARD_WITHIN_S = 300.0  # by all that is healed, who owns what, and how many partitions there are
REWRITE_AFTER_S = 60.0  # after the first transaction that met a new delay topic
_SENDS = re.compile(rb'"sends":(\d+)')
_TIMES = re.compile(rb'"first_seen_ms":(\d+),"due_ms":(\d+)')


class Post(NamedTuple):
    """An action that was sent: under which epoch, and in which of its rounds (rule 17)."""

    epoch: int
    round: int


class Oracle:
    """The two counters and the rules of the module. `events`: what was published, by partition."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # Requests of each connection: when, whose, its share, all shares.
        self._recent: defaultdict[str, deque[tuple[float, str, float, float]]] = defaultdict(deque)
        self._refused_at = -math.inf
        self._dead_letters: dict[tuple[int, int], int] = {}  # how many, by partition and source offset
        self._met_recreated: dict[
            int, float
        ] = {}  # when a transaction first wrote to a delay partition that was recreated
        self._documents: dict[tuple[int, str], int] = {}  # the version that Engage has, by partition and order
        self._under_way: set[tuple[Process, Assignment, Event]] = set()  # documents without an answer
        self._begun_early: set[Event] = set()
        self._outcomes = Outcomes()
        self._past_dead_letters: Counter[tuple[int, int]] = Counter()  # of actions that began again since
        self.repeats = RepeatsOracle(self._is_gone, scheduler.reach)
        exact_clocks = not scheduler.profile.skew_s
        self.sequences = SequencesOracle(scheduler.sequences, scheduler.reach, exact_clocks=exact_clocks)
        self.positions: dict[int, int] = {}
        self.incarnation = 0  # of the source that the group's positions are of
        self.events: dict[int, list[Event]] = {}
        self._by_place: dict[tuple[int, int], Event] = {}

    def add_partition(self, number: int) -> None:
        self.positions[number] = 0
        self.events[number] = []

    def published(self, event: Event) -> None:
        """An event came."""
        event.index = len(self.events[event.partition])
        self.events[event.partition].append(event)
        self._by_place[event.partition, event.place] = event

    def between(self, number: int, start: int, end: int) -> list[Event]:
        """Return the events of the source that lie from the one offset to before the other."""
        at = range(start, end)
        return [e for e in self.events[number] if incarnation_at(e.place) == self.incarnation and e.offset in at]

    def adopted(self, positions: Mapping[int, int]) -> None:
        """The operator let the recreated source take its former topic's place: rule 14. It continues there."""
        for number in self.positions:
            was = place_of(self.incarnation, self.position(number))
            log = self._scheduler.delay_log(number)
            kept = _kept(log.live)
            for event in self.events[number]:
                is_new = incarnation_at(event.place) > self.incarnation
                is_unread = event.offset < positions[number] if is_new else event.place >= was
                acted_upon = event.accepted or event.key in log.live or event.place in kept
                if is_unread and not acted_upon and not self._has_dead_letter(event):
                    event.deleted = True
        self.incarnation += 1
        self.positions.update(positions)

    # -- requests -----------------------------------------------------------------------------------------------

    def refused(self) -> None:
        """The group refused a member for good, and gave its partitions away in the same moment.

        Its requests of this second count beside its successor's.
        """
        self._refused_at = self._scheduler.now

    def requested(self, process: Process, connection: str) -> None:
        """A request goes to Engage: rule 6."""
        now, recent = self._scheduler.now, self._recent[connection]
        while recent and recent[0][0] <= now - 1.0:
            recent.popleft()
        shares = [i.relay._partitions.share for i in self._scheduler.processes.values() if i is not None]
        if now < self._refused_at + 1.0:
            shares.append(1.0)
        own = process.relay._partitions.share
        recent.append((now, process.id, own, sum(shares)))
        if any(not self.is_owner(process, (a.topic, a.partition)) for a in process.relay._partitions.ours):
            self._scheduler.reach("a zombie asked Engage")
        most = max(request[3] for request in recent)
        if most > 1.001:
            self._scheduler.reach("the shares added up to more than one")
        if most > 1.001 and self._scheduler.healing and now > self._scheduler.healed_at + HEARD_WITHIN_S:
            self._scheduler.violate(f"the shares still add up to {most:.2f}")
        # One without a share was granted while its process had one: that froze, lost it, and sends the one late.
        asked = sum(request[2] > 0 for request in recent)
        if asked > (RATE_LIMIT if most <= 1.001 else RATE_LIMIT * most + len(shares)):
            self._scheduler.violate(f"{asked} requests within a second, of {most:.2f} times the rate limit")
        mine = [request for request in recent if request[1] == process.id]
        share = max(request[2] for request in mine)
        if len(mine) > RATE_LIMIT * share + (share < 1):
            self._scheduler.violate(
                f"{len(mine)} requests of {process.id} within a second, of {share:.2f} of the rate limit"
            )

    def is_owner(self, process: Process, at: Partition) -> bool:
        owner = self._owner(at)
        return owner is not None and owner.process is process

    def _owner(self, at: Partition) -> Member | None:
        for member in self._scheduler.kafka.members.values():
            if at in member.owned:
                return member
        return None

    def posted(self, process: Process, event: Event) -> Post:
        """An action is sent: rules 2 and 3."""
        at = (TOPICS.source, event.partition)
        epoch = process.source.ownership.owned.get(at, -1)
        self._scheduler.say(f"{process.id} sends event {event.number} (epoch {epoch})")
        self._scheduler.control.sent(process, event)
        record = self._scheduler.delay_log(event.partition).live.get(event.key) or event.gone_intent
        if record is None or not _is_intent(record):
            self._scheduler.violate(f"event {event.number} is sent without a saved intent")
        elif _sends_of(record) <= event.sent_under:
            self._scheduler.violate(f"event {event.number} is sent twice under one intent")
        else:
            event.sent_under = _sends_of(record)
        if not self.is_owner(process, at):
            owner = self._owner(at)
            self._scheduler.violate(
                f"event {event.number} is sent by {process.id}, though {owner and owner.id!r} owns {at}"
            )
        for earlier in self.events[event.partition][: event.index]:
            is_first = earlier.order == event.order and earlier.payload and not earlier.round
            if is_first and not self._ended(earlier):
                self._scheduler.violate(f"event {event.number} overtakes event {earlier.number}")
        if event.unanswered:
            self._scheduler.reach("an action in doubt was sent again")
            if not event.resend:
                self._scheduler.violate(
                    f"event {event.number} is sent again in doubt, though its route says dead_letter"
                )
            if self._scheduler.now - event.sent_at < MIN_WAIT_S:
                self._scheduler.violate(f"event {event.number} is sent again at once, in doubt")
        if event.taken:
            self._scheduler.violate(f"event {event.number} is sent again, though its record says that Engage took it")
        if event.told == (process.id, epoch):
            self._scheduler.violate(f"event {event.number} is sent again, though its acceptance was taken in")
        if event.first is not None and event.document and not event.document_applied:
            self._scheduler.reach("a redriven action was sent without its document")
        event.unanswered = event.ever_in_doubt = True
        event.sent_at = self._scheduler.now
        return Post(epoch, event.round)

    def _ended(self, event: Event) -> bool:
        is_kept = event.place in _kept(self._scheduler.delay_log(event.partition).live)
        dead = is_kept or event.gone_dead_letter or self._has_dead_letter(event)
        gone = event.deleted or self._is_gone(event)
        return gone or event.accepted > 0 or dead or event.is_repeat or self._is_withheld(event)

    def _is_withheld(self, event: Event) -> bool:
        """Whether it was discarded or dropped, by its outcome, or as a tombstone may mean that became visible alone."""
        at = (event.partition, event.place)
        may_be = (
            self._scheduler.control.may_be_withheld(event)
            or self._scheduler.requests.may_be_dropped(event)
            or self.sequences.may_be_stopped(event, self.events[event.partition])
        )
        return event.withheld or (at in self._outcomes.ended_unheard and may_be)

    def _has_dead_letter(self, event: Event) -> bool:
        return (event.partition, event.place) in self._dead_letters

    def answered(self, process: Process, event: Event, post: Post, outcome: ActionOutcome) -> None:
        if post.round != event.round:
            return
        event.unanswered = False
        if isinstance(outcome, Accepted):
            event.told = (process.id, post.epoch)

    def not_ready(self, process: Process, event: Event) -> None:
        """Engage answers a poll that there is no tag yet: rule 12."""
        scheduler = self._scheduler
        held_s = scheduler.control.held_s(event, event.first_seen)
        late = scheduler.now > event.first_seen + DEADLINE_S + held_s
        if scheduler.healing and not scheduler.profile.skew_s and late:
            epoch = process.source.ownership.owned.get((TOPICS.source, event.partition), -1)
            event.late_polls[process.id, epoch] += 1
            if event.late_polls[process.id, epoch] > MAX_LATE_POLLS:
                scheduler.violate(f"event {event.number} is still polled, long after its deadline")

    def without_contact(self, event: Event) -> None:
        """Engage says that the order has no contact: rule 10."""
        now = self._scheduler.now
        if event.refused_at is None:
            event.refused_at = now
        held_s = self._scheduler.control.held_s(event, event.refused_at)
        event.refused_late += now > event.refused_at + CONTACT_GRACE_S + held_s
        if event.refused_late > MAX_LATE_TRIES and not self._scheduler.profile.skew_s:
            self._scheduler.violate(f"event {event.number} is still tried, long after its grace for a contact")

    def _given_up_without_contact(self, event: Event) -> None:
        """Check a dead letter `no_contact`: rule 10."""
        now = self._scheduler.now
        control = self._scheduler.control
        waited_s = math.inf
        if event.refused_at is not None:
            waited_s = now - event.refused_at - control.held_s(event, event.refused_at, max(HEARD_AFTER_S))
        overran = now > event.drawn_at + DEADLINE_S
        # A record holds milliseconds: who restores it may count one more.
        if waited_s < CONTACT_GRACE_S - 0.001 and not overran and not self._scheduler.profile.skew_s:
            self._scheduler.violate(f"event {event.number} was given up {waited_s:g} s after its order had no contact")

    def _given_up_for_its_deadline(self, event: Event) -> None:
        """Check a dead letter `deadline`: the time on hold does not count (control.py, rule 2).

        Where no record says when it was first read, it was given up in the transaction that would have written that.
        """
        scheduler = self._scheduler
        if math.isinf(event.first_seen):
            return
        held_s = scheduler.control.held_s(event, event.first_seen, max(HEARD_AFTER_S))
        waited_s = scheduler.now - event.first_seen - held_s
        if waited_s < DEADLINE_S - 0.001 and not scheduler.profile.skew_s:
            self._wrong(event, f"given up for its deadline after {waited_s:g} s that were not on hold")

    def accepted(self, event: Event, sent_in: int) -> None:
        """Engage processed an action. `sent_in`: the round in which it was sent."""
        if sent_in != event.round:
            self._scheduler.reach("an action was accepted after a person had it sent again")
            return
        event.accepted += 1
        if event.refused_at is not None:
            self._scheduler.reach("an action was accepted once its order had a contact")
        self._scheduler.say(f"Engage accepts event {event.number}")
        if event.accepted > 1:
            self._scheduler.reach("an action was accepted twice, in doubt")
        if (wrong := self.repeats.accepted(event)) is not None:
            self._scheduler.violate(wrong)
        self.balance((event.partition,))

    @contextmanager
    def document_under_way(self, process: Process, event: Event) -> Iterator[None]:
        """A document is sent, and answered: rule 8."""
        at = (TOPICS.source, event.partition)
        epoch = process.source.ownership.owned.get(at, -1)
        self._scheduler.say(f"{process.id} sends the document of event {event.number} (epoch {epoch})")
        self._scheduler.control.sent(process, event)
        if not self.is_owner(process, at):
            owner = self._owner(at)
            self._scheduler.violate(
                f"the document of event {event.number} is sent by {process.id}, though {owner and owner.id!r} owns {at}"
            )
        record = self._scheduler.delay_log(event.partition).live.get(event.key)
        if (
            not event.travels
            and not event.bereft
            and (record is None or b'"document_sent":true' not in _progress(record))
        ):
            self._scheduler.violate(f"the document of event {event.number} is sent under no record that says so")
        if record is not None and not _is_intent(record):
            self._look_for_superseder(event, record, "its document is sent")
        under_way = (process, Assignment(*at, epoch), event)
        self._under_way.add(under_way)
        yield
        self._under_way.discard(under_way)

    def handed_over(self, process: Process, given: set[Assignment]) -> None:
        """A process has given partitions away, in time: rule 8."""
        for sender, assignment, event in self._under_way:
            if sender is process and assignment in given:
                self._scheduler.violate(f"{assignment} is handed over with the document of event {event.number}")

    def has_order(self, event: Event) -> bool:
        """Whether Engage has the event's order."""
        return any(order == event.order for _, order in self._documents)

    def document_applied(self, process: Process, event: Event) -> None:
        """Engage applies an order's document: rule 8."""
        lane = (event.partition, event.order)
        newest = self._documents.get(lane, -1)
        self._scheduler.say(f"Engage applies the document of event {event.number} (version {event.version})")
        if event.version < newest:
            self._scheduler.violate(f"the document of event {event.number} replaces a newer one of its order")
        elif 0 <= newest < event.version:
            self._scheduler.reach("a newer document replaced an order's")
        if event.first is not None:
            self._scheduler.reach("a redriven document was applied")
        if not process.alive:
            self._scheduler.reach("a document outlived its sender")
        self._documents[lane] = event.version
        event.document_applied = True

    def can_be_redriven(self, event: Event) -> bool:
        """Whether it has a document, a fact or an item, and a dead letter that nobody has redriven yet."""
        is_of_use = event.document or event.fact is not None or event.item is not None
        if self._scheduler.neighbour is not None:
            is_of_use = event.kind == "action"
        return is_of_use and not event.redriven and self._has_dead_letter(event)

    def restored(self, process: Process, record: Record) -> None:
        """A restore reads a record: note what another clock wrote."""
        if record.value and _is_kept(record):
            self._scheduler.reach("a refused dead letter was restored")
        times = _TIMES.search(record.value) if record.value else None
        if times is not None:
            now = process.clock()
            if int(times[1]) / 1000 > now + 60.0:
                self._scheduler.reach("an action was restored that was first seen in the future")
            if int(times[2]) / 1000 > now + 1000.0:
                self._scheduler.reach("an action was restored that is due in an hour")
            if int(times[1]) / 1000 < now - 3000.0:
                self._scheduler.reach("an action was restored whose deadline a clock's jump took away")

    # -- Kafka --------------------------------------------------------------------------------------------------

    def offsets_sent(self, member: Member | None, generation: int, serial: int, offsets: Iterable[Partition]) -> None:
        """The broker takes offsets: rule 4."""
        if generation < 0:
            self._scheduler.violate(f"offsets are sent under generation {generation}, which nobody checks")
        for at in offsets:
            if at[0] == TOPICS.source and (member is None or at not in member.owned):
                self._scheduler.violate(f"{member and member.id!r} commits for {at}, which it does not own")
            if (TOPICS.delay, at[1]) not in self._scheduler.kafka.written.get(serial, ()):
                self._scheduler.violate(f"offsets of {at} are sent before the records")

    def committed(self, transaction: Transaction, torn: bool) -> None:
        settled = {at[1] for at in transaction.offsets}
        written = {log.partition for log, _ in transaction.records if log.topic != CONTROL}
        asked = self._first_asked_for(transaction)
        answered = self._answers_in(transaction, torn=torn)
        early = [each for each in asked if each not in answered]
        begun = [each for each in answered if not self._is_begun_early(each)]
        saved = [each for each in begun if _is_saved(each, transaction)]
        for each in begun:
            if each not in saved:
                # It ended at once, as its record is too large; or that went with the delay topic, and is in memory.
                is_bereft = each.bereft
                self._begin_again(each)
                each.bereft = is_bereft
        for log, record in transaction.records:
            if log.topic == CONTROL or is_mark(record):
                continue
            times = _TIMES.search(record.value) if log.topic == TOPICS.delay and record.value else None
            if times is not None and (place := place_of_key(record.key or b"")) is not None:
                of = self._by_place[log.partition, place]
                of.first_seen = min(of.first_seen, int(times[1]) / 1000)
            if log.topic == TOPICS.dead_letters:
                at = (log.partition, source_place(record.headers))
                self._dead_letters[at] = self._dead_letters.get(at, 0) + 1
                reason = header(record.headers, "reason")
                self._scheduler.reach(f"dead letter: {reason}")
                if reason == "deadline":
                    self._given_up_for_its_deadline(self._by_place[at])
                if reason == "no_contact":
                    self._given_up_without_contact(self._by_place[at])
                profile = self._scheduler.profile
                is_often = profile.documents or profile.repeats or profile.neighbour or profile.items
                if self._scheduler.chance(0.8 if is_often else 0.1):
                    after_s = self._scheduler.pick((0.1, 5.0, 60.0))
                    self._scheduler.at(self._scheduler.now + after_s, partial(faults.redrive, self._scheduler))
            elif log.topic == TOPICS.delay:
                if self._met_recreated.get(log.partition, 0.0) < 0:
                    self._met_recreated[log.partition] = self._scheduler.now
                if record.value is not None and (event := self._event_of(log, record)) is not None:
                    event.taken = event.taken or _is_taken(record, event)
        torn = torn or not written <= settled
        if torn:
            self._scheduler.reach("a delayed request committed another transaction")
            for log, record in transaction.records:
                self._tear(log, record)
            if early:
                self._scheduler.reach("an action was sent again before the answer was visible")
            self._begun_early.update(early, saved)  # who wrote it may write it again
        elif early:
            self._wrong(early[0], "sent again, without the answer to who asked")
        self._look_for_new_intents(transaction, torn=torn)
        self._count_outcomes(transaction, torn=torn, begun={(each.partition, each.place) for each in saved + early})
        for each in saved + early:
            self._begin_again(each)
            each.first_seen = _saved_first_seen(each, transaction)
        self.balance(settled | written)

    def _answers_in(self, transaction: Transaction, *, torn: bool) -> list[Event]:
        """Take the answers to requests: rule 17. Returns the events whose actions begin again."""
        begun: list[Event] = []
        for log, record in transaction.records:
            if log.topic == CONTROL and (at := self._scheduler.requests.answered(record, torn=torn)) is not None:
                begun.append(self._by_place[at])
        return begun

    def _first_asked_for(self, transaction: Transaction) -> list[Event]:
        """Return the events whose actions a person asked for, where nothing of that was visible before."""
        records = [(log, record) for log, record in transaction.records if log.topic == TOPICS.delay]
        asked = [each for each in records if self._scheduler.requests.is_first(each[1])]
        return list(dict.fromkeys(event for each in asked if (event := self._event_of(*each)) is not None))

    def _is_begun_early(self, event: Event) -> bool:
        """Whether the life that an answer speaks of has begun before, and has not ended."""
        was_early = event in self._begun_early
        self._begun_early.discard(event)
        return was_early and not self._outcomes.counted[event.partition, event.place]

    def _begin_again(self, event: Event) -> None:
        at = (event.partition, event.place)
        never_pending = event.deleted or event.ever_bereft
        if not (self._outcomes.counted[at] or at in self._outcomes.ended_unheard or never_pending):
            self._wrong(event, "sent again, though it had not ended")
        self._past_dead_letters[at] += self._dead_letters.pop(at, 0)
        self._outcomes.begin_again(at)
        event.begin_again()

    def _look_for_new_intents(self, transaction: Transaction, *, torn: bool) -> None:
        """Judge the intents of a transaction: rule 16."""
        if not self._scheduler.sequences.superseding and not self._scheduler.sequences.steps:
            return
        records = [each for each in transaction.records if each[0].topic == TOPICS.delay]
        first = min((record.offset for _, record in records), default=0)
        events: dict[Event, Log] = {}
        for log, record in records:
            event = self._event_of(log, record) if record.value is not None else None
            if event is None or log is not self._scheduler.kafka.logs.get((log.topic, log.partition)):
                continue
            events[event] = log
            if _is_intent(record) and not event.says_sending and not torn:
                self._look_for_superseder(event, record, "an intent of it is saved", before=first)
                all_of_it = self.events[event.partition]
                step = self.sequences.later_step_sent(event, all_of_it, self._scheduler.now)
                if step is not None:
                    self._wrong(event, f"an intent of it is saved after event {step.number}, a later step, was sent")
        for event, log in events.items():
            latest = log.live.get(event.key)
            event.says_sending = latest is not None and _is_intent(latest)

    def _look_for_superseder(self, event: Event, record: Record, what: str, before: int | None = None) -> None:
        read = place_of(self.incarnation, self.position(event.partition))
        live = self._scheduler.delay_log(event.partition).live
        before = record.offset if before is None else before
        later = self.sequences.saved_superseder(event, self.events[event.partition], live, before, read)
        if later is not None:
            self._wrong(event, f"{what}, though event {later.number} superseded it")

    def _count_outcomes(self, transaction: Transaction, *, torn: bool, begun: Collection[tuple[int, int]]) -> None:
        """Take a transaction's outcomes: rule 11. `begun`: what begins again in it, so that no tombstone is there."""
        wrong = self._outcomes.committed(
            transaction, torn=torn, excused=lambda at: at in begun or self._by_place[at].bereft
        )
        if wrong is not None:
            self._scheduler.violate(wrong)
        written = {record.key for _, record in transaction.records}
        for outcome in outcomes.of_transaction(transaction):  # in one transaction, their order says nothing
            event = self._by_place[outcomes.event_at(outcome)]
            self.sequences.sent(event, outcome)
            if self.sequences.leaves_steps_behind(event, self.events[event.partition]):
                self._scheduler.crash_after_commit(event)
        for outcome in outcomes.of_transaction(transaction):
            event = self._by_place[outcomes.event_at(outcome)]
            if (why := outcomes.check(event, outcome) or self.repeats.ended(event, outcome)) is not None:
                self._wrong(event, why)
            events, there = (
                self.events[event.partition],
                written | self._scheduler.delay_log(event.partition).live.keys(),
            )
            if (why := self.sequences.ended(event, outcome, events, there, torn=torn)) is not None:
                self._wrong(event, why)
            if outcome.outcome is OutcomeName.WITHHELD:
                self._withheld(event)
            elif outcome.outcome is OutcomeName.DROPPED:
                self._dropped(event)
            elif outcome.outcome in (OutcomeName.SUPERSEDED, OutcomeName.OUT_OF_SEQUENCE):
                self._stopped(event, outcome.outcome)
            if event.is_repeat:
                self._scheduler.reach("a repeat was not sent")

    def _withheld(self, event: Event) -> None:
        """Note that an action was discarded (control.py, rule 4)."""
        self._scheduler.reach("an action was withheld")
        if not self._scheduler.control.may_be_withheld(event):
            self._wrong(event, "withheld, though nobody discards it")
        if event.unanswered or (event.accepted and not event.withheld):
            self._wrong(event, "withheld, though Engage may have it")
        event.withheld = True

    def _dropped(self, event: Event) -> None:
        """Note that an action was dropped: rule 17."""
        self._scheduler.reach("an action was dropped")
        if not self._scheduler.requests.may_be_dropped(event):
            self._wrong(event, "dropped, though nobody asked for that")
        if event.unanswered or event.accepted:
            self._wrong(event, "dropped, though Engage may have it")
        event.withheld = True

    def _stopped(self, event: Event, outcome: OutcomeName) -> None:
        """Note that an action was superseded, or is a step backwards."""
        if event.unanswered or (event.accepted and not event.withheld):
            self._wrong(event, f"{outcome}, though Engage may have it")
        event.withheld = True

    def _tear(self, log: Log, record: Record) -> None:
        """It is visible, and who wrote it may write it again: a dead letter has no key that would make them one."""
        if log.topic == outcomes.TOPIC:
            self._outcomes.tear(log, record)
            return
        if log.topic == CONTROL or is_mark(record):
            return
        if log.topic == TOPICS.dead_letters or record.key != POSITION_KEY:
            self._outcomes.tear(log, record)
        if log.topic == TOPICS.dead_letters:
            self._by_place[log.partition, source_place(record.headers)].torn_dead_letters += 1
        elif (event := self._event_of(log, record)) is not None and not self._is_read(event):
            event.torn = True

    def _is_read(self, event: Event) -> bool:
        return event.place < place_of(self.incarnation, self.position(event.partition))

    def _event_of(self, log: Log, record: Record) -> Event | None:
        """Return whose record of the delay topic it is; None: nobody's, it is the position."""
        place = None if record.key == POSITION_KEY else _place_of(record)
        return None if place is None else self._by_place[log.partition, place]

    def is_known(self, number: int) -> bool:
        """Whether anybody wrote down where it continues: else it begins wherever retention has left it."""
        log = self._scheduler.kafka.logs.get((TOPICS.delay, number))
        recorded = log is not None and POSITION_KEY in log.latest
        return recorded or (TOPICS.source, number) in self._scheduler.kafka.committed

    def position(self, number: int) -> int:
        """Where a restore lets the source continue (restore/restore.py, rule 4)."""
        known = self._scheduler.kafka.committed.get((TOPICS.source, number))
        recorded = self.recorded_position(number)
        if known is None:
            return recorded or 0
        offset, by_relay = known
        if recorded is not None and by_relay and recorded > offset:
            self._scheduler.reach("an older offset took a later one's place")
            return recorded
        return offset

    def recorded_position(self, number: int) -> int | None:
        """What the delay topic's position record says."""
        log = self._scheduler.kafka.logs.get((TOPICS.delay, number))
        record = None if log is None else log.latest.get(POSITION_KEY)
        return None if record is None else _position_of(record.value or b"")

    def bereave(self, number: int, holder: tuple[Process, Assignment] | None) -> None:
        """The delay topic is being deleted: rule 9. `holder` has the partition's actions in memory."""
        log = self._scheduler.delay_log(number)
        records = dict(log.live)
        for transaction in log.open:
            for of, record in transaction.records:
                if of is log and record.key is not None and record.key != POSITION_KEY and record.value is not None:
                    records[record.key] = record
        for record in records.values():
            event = self._by_place[number, _place_of(record) or 0]
            event.bereft = event.ever_bereft = event.says_sending = True
            event.bereft_at = self._scheduler.now
            event.holder = holder if holder is not None and _holds(*holder, event) else None
            event.gone_intent = record if _is_intent(record) else None
            event.gone_dead_letter = _is_kept(record)
        self._met_recreated[number] = -1.0

    def _is_paused(self, event: Event) -> bool:
        """Whether a process has had it in memory since before its delay topic was deleted, and may still write it."""
        if event.holder is None:
            return False
        process, assignment = event.holder
        is_owner = self.is_owner(process, (assignment.topic, assignment.partition))
        if not process.alive or not is_owner or not process.holds(assignment):
            event.holder = None
        return event.holder is not None

    def _is_gone(self, event: Event) -> bool:
        return event.bereft and not self._is_paused(event)

    def _bereft(self, event: Event) -> str:
        """Judge an event that Kafka knows nothing of since the delay topic's deletion."""
        if self._is_gone(event):
            self._scheduler.reach("what was pending is gone with the delay topic")
            return "gone"
        scheduler, met_at = self._scheduler, self._met_recreated[event.partition]
        process, assignment = event.holder or (None, None)
        paused = process.relay._ledger._book.partitions.get(assignment) if process and assignment else None
        # A partition that was given up is nobody's to write again.
        entry = paused and paused.entries.get(event.place)
        if (
            entry
            and scheduler.healing
            and met_at >= 0
            and scheduler.now > max(met_at, scheduler.healed_at) + REWRITE_AFTER_S
        ):
            return self._wrong(event, "not written again into the new delay topic")
        return "in memory"

    # -- the balance --------------------------------------------------------------------------------------------

    def balance(self, partitions: Iterable[int]) -> None:
        """Rules 1, 4, 5 and 9, for these partitions."""
        for number in partitions:
            self._balance(number)

    def _balance(self, number: int) -> None:
        scheduler = self._scheduler
        position = self.position(number)
        if position < self.positions[number]:
            scheduler.violate(f"the position of {number} goes back from {self.positions[number]} to {position}")
        self.positions[number] = position
        log = scheduler.kafka.logs.get((TOPICS.delay, number))
        live = {} if log is None else log.live
        if log is not None:
            mark = scheduler.kafka.committed.get((TOPICS.delay, number))
            # A mark beyond the end counts as none (restore/restore.py, rule 3).
            early = {each.key for each in self._begun_early}  # of which its writer does not know that they are there
            known = [record.offset for key, record in live.items() if key not in early]
            if mark is not None and mark[0] <= log.end and min(known, default=mark[0]) < mark[0]:
                scheduler.violate(f"the low-water mark of {number} is {mark[0]}, behind a live record")
        unknown = len(live)
        kept = _kept(live)
        pending = dead_letters = ignored = accepted = both = gone = repeats = former = followers = 0
        read = place_of(self.incarnation, position)
        for event in self.events[number]:
            record = live.get(event.key)
            if record is None and event.place in kept:
                record = kept[event.place]
            unknown -= record is not None
            what = self._what_became(event, event.place < read, record, log)
            former += incarnation_at(event.place) < self.incarnation
            if event.place < read:
                followers += not event.leads and incarnation_at(event.place) == self.incarnation
                # Kafka's side
                has_dead_letter = self._has_dead_letter(event)
                pending += record is not None
                dead_letters += has_dead_letter and record is None
                # the simulation's side
                ignored += event.is_ignored and not event.deleted
                accepted += event.accepted > 0
                # what both count, and what the operator took away
                both += event.accepted > 0 and (has_dead_letter or record is not None)
                # A deleted event may be pending: a delayed commit has made its record visible before it was read.
                is_counted = record is not None or has_dead_letter or event.accepted > 0
                gone += what in ("gone", "in memory", "withheld") or (what == "deleted" and not is_counted)
                repeats += what == "a repeat"
        if unknown:
            scheduler.violate(f"{unknown} pending records of no event")
        count = former + position + followers
        if count != accepted + dead_letters + pending + ignored - both + gone + repeats:
            scheduler.violate(
                f"partition {number}: {count} events read, {accepted} accepted, {dead_letters} dead letters, "
                f"{pending} pending, {ignored} ignored, {both} in doubt, {gone} gone, {repeats} repeats"
            )
        if scheduler.trace is not None:
            scheduler.say(
                f"partition {number}: {count} read = {accepted} accepted + {dead_letters} dead letters + {pending} "
                f"pending + {ignored} ignored - {both} in doubt + {gone} gone + {repeats} repeats"
            )

    def _what_became(self, event: Event, read: bool, record: Record | None, log: Log | None) -> str:
        dead_letters = self._dead_letters.get((event.partition, event.place), 0)
        if event.deleted:
            return "deleted"
        wrong: str | None = None
        if dead_letters > 1 + event.torn_dead_letters:
            wrong = f"{dead_letters} dead letters"
        elif not event.payload:
            known = log is not None and event.key in log.latest
            is_dead = record is not None or dead_letters
            if (
                (record is not None and not _is_kept(record))
                or known
                or event.accepted
                or (is_dead and event.is_ignored)
            ):
                wrong = "acted upon"
            elif read and not event.is_ignored and not is_dead:
                if event.bereft:
                    return self._bereft(event)
                wrong = "not dead-lettered"
            elif record is not None:
                event.bereft = False
        elif not read:
            if event.accepted or dead_letters > event.torn_dead_letters or (record is not None and not event.torn):
                wrong = "acted upon before its offset is settled"
        elif record is not None:
            event.bereft, event.gone_intent = False, None
            if _is_kept(record):
                if event.accepted and not event.ever_in_doubt:
                    wrong = "accepted and a refused dead letter, never in doubt"
                elif dead_letters > event.torn_dead_letters:
                    wrong = "a refused dead letter and a dead letter"
            elif event.accepted and not _is_intent(record) and not _is_taken(record, event):
                wrong = "accepted and still pending, not in doubt"
            elif dead_letters > event.torn_dead_letters:
                wrong = "pending and a dead letter"
        elif dead_letters:
            if event.accepted and not event.ever_in_doubt:
                wrong = "accepted and a dead letter, never in doubt"
        elif event.is_repeat and not event.accepted:
            event.bereft = False
        elif not event.accepted and self._is_withheld(event):
            wrong = self._outcomes.what_is_wrong(event, read=read, pending=False, dead_letter=False, repeat=False)
            return "withheld" if wrong is None else self._wrong(event, wrong)
        elif not event.accepted:
            if event.bereft:
                return self._bereft(event)
            wrong = "lost: neither pending, nor accepted, nor a dead letter"
        is_repeat = event.is_repeat and read and record is None and not dead_letters and not event.accepted
        if wrong is None:
            is_kept = record is not None and _is_kept(record)
            is_dead = bool(dead_letters) or is_kept
            is_pending = record is not None and not is_kept
            ends = {"read": read, "pending": is_pending, "dead_letter": is_dead, "repeat": is_repeat}
            wrong = self._outcomes.what_is_wrong(event, **ends)
        if wrong is not None:
            return self._wrong(event, wrong)
        return "a repeat" if is_repeat else "in its place"

    def _wrong(self, event: Event, wrong: str) -> str:
        self._scheduler.violate(
            f"event {event.number} ({event.kind} of {event.order} at {event.partition}:{event.offset}): {wrong}"
        )
        return wrong

    def close(self) -> None:
        """All has ended: count what readers find in the logs, which is what was counted all along."""
        for number in self._scheduler.found:
            self._balance(number)
            found: dict[bytes | None, Record] = {}
            for record in self._scheduler.delay_log(number).settled():
                found[record.key] = record
            left = [r for key, r in found.items() if key != POSITION_KEY and r.value is not None]
            if left:
                self._scheduler.violate(f"partition {number} ends with {len(left)} pending records")
            found_there = self._scheduler.kafka.logs[TOPICS.dead_letters, number].settled()
            dead_letters = [each for each in found_there if not is_mark(each)]
            counted = Counter(self._dead_letters) + self._past_dead_letters
            if Counter((number, source_place(r.headers)) for r in dead_letters) != Counter(
                {at: count for at, count in counted.items() if at[0] == number and count}
            ):
                self._scheduler.violate(f"partition {number} has {len(dead_letters)} dead letters, others were counted")
            if self._outcomes.differs_from(number, self._scheduler.kafka.logs[outcomes.TOPIC, number].settled()):
                self._scheduler.violate(f"partition {number} has other outcomes than were counted")
            for event in self.events[number]:
                ended = event.accepted or self._has_dead_letter(event) or self._is_withheld(event)
                if event.bereft and not ended and self._is_paused(event):
                    self._wrong(event, "lost, though it was in memory when the delay topic was deleted")


def _saved(event: Event, transaction: Transaction) -> Record | None:
    """Return the record of the event's action in a transaction."""
    of_event = (r for log, r in transaction.records if (log.topic, log.partition) == (TOPICS.delay, event.partition))
    return next((each for each in of_event if each.key == event.key and each.value is not None), None)


def _is_saved(event: Event, transaction: Transaction) -> bool:
    return (record := _saved(event, transaction)) is not None and not _is_kept(record)


def _saved_first_seen(event: Event, transaction: Transaction) -> float:
    record = _saved(event, transaction)
    times = None if record is None else _TIMES.search(record.value or b"")
    return math.inf if times is None else int(times[1]) / 1000


def _holds(process: Process, assignment: Assignment, event: Event) -> bool:
    """Whether a process has its action in memory: one that is parked is in the delay topic alone."""
    partition = process.relay._ledger._book.partitions.get(assignment)
    return partition is not None and event.place in partition.entries


def _is_intent(record: Record) -> bool:
    return b'"state":"sending"' in (record.value or b"")[:40]


def _is_kept(record: Record) -> bool:
    """Whether it is a dead letter that its topic refused."""
    return b'"state":"refused"' in (record.value or b"")[:40]


def _kept(live: Mapping[bytes, Record]) -> dict[int, Record]:
    """Return the refused dead letters by the place of their event."""
    return {_place_of(record) or 0: record for record in live.values() if _is_kept(record)}


def _place_of(record: Record) -> int | None:
    """Return the place of the event that a record of the delay topic is about."""
    if not _is_kept(record):
        return place_of_key(record.key or b"")
    return source_place(raw(RefusedDeadLetter.model_validate_json(record.value or b"")))


def _is_taken(record: Record, event: Event) -> bool:
    """Whether Engage took the document that the event's action travels in: its job is known."""
    return event.travels and b'"job_id":"' in _progress(record)


def _progress(record: Record) -> bytes:
    """Return what its value says of the action's progress."""
    return (record.value or b"").partition(b',"payload":')[0]


def _sends_of(record: Record) -> int:
    sends = _SENDS.search(record.value or b"")
    return int(sends[1]) if sends else 0


@lru_cache(10_000)
def _position_of(value: bytes) -> int | None:
    position = read_position(value)
    return position.next_offset if isinstance(position, Position) else None
