"""EDGE. Reads partitions as fast as a client can, and says meanwhile how far it is. No membership, no offset moves.

Several partitions are read at once, each up to where it ended when the reading began. Only settled records are seen:
a transaction that stays open hides what lies behind it, so a reading that does not get on ends with what it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.core.ownership import Partition
from consumer.kafka import clients
from consumer.kafka.throttling import READERS

AT_ONCE = 2_000
POLL_S = 0.2
STALLED_S = 15.0  # above the journal's transaction.timeout.ms (10 s): an abandoned transaction has ended by then
TELL_S = 0.5

# A scan is limited by the client's fetches: more is asked for, and held, than the relay's own consumer does.
_FAST: Mapping[str, str | int | float | bool] = {
    "fetch.wait.max.ms": 20,
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 64 * 1024,
    "fetch.message.max.bytes": 8 * 1024 * 1024,
    "fetch.max.bytes": 32 * 1024 * 1024,
    "check.crcs": False,
}
# In a relay at work, which has memory of its own to hold.
_GENTLE: Mapping[str, str | int | float | bool] = {
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 8 * 1024,
}


@dataclass(slots=True)
class Span:
    """A partition's records from `start` to before `end`; `reached` moves from the one to the other.

    `records`: how many were read. `since_ms`: the time of the first one, None before it was read. `error`: why no more
    of it can be read.
    """

    start: int
    end: int
    reached: int = field(init=False)
    records: int = 0
    since_ms: int | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        self.reached = self.start


class StalledError(Exception):
    """A partition was not read to its end. Its text says why."""


Tell = Callable[[Mapping[Partition, Span]], None]
"""Is told how far the reading is, some times a second."""


def read(
    properties: clients.Properties,
    spans: Mapping[Partition, Span],
    *,
    tell: Tell = lambda _: None,
    stalled_s: float = STALLED_S,
    give_up_s: float | None = None,
    gentle: bool = False,
) -> Iterator[tuple[Partition, list[Message]]]:
    """Yield the records in batches of one partition, in the order of its offsets.

    `give_up_s`: after so long it ends with StalledError. `gentle`: half of the time is left to other threads.
    A partition that cannot be read has an `error` then. Raises StalledError, KafkaException.
    """
    open_ = {at: span for at, span in spans.items() if span.start < span.end}
    if not open_:
        return
    started = moved_at = told_at = time.monotonic()
    how = {**clients.reader(properties), **_FAST, **(_GENTLE if gentle else {})}
    with closing(Consumer(how, logger=clients.LOGGER)) as reader:
        reader.assign([TopicPartition(*at, span.start) for at, span in open_.items()])
        while open_:
            batch = reader.consume(AT_ONCE, POLL_S)
            begun = time.monotonic()
            moved = False
            for at, records in _by_partition(batch, open_).items():
                span = open_.get(at)
                if span is not None:
                    moved = True
                    yield at, records
                    if span.reached >= span.end or span.error is not None:
                        del open_[at]
            now = time.monotonic()
            moved_at = now + READERS.left_s if moved or READERS.left_s else moved_at
            if now - told_at > TELL_S:
                told_at = now
                tell(spans)
            if give_up_s is not None and now - started > give_up_s:
                raise StalledError(f"not done after {give_up_s:g} s: {_left(open_)}")
            if now - moved_at > stalled_s:
                raise StalledError(f"a transaction is open, or the broker does not answer: {_left(open_)}")
            if gentle:
                time.sleep(now - begun)


def _by_partition(batch: list[Message], open_: Mapping[Partition, Span]) -> dict[Partition, list[Message]]:
    """Sort a batch by partition and move the spans. Raises KafkaException for an error that does not pass."""
    found: dict[Partition, list[Message]] = {}
    at: Partition = "", -1
    records: list[Message] = []
    span: Span | None = None
    for record in batch:
        error = record.error()
        if record.partition() != at[1] or record.topic() != at[0]:
            number = record.partition()
            at = record.topic() or "", -1 if number is None else number
            span, records = open_.get(at), found.setdefault(at, [])
        if error is not None:
            _take_error(error, record, span)
        elif span is not None and (offset := record.offset() or 0) < span.end:
            span.reached = offset + 1
            span.records += 1
            if span.since_ms is None:
                span.since_ms = record.timestamp()[1]
            records.append(record)
        elif span is not None:
            span.reached = max(span.reached, record.offset() or 0)
    return found


def _take_error(error: KafkaError, record: Message, span: Span | None) -> None:
    if error.code() == KafkaError._PARTITION_EOF:  # it tells how far it came, transaction markers included
        if span is not None:
            span.reached = max(span.reached, record.offset() or 0)
    elif error.code() in _FINAL and span is not None:
        span.error = error.str()
    elif error.fatal():
        raise KafkaException(error)


_FINAL = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART})


def _left(open_: Mapping[Partition, Span]) -> str:
    return ", ".join(f"{topic}[{n}] read to {span.reached} of {span.end}" for (topic, n), span in open_.items())
