"""The agenda: what the next step of each open action is, and when.

What waits for a time lies in a heap, the next due first. What is due lies in its connection's queue, in the order in
which it became due. What a pause holds lies in paused.py. An action behind another one of its lane lies nowhere: it
starts when it is the head. What has ended is skipped where it lies, or forgotten with many others.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable

from consumer.core.effects import Effect, Save
from consumer.core.ledger.book import Book
from consumer.core.ledger.entries import Entry, Queue, State
from consumer.core.ledger.paused import Paused
from consumer.core.ledger.waits import Policy, Waits
from consumer.core.ledger.withdrawals import Withdrawals
from consumer.core.pauses import Pauses
from consumer.core.poll_plan import PollPlan

LEARNT_TAGS = 10_000  # jobs whose tag is remembered for the order's next action: about 3 MB
NEVER_S = 10 * 365 * 86_400.0  # a run ends before; the next one looks again


class Agenda:
    """Where each open action lies until its next step."""

    def __init__(self, policy: Policy, *, book: Book, paused: Paused, waits: Waits, withdrawals: Withdrawals) -> None:
        """Begin with nothing to do."""
        self._policy = policy
        self._book = book
        self._paused = paused
        self._waits = waits
        self._withdrawals = withdrawals
        self._heap: list[Entry] = []  # WAITING and HOLDING, the next due first; GONE ones are skipped
        self._checks: list[tuple[float, Entry]] = []  # of actions that Engage took; one whose time changed has two
        self._queues: dict[str, Queue] = {}
        self._tags: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._litter = 0  # at most so many GONE entries lie in the heap and the queues

    def queue(self, connection: str) -> Queue:
        """Return what a connection may be asked next."""
        queue = self._queues.get(connection)
        if queue is None:
            schedule = self._policy.schedule
            plan = PollPlan(schedule.max_interval_s) if schedule.learns else None
            queue = self._queues[connection] = Queue(connection, plan)
        return queue

    @property
    def queues(self) -> Collection[Queue]:
        """What each connection may be asked next."""
        return self._queues.values()

    # -- from one state to the next -------------------------------------------------------------------------------

    def begin(self, entry: Entry, now: float) -> None:
        """Start an action that is new here, if it is the first of its lane."""
        if entry.is_head:
            self.start(entry, now)
        else:
            self._hasten_check(entry, now)

    def start(self, entry: Entry, now: float) -> None:
        """Start an action that is the head of its lane now. If it was restored in doubt, it waits before it is sent."""
        if entry.state is State.HOLDING:
            return  # it was dropped before its turn came, and ends soon
        if self._policy.shadow and not entry.shadow:
            self.wait(entry, State.HOLDING, now + NEVER_S)
            return
        if entry.ending is not None:
            self.wait(entry, State.HOLDING, now + self._policy.processing_s)
            return
        if entry.tag is None and entry.job_id is not None and not entry.is_taken:
            entry.tag = self._tags.get((entry.queue.connection, entry.job_id))
        unsettled_until = entry.partition.unsettled_until(entry, now)
        earliest = max(now + self._waits.in_doubt_s(entry, now) if entry.doubt else now, unsettled_until)
        if entry.doubt and entry.needs_no_tag:
            earliest = max(earliest, now + self._policy.processing_s)
        is_withdrawn = self._withdrawals.of(entry, now) is not None  # then it ends when it is due
        if entry.tag is None and not entry.needs_no_tag:
            ends_now = is_withdrawn and not entry.is_document
            self.wait(entry, State.WAITING, earliest if ends_now else max(entry.due, earliest))
            return
        entry.tagged_at = now
        if earliest > now or is_withdrawn:
            self.wait(entry, State.HOLDING, earliest)
        else:
            self.tagged(entry, now)

    def wait(self, entry: Entry, state: State, due: float) -> None:
        """Let an action wait: WAITING to be polled for, or HOLDING to be sent."""
        self._book.move(entry, state)
        entry.due = due
        if entry.is_taken and state is State.WAITING:
            heapq.heappush(self._checks, (due, entry))
        else:
            heapq.heappush(self._heap, entry)

    def due(self, entry: Entry) -> None:
        """Let an action be polled for, or its document be sent, when it is its connection's next."""
        if self._paused.pause_of(entry) is not None:
            self._hold(entry)
            return
        self._queue_poll(entry)

    def _queue_poll(self, entry: Entry) -> None:
        self._book.move(entry, State.DUE)
        is_spare = entry.spare or entry.is_without_contact
        (entry.queue.spare_polls if is_spare else entry.queue.polls).append(entry)

    def tagged(self, entry: Entry, now: float) -> None:
        """Let an action be sent when it is its connection's next."""
        if self._paused.pause_of(entry) is not None:
            self._hold(entry)
            return
        self._book.move(entry, State.TAGGED)
        entry.due = now
        (entry.queue.spare_sends if entry.is_without_contact else entry.queue.tagged).append(entry)

    def put_back(self, entry: Entry) -> Save:
        """Put an action back whose intent was saved, but which was certainly not sent. It is the next to be sent.

        A document, too.
        """
        is_document = entry.is_document
        if not is_document:
            entry.sends -= 1
        if self._paused.pause_of(entry) is not None:
            self._hold(entry)
        elif is_document:
            self._book.move(entry, State.DUE)
            entry.queue.polls.appendleft(entry)
        else:
            self._book.move(entry, State.TAGGED)
            entry.queue.tagged.appendleft(entry)
        return entry.record()

    # -- pauses (rule 11) -----------------------------------------------------------------------------------------

    def pause(self, pauses: Pauses, now: float) -> list[Effect]:
        """Take which pauses there are. Paused what they cover, resumes what they do not, and withdraws intents."""
        held = self._paused.change(pauses, now)
        effects: list[Effect] = []
        for queue in self._queues.values():
            queue.tagged = self._kept(queue.tagged, State.TAGGED)
            queue.spare_sends = self._kept(queue.spare_sends, State.TAGGED)
            queue.polls = self._kept(queue.polls, State.DUE)
            queue.spare_polls = self._kept(queue.spare_polls, State.DUE)
            sends, queue.sends = queue.sends, deque()
            for each in sends:
                entry = each[0]
                if entry.state is State.READY and self._paused.pause_of(entry) is not None:
                    effects.append(self.put_back(entry))
                else:
                    queue.sends.append(each)
        for entry in held:
            if entry.state is State.PAUSED:
                self.resume(entry, now)
        return effects

    def resume(self, entry: Entry, now: float) -> None:
        """Continue with an action that was on hold, or hold it on."""
        entry.due = now
        if entry.tag is None and not entry.needs_no_tag:
            self.due(entry)
        else:
            self.tagged(entry, now)

    def _kept(self, queue: Iterable[Entry], state: State) -> deque[Entry]:
        """Hold what a pause covers; returns the others."""
        kept: deque[Entry] = deque()
        for entry in queue:
            if entry.state is state and self._paused.pause_of(entry) is not None:
                self._hold(entry)
            elif entry.state is not State.GONE:
                kept.append(entry)
        return kept

    def _hold(self, entry: Entry) -> None:
        self._book.move(entry, State.PAUSED)
        self._paused.put(entry)

    # -- time passes ----------------------------------------------------------------------------------------------

    def next_wait_over(self, now: float) -> Entry | None:
        """Take the next action whose wait is over; None: all others wait on."""
        while self._heap and self._heap[0].due <= now:
            entry = heapq.heappop(self._heap)
            if not (entry.partition.stopping or entry.state is State.GONE):
                return entry
        return None

    def take_out(self, entry: Entry) -> None:
        """Take a waiting action out whose time is to change. That looks at all: it is for what a person asks."""
        self._heap.remove(entry)
        heapq.heapify(self._heap)

    def start_checks(self, now: float, most: int) -> int:
        """Let the jobs be polled whose time has come, of actions that Engage took (rule 8). Returns how many."""
        started = 0
        while started < most and self._checks and self._checks[0][0] <= now:
            due, entry = heapq.heappop(self._checks)
            if entry.state is State.WAITING and entry.due == due and not entry.partition.stopping:
                started += 1
                entry.spare = entry.next is entry  # no other action waits for it
                self._queue_poll(entry)
        return started

    def check_at(self, entry: Entry, due: float) -> None:
        """Let such a job be polled sooner."""
        entry.due = due
        heapq.heappush(self._checks, (due, entry))

    def _hasten_check(self, successor: Entry, now: float) -> None:
        """Poll the job soon where an action that Engage took has got its first successor."""
        head = successor.head
        soon = self._waits.first_check(now)
        if head.is_taken and head.state is State.WAITING and head.next is successor and soon < head.due:
            self.check_at(head, soon)

    def next_time(self) -> float:
        """When the next wait is over."""
        first = self._heap[0].due if self._heap else math.inf
        return min(first, self._checks[0][0]) if self._checks else first

    def oldest_due(self, now: float) -> float:
        """Return since when the oldest is due that nobody has taken yet; `now` where there is none.

        What leaves requests to others does not count (rule 14).
        """
        oldest = now
        for queue in self._queues.values():
            for waiting in (queue.tagged, queue.polls):
                while waiting and waiting[0].state is State.GONE:
                    waiting.popleft()
                if waiting:
                    oldest = min(oldest, waiting[0].due)
        return oldest

    # -- what is remembered, and forgotten ------------------------------------------------------------------------

    def learn(self, connection: str, job_id: str, tag: str) -> None:
        """Remember a job's tag for the order's next action."""
        self._tags[connection, job_id] = tag
        self._tags.move_to_end((connection, job_id))
        if len(self._tags) > LEARNT_TAGS:
            self._tags.popitem(last=False)

    def left_behind(self, count: int) -> None:
        """Note that so many have ended where they lie. Once more are GONE than open, forget them: O(1) for each."""
        self._litter += count
        if self._litter > self._book.open:
            self._forget_gone()

    def _forget_gone(self) -> None:
        self._heap = [entry for entry in self._heap if entry.state is not State.GONE]
        heapq.heapify(self._heap)
        self._checks = [(due, entry) for due, entry in self._checks if entry.state is not State.GONE]
        heapq.heapify(self._checks)
        self._paused.forget_gone()
        for queue in self._queues.values():
            queue.tagged, queue.spare_sends = _live(queue.tagged), _live(queue.spare_sends)
            queue.sends = deque(each for each in queue.sends if each[0].state is not State.GONE)
            queue.polls, queue.spare_polls = _live(queue.polls), _live(queue.spare_polls)
        self._litter = 0


def _live(entries: Iterable[Entry]) -> deque[Entry]:
    return deque(entry for entry in entries if entry.state is not State.GONE)
