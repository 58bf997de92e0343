"""What the relay asks of its edges. `run/wiring.py` passes Kafka's (consumer/kafka), the simulation its models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from consumer.core.ownership import Assignment, Partition
from consumer.core.progress import Reading
from consumer.core.requests import DeadLetterId
from consumer.kafka.journal.journal import STUCK_S
from consumer.kafka.journal.writes import Item
from consumer.kafka.parking.read_back import ParkedRecord
from consumer.kafka.records.source_events import SourceEvent
from consumer.kafka.restore.restored import Restored, Unservable


class Source(Protocol):
    """The consumer. It never blocks, save in `join`; it reports what kafka/facts.py lists."""

    def owns(self, assignment: Assignment) -> bool:
        """Whether this very assignment is still ours, as far as is known."""

    @property
    def joined(self) -> bool:
        """Whether the group was joined once."""

    @property
    def joining(self) -> str | None:
        """What is to be said of a group that lets us wait for long."""

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""

    @property
    def readings(self) -> Mapping[Partition, Reading]:
        """How far each source partition was read, and its lag. Without those that nobody knows."""

    def start(self) -> None:
        """Join the group."""

    def begin(self, assignment: Assignment, next_offset: int) -> None:
        """Consume a restored partition from `next_offset` on."""

    def pause(self) -> None:
        """Pause everything for back-pressure."""

    def resume(self) -> None:
        """Continue after `pause`."""

    def hold(self, assignment: Assignment) -> None:
        """Read nothing more of one partition; the others continue."""

    def release(self, assignment: Assignment) -> None:
        """Continue after `hold`."""

    def readopt(self, assignment: Assignment) -> None:
        """Begin a partition anew, as if it had just been assigned."""

    def rejoin(self) -> None:
        """Give up every partition at once and join the group again."""

    def batch_done(self) -> None:
        """Make room for another batch."""

    def stop(self) -> None:
        """Hand everything over, leave the group, end."""

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; tells whether it ended."""


class Journal(Protocol):
    """The writer of the delay topic. It never blocks, save in `stop`; it reports what kafka/facts.py lists."""

    @property
    def failed(self) -> BaseException | None:
        """What ended it."""

    @property
    def backlog(self) -> int:
        """How many writes wait for their transaction."""

    @property
    def backlog_bytes(self) -> int:
        """How many bytes their records have."""

    def start(self) -> None:
        """Start to work."""

    def submit(self, items: Iterable[Item]) -> None:
        """Save these in this order."""

    def stuck_for(self) -> float:
        """Seconds that the present call has taken."""

    def stop(self, timeout_s: float) -> bool:
        """Commit what was submitted, then end; tells whether that was done in time."""


class Restorer(Protocol):
    """The reader of delay partitions. It blocks."""

    def restore(
        self, assignments: Sequence[Assignment], patience_s: float, room: int | None = None
    ) -> list[Restored | Unservable]:
        """Restore what is still ours of these; records of more than `room` bytes are parked, not held.

        Raises RestoreError where trying again may help.
        """


class ParkedReader(Protocol):
    """The reader of parked records. It blocks."""

    def read(self, assignment: Assignment, offsets: Sequence[int]) -> list[ParkedRecord]:
        """Return the records of a delay partition that lie at these offsets. One that nobody finds was replaced.

        Raises RestoreError where trying again may help.
        """


class AskedFor(Protocol):
    """The reader of what requests are about. It blocks. Both raise RestoreError where trying again may help."""

    def event(self, topic: str, partition: int, offset: int, incarnation: int) -> SourceEvent | None:
        """Return an event of a source; None: it is not there any more."""

    def dead_letter(self, which: DeadLetterId) -> SourceEvent | str:
        """Return a dead letter's event as it is redriven; a text says why it cannot be."""


class Control(Protocol):
    """The reader of the control topic. It never blocks; it reports what kafka/facts.py lists."""

    def start(self) -> None:
        """Begin to read."""

    def ask(self) -> int:
        """Ask what the topic says up to where it ends now. `ControlRead.asked` will be this number, or a later one."""

    def stop(self) -> None:
        """End."""


def is_stuck(journal: Journal) -> bool:
    """Whether a call of the journal's will never return (librdkafka issues 5456, 5511)."""
    return journal.stuck_for() > STUCK_S


def is_dead(journal: Journal) -> bool:
    """Whether the journal will never settle what it holds: do not wait for it then."""
    return journal.failed is not None or is_stuck(journal)
