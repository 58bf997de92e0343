"""EDGE. The source: the one thread that owns the Kafka consumer.

It reports batches of events, and publishes snapshots of what this instance owns. membership.py decides what is owned
and which records are reported. This module holds the thread, its client, and the requests to the thread.

Rules (each has a test in tests/broker named after the failure that it prevents):
 1. Every call on the consumer comes from this thread. Everybody else leaves a request and reads `ownership`.
 2. While everything is paused for back-pressure the polls continue (max.poll.interval.ms).
 3. A fatal error ends the process with its name.
 4. Partitions that a stable group gives to nobody make a member join again (withheld.py).
 5. A source that was recreated ends the process, also while nothing comes from it (identity.py).
 6. A group that lets nobody in says nothing: it is said for it (joining.py).
 7. A login that is refused and was replaced in its file ends the process: who starts reads that one (login_files.py).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.core.clock import Clock
from consumer.core.ownership import Assignment, Ownership, Partition
from consumer.core.progress import Reading
from consumer.errors import ConsumerFailedError, LoginReplacedError
from consumer.kafka import clients
from consumer.kafka.facts import ClientError, Consumed, Failed, PartitionsCounted, Report, Statistics
from consumer.kafka.identity.identity import SourceWatch
from consumer.kafka.login_files import LoginFiles
from consumer.kafka.source.joining import why_not_joined
from consumer.kafka.source.membership import POLL_S, Membership, is_fatal
from consumer.kafka.source.withheld import GroupWatch
from consumer.kafka.topics.ends import EndWatch
from schemas.pending_action import SourceIdentity

BATCHES_AHEAD = 2  # one that the event loop works on and one that waits
LAG_EVERY_S = 1.0
METADATA_TIMEOUT_S = 1.0


class Source:
    """The consumer and its thread. Methods may be called from any thread and never block, save `join`."""

    def __init__(
        self,
        *,
        properties: clients.Properties,
        topics: Iterable[str],
        identities: Mapping[str, SourceIdentity],
        report: Report,
        clock: Clock,
        hand_over_s: float,
        beat: Callable[[], None],
        drained: Collection[str] = (),
    ) -> None:
        """`identities`: by topic, as they were at the start. `hand_over_s`, `drained`: see Membership.

        `beat` is called whenever the thread shows life.
        """
        self._properties = properties
        self._topics = list(topics)
        self._report = report
        self._login = LoginFiles(properties)
        self._watch = SourceWatch(properties, identities)
        self._membership = Membership(
            self._topics,
            report,
            clock=clock,
            hand_over_s=hand_over_s,
            wait=threading.Event.wait,
            beat=beat,
            confirm=self._watch.confirm,
            incarnations={topic: each.incarnation for topic, each in identities.items()},
            drained=drained,
        )
        self._requests: deque[Callable[[Consumer], None]] = deque()
        self._room = threading.Semaphore(BATCHES_AHEAD)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._counts: Mapping[str, int] = {}
        self._lag_at = 0.0
        self.joining: str | None = None  # what is to be said of a group that lets us wait for long
        self.readings: Mapping[Partition, Reading] = MappingProxyType({})

    # -- from any thread ----------------------------------------------------------------------------------------

    @property
    def ownership(self) -> Ownership:
        """The latest snapshot."""
        return self._membership.ownership

    def owns(self, assignment: Assignment) -> bool:
        """Whether this very assignment is still ours, as far as is known."""
        return self.ownership.covers(assignment)

    @property
    def joined(self) -> bool:
        """Whether the group was joined once."""
        return self._membership.joined

    @property
    def alive(self) -> bool:
        """Whether the thread runs. confluent-kafka may raise a bare KafkaError, which no `except` catches."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, which joins the group."""
        self._thread.start()

    def begin(self, assignment: Assignment, next_offset: int) -> None:
        """Consume a restored partition from `next_offset` on."""
        self._requests.append(lambda consumer: self._begin(consumer, assignment, next_offset))

    def pause(self) -> None:
        """Pause everything for back-pressure."""
        self._requests.append(self._membership.pause)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._requests.append(self._membership.resume)

    def hold(self, assignment: Assignment) -> None:
        """Read nothing more of one partition; the others continue."""
        self._requests.append(lambda consumer: self._membership.hold(consumer, assignment))

    def release(self, assignment: Assignment) -> None:
        """Continue after `hold`."""
        self._requests.append(lambda consumer: self._membership.release(consumer, assignment))

    def readopt(self, assignment: Assignment) -> None:
        """Begin a partition anew, as if it had just been assigned."""
        self._requests.append(lambda consumer: self._membership.readopt(consumer, assignment))

    def rejoin(self) -> None:
        """Give up every partition at once and join the group again."""
        self._requests.append(self._membership.rejoin)

    def batch_done(self) -> None:
        """Make room for another batch, after one was taken in."""
        self._room.release()

    def stop(self) -> None:
        """Hand everything over, leave the group, end."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; tells whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- on the source's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            consumer = Consumer(
                {**clients.member(self._properties), "stats_cb": self._on_statistics, "error_cb": self._on_error},
                logger=clients.LOGGER,
            )
            ends = EndWatch(self._properties)
            watch = GroupWatch(self._properties) if GroupWatch.needed(self._properties) else None
            if watch is not None:
                watch.start()
            self._membership.join(consumer)
            begun = time.monotonic()
            while not self._stopping.is_set():
                self._poll(consumer)
                self._watch_joining(time.monotonic() - begun)
                self._measure_lag(consumer, ends)
                self._watch.look()
                if watch is not None:
                    self._watch_the_group(consumer, watch)
            self._membership.leave(consumer)
            if watch is not None:
                watch.stop()
        except Exception as error:  # noqa: BLE001 - the thread's edge: it ends the process, loudly
            self._report(Failed(error))

    def _poll(self, consumer: Consumer) -> None:
        # Wait for room first, then read the requests: a pause may have been requested just before room was made.
        has_room = self._room.acquire(timeout=POLL_S)
        for _ in range(len(self._requests)):
            self._requests.popleft()(consumer)
        if not has_room:
            return
        before = self._membership.ownership
        batch = self._membership.poll(consumer)
        if self._membership.ownership is not before:
            self._count_partitions(consumer)
        if batch:
            self._report(Consumed(batch))
        else:
            self._room.release()

    def _begin(self, consumer: Consumer, assignment: Assignment, next_offset: int) -> None:
        if not self._membership.begin(consumer, assignment, next_offset):
            self.begin(assignment, next_offset)

    def _watch_joining(self, waited_s: float) -> None:
        before, refused_by = self.joining, self._membership.refused_by
        self.joining = None if self.joined else why_not_joined(self._properties, waited_s, refused_by)
        if self.joining is not None and before is None and refused_by is None:  # a refusal was reported as it came
            self._report(ClientError(self.joining))

    def _watch_the_group(self, consumer: Consumer, watch: GroupWatch) -> None:
        unowned = watch.must_rejoin(self._counts, consumer.memberid())
        if unowned:
            why = f"the group is stable, and {unowned} partitions are assigned to no member: joining it again"
            self._report(ClientError(why))
            self._membership.step_out(consumer)

    def _report_counts(self, counts: Mapping[str, int]) -> None:
        counts = {topic: count for topic, count in counts.items() if count}
        self._counts = {**self._counts, **counts}
        self._report(PartitionsCounted(counts))

    def _count_partitions(self, consumer: Consumer) -> None:
        """Report how many partitions the topics have, after a rebalance.

        New partitions may be its cause. With the old count, this instance's share of a rate limit would be too large,
        and the statistics come only some seconds later. The call lists all topics, because the broker may create a
        topic that is asked for by name.
        """
        try:
            known = consumer.list_topics(timeout=METADATA_TIMEOUT_S).topics
        except KafkaException:
            return
        self._report_counts({topic: len(known[topic].partitions) for topic in self._topics if topic in known})

    def _measure_lag(self, consumer: Consumer, ends: EndWatch) -> None:
        now = time.monotonic()
        if now - self._lag_at < LAG_EVERY_S:
            return
        self._lag_at = now
        positions = dict(self._membership.positions)
        ends.look(positions, now)
        readings: dict[Partition, Reading] = {}
        for at, next_offset in positions.items():
            fetched = _fetched_ends(consumer, at)
            asked = ends.known.get(at)
            end = max(-1 if fetched is None else fetched[1], -1 if asked is None else asked.high)
            if end >= 0:
                held = asked is not None and asked.stable <= next_offset < asked.high
                readings[at] = Reading(next_offset, max(0, end - next_offset), held)
        self.readings = MappingProxyType(readings)

    # -- called by the client within a poll ---------------------------------------------------------------------

    def _on_statistics(self, statistics: str) -> None:
        figures = json.loads(statistics)
        self._report(Statistics(figures))
        known = figures.get("topics", {})
        # -1 is librdkafka's own partition of a topic that it knows too little of.
        counts = {topic: len(known[topic]["partitions"].keys() - {"-1"}) for topic in self._topics if topic in known}
        self._report_counts(counts)

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._report(Failed(ConsumerFailedError(error.str())))
        elif outdated := self._login.outdated_by(error):
            self._report(Failed(LoginReplacedError(f"{error.str()}; {', '.join(outdated)} changed since the start")))
        else:
            self._report(ClientError(error.str()))


def _fetched_ends(consumer: Consumer, at: Partition) -> tuple[int, int] | None:
    """Return the ends as the last fetch saw them; None before the first one."""
    try:
        return consumer.get_watermark_offsets(TopicPartition(*at), cached=True)
    except KafkaException:  # the client does not know the partition any more
        return None
