"""Kafka's books: the delay and dead-letter topics as a restart would read them.

Together with Engage's account they judge whether anything was lost or doubled; the relay is never asked.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.core.ownership import Assignment
from consumer.kafka import clients, refused
from consumer.kafka.topics.offsets import committed_offsets, watermarks
from consumer.simulator.account import AcceptedAction
from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.pending_action import POSITION_KEY, PendingAction
from tests.support.events import number_of
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_S, until


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter: the original record, and why."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    why: DeadLetterHeaders

    @property
    def reason(self) -> Reason:
        return self.why.reason


_NO_COORDINATOR = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


class Books:
    """What a place's delay and dead-letter topics hold, read on from call to call. `history` is every delay record."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._reader = Consumer(clients.reader(sandbox.properties), logger=clients.LOGGER)
        numbers = range(sandbox.partitions)
        self._source = [(sandbox.topics.source, n) for n in numbers]
        self._next = {(topic, n): 0 for topic in (sandbox.topics.delay, sandbox.topics.dead_letters) for n in numbers}
        for topic in (sandbox.topics.delay, sandbox.topics.dead_letters):
            self._reader.list_topics(topic, timeout=PATIENCE_S)  # else librdkafka looks for them once a second
        self._reader.assign([TopicPartition(*each, 0) for each in self._next])
        self.live: dict[tuple[int, bytes], PendingAction] = {}
        self.dead_letters: list[DeadLetter] = []
        self.history: defaultdict[tuple[int, bytes], list[PendingAction | None]] = defaultdict(list)
        self.refused: set[tuple[int, bytes]] = set()  # dead letters that wait in the delay topic
        self.max_live = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self) -> Self:
        """Read on to the present end, open transactions awaited."""
        ends = watermarks(self._sandbox.admin, self._next)
        deadline = time.monotonic() + PATIENCE_S
        while any(self._next[each] < end for each, (_, end) in ends.items()):
            assert time.monotonic() < deadline, "the delay and dead-letter topics cannot be read to their end"
            for record in self._reader.consume(1000, 0.05):
                self._take(record)
        return self

    def _take(self, record: Message) -> None:
        at, error, offset = (record.topic() or "", record.partition() or 0), record.error(), record.offset() or 0
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._next[at] = max(self._next[at], offset)
            return
        self._next[at] = offset + 1
        key, value = record.key(), record.value()
        assert not isinstance(key, str)
        assert not isinstance(value, str)
        if at[0] == self._sandbox.topics.dead_letters:
            self.dead_letters.append(_dead_letter(record, key, value))
        elif key is not None and key != POSITION_KEY:
            if refused.read(Assignment(*at, 0), key, value or b"") is not None:
                self.refused.add((at[1], key))
                self.live.pop((at[1], key), None)
                return
            self.refused.discard((at[1], key))
            pending = None if value is None else PendingAction.model_validate_json(value)
            self.history[at[1], key].append(pending)
            if pending is None:
                self.live.pop((at[1], key), None)
            else:
                self.live[at[1], key] = pending
            self.max_live = max(self.max_live, len(self.live))

    def settled(self) -> bool:
        """Tell whether every event was taken and nothing is pending any more; False where Kafka does not answer."""
        with suppress(KafkaException):
            ends = watermarks(self._sandbox.admin, self._source)
            taken = self.taken()
            return all(taken.get(each, 0) >= end for each, (_, end) in ends.items()) and not (
                self.read().live or self.refused
            )
        return False

    def taken(self) -> dict[tuple[str, int], int]:
        """Return how far the group has come in the source; nothing while its coordinator moves or begins.

        Raises KafkaException where Kafka does not answer.
        """
        try:
            return committed_offsets(self._reader, self._source)
        except KafkaException as error:
            if clients.error_of(error).code() not in _NO_COORDINATOR:
                raise
            return {}

    def wait_until_settled(self, patience_s: float = PATIENCE_S) -> Self:
        until(self.settled, "every event is taken and nothing is pending any more", patience_s)
        return self

    @property
    def intents(self) -> set[tuple[str, object]]:
        """The events (order, number) whose intent has no outcome now."""
        return {_event_of(each) for each in self.live.values() if each.state == "sending"}

    @property
    def resends(self) -> Counter[tuple[str, object]]:
        """How often each event (order, number) was sent again, with the same tag, while an earlier send was in doubt.

        (With another tag: after a 404, whose record the group commit may have left out.)
        """
        found: Counter[tuple[str, object]] = Counter()
        for records in self.history.values():
            for before, after in pairwise(records):
                if (
                    before
                    and after
                    and after.sends > before.sends
                    and _tag_sent(before) == _tag_sent(after) is not None
                ):
                    found[_event_of(after)] += after.sends - before.sends
        return found

    @property
    def resent(self) -> set[tuple[str, object]]:
        """The events of `resends`."""
        return set(self.resends)


def _tag_sent(pending: PendingAction) -> str | None:
    """Return the tag of an intent; None where it is none."""
    return pending.version_tag if pending.state == "sending" else None


def _event_of(pending: PendingAction) -> tuple[str, object]:
    return pending.payload.order_id, number_of(pending.payload.data)


def _dead_letter(record: Message, key: bytes | None, value: bytes | None) -> DeadLetter:
    headers = record.headers() or []
    assert not isinstance(headers, dict)
    pairs = [(name, raw.encode() if isinstance(raw, str) else raw) for name, raw in headers]
    return DeadLetter(key, value, pairs, record.timestamp()[1], DeadLetterHeaders.from_kafka(pairs))


def doubled(accepted: Iterable[AcceptedAction]) -> Counter[tuple[str, object]]:
    """Return the events (order, number) that were accepted more than once, and how often too many."""
    times = Counter((each.order_id, number_of(each.data)) for each in accepted)
    return Counter({each: count - 1 for each, count in times.items() if count > 1})
