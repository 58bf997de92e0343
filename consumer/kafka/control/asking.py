"""EDGE. A command asks the relay for something: it writes requests to the control topic, and waits for their answers.

Rules:
 1. The topic is read to its end first. What was answered long ago is cleared away with the new requests.
 2. At most MAX_OPEN requests are open, whoever asked: each relay keeps them in memory, and reads them at each start. A
    command that waits writes the next ones as earlier ones are answered. One that does not is refused where they are
    too many, and writes nothing. A command may always have one open, so that no bulk keeps another request waiting.
 3. Nobody answering is no error of the request: it stays open until the owner of its partition has answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.core.requests import Answer, Request, refused
from consumer.kafka import clients
from consumer.kafka.control.control import Record, read_to_end, write_controls
from consumer.kafka.control.records import PARTITION, Controls, request_key, request_value

MAX_OPEN = 1000
KEEP_ANSWERED_S = 86_400.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a request; None: nobody has answered yet."""

    request: Request
    answer: Answer | None


class TooManyOpenError(Exception):
    """More requests would be open than may be. Nothing was written."""


def ask(properties: clients.Properties, topic: str, requests: Sequence[Request], *, wait_s: float) -> Iterator[Told]:
    """Write requests and yield what becomes of each; of those that are not answered, too.

    `wait_s`: how long to wait for the next answer; 0: not at all. Raises KafkaException, TooManyOpenError.
    """
    controls, end = read_to_end(properties, topic)
    if not wait_s and 1 < len(requests) > MAX_OPEN - len(controls.requests):
        open_before = f", and {len(controls.requests)} are open" if controls.requests else ""
        raise TooManyOpenError(f"these are {len(requests)} requests{open_before}; {MAX_OPEN} may be open at a time")
    old = [
        Record(request_key(each.request), None)
        for each in controls.answered.values()
        if each.at < time.time() - KEEP_ANSWERED_S
    ]
    left = list(requests)
    open_: dict[str, Request] = {}
    with closing(Consumer(clients.reader(properties), logger=clients.LOGGER)) as reader:
        reader.assign([TopicPartition(topic, PARTITION, end)])
        heard_at = time.monotonic()
        while left or open_:
            room = max(MAX_OPEN - len(open_.keys() | controls.requests.keys()), not open_)
            new, left = left[:room], left[room:]
            if new or old:
                write_controls(
                    properties, topic, [*old, *(Record(request_key(each), request_value(each)) for each in new)]
                )
                old = []
                open_ |= {each.id: each for each in new}
            for told in _answers(reader, controls, open_) if wait_s else ():
                heard_at = time.monotonic()
                yield told
            if time.monotonic() - heard_at >= wait_s:
                break
    for each in open_.values():
        yield Told(each, None)
    for each in left:
        yield Told(each, refused(f"it was not asked for: {MAX_OPEN} requests are open, and nobody answers them"))


def _answers(reader: Consumer, controls: Controls, open_: dict[str, Request]) -> Iterator[Told]:
    """Take what has come, and yield the answers that were waited for."""
    record = reader.poll(POLL_S)
    while record is not None:
        error = record.error()
        if error is None:
            controls.take(clients.raw(record.key()), clients.raw(record.value()))
        elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise KafkaException(error)
        record = reader.poll(0)
    for request_id in [each for each in open_ if each in controls.answered]:
        yield Told(open_.pop(request_id), controls.answered[request_id].answer)
