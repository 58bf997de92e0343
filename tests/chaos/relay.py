"""`engage-relay run` that ends itself at a named moment: `python -m tests.chaos.relay run ...`.

`FAIL_AT="after the 202:3:SIGKILL"`: the third time that it comes to this point, it sends itself this signal, and is
still there only where the signal leaves it. `CLOCK="+300"`: its wall clock is ahead by so many seconds; with
`CLOCK="-3600@20"` it jumps when the 20th action was accepted. `SENT=file`: when each request left is appended to the
file, which several may share (float64, seconds of the machine's monotonic clock). The edges are wrapped from outside;
the product knows nothing of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from struct import pack
from typing import Any

from confluent_kafka import Producer

from consumer.core.outcomes import Accepted, ActionOutcome
from consumer.engage.client import EngageClient
from consumer.engage.connection import Connection
from consumer.kafka.journal import journal
from schemas.pending_action import POSITION_KEY
from tests.support import relay_process

VARIABLE = "FAIL_AT"
SENT = "SENT"
CLOCK = "CLOCK"
POINTS = (
    "after a record was produced",
    "before the offsets are sent",
    "after the offsets were sent",
    "before the commit",
    "after the commit",
    "after the POST was written",
    "after the 202",
    "before the tombstone",
)


class FailPoint:
    """The one that is to be met."""

    def __init__(self, described: str) -> None:
        self._point, nth, name = described.split(":")
        self._left = int(nth)
        self._signal = signal.Signals[name]
        if self._point not in POINTS:
            raise ValueError(f"no fail point {self._point!r}; there are {POINTS}")

    def reached(self, point: str) -> None:
        """Come to a point."""
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._signal)


def failing_producer(fail: FailPoint) -> type[Producer]:
    """Return a producer that meets the journal's points."""

    class FailingProducer(Producer):
        def produce(self, *args: Any, **kwargs: Any) -> None:
            _, value, key, *_ = args  # as the journal calls it
            if value is None and key != POSITION_KEY:
                fail.reached("before the tombstone")
            super().produce(*args, **kwargs)
            fail.reached("after a record was produced")

        def send_offsets_to_transaction(self, *args: Any) -> None:
            fail.reached("before the offsets are sent")
            super().send_offsets_to_transaction(*args)
            fail.reached("after the offsets were sent")

        def commit_transaction(self, *args: Any) -> None:
            fail.reached("before the commit")
            super().commit_transaction(*args)
            fail.reached("after the commit")

    return FailingProducer


def after_each_acceptance(call: Callable[[], object]) -> None:
    """Call this whenever Engage has accepted an action, before the relay hears of it."""
    send_action = EngageClient.send_action

    async def sent(self: EngageClient, *args: Any, **kwargs: Any) -> ActionOutcome:
        outcome = await send_action(self, *args, **kwargs)
        if isinstance(outcome, Accepted):
            call()
        return outcome

    setattr(EngageClient, "send_action", sent)  # noqa: B010 - mypy takes no assignment to a method


def after_each_request(call: Callable[[bytes, float], object]) -> None:
    """Call this with the request line whenever a request was written, and when that began."""
    write = Connection._write

    def written(self: Connection, request: bytes) -> bool:
        line, began = request.split(b"\r\n", 1)[0], time.monotonic()
        taken = write(self, request)
        if taken:
            call(line, began)
        return taken

    setattr(Connection, "_write", written)  # noqa: B010 - mypy takes no assignment to a method


def keep_times(file: str) -> None:
    """Append to the file when each request left."""
    kept = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    after_each_request(lambda _, began: os.write(kept, pack("d", began)))


def fail_as_told(fail: FailPoint) -> None:
    """Put the points into the edges."""
    vars(journal)["Producer"] = failing_producer(fail)

    def sent(line: bytes, _: float) -> None:
        if line.startswith(b"POST ") and b"/action " in line:
            fail.reached("after the POST was written")

    after_each_request(sent)
    after_each_acceptance(lambda: fail.reached("after the 202"))


def shift_clock(described: str) -> None:
    """Have the wall clock be wrong by some seconds, from the beginning or from an acceptance on."""
    seconds, _, accepted = described.partition("@")
    left = int(accepted or 0)
    right = time.time

    def wrong() -> float:
        return right() + (0 if left > 0 else float(seconds))

    def accepted_one() -> None:
        nonlocal left
        left -= 1

    after_each_acceptance(accepted_one)
    vars(time)["time"] = wrong
    (EngageClient.__init__.__kwdefaults__ or {})["now"] = wrong


def main() -> None:
    """Run the command line."""
    if wrong := os.environ.get(CLOCK):
        shift_clock(wrong)
    if file := os.environ.get(SENT):
        keep_times(file)
    if described := os.environ.get(VARIABLE):
        fail_as_told(FailPoint(described))
    relay_process.main()


if __name__ == "__main__":
    main()
