"""Kafka, as far as the relay's promise depends on it: logs with transactions, their coordinator, and a group.

Modelled from the protocol and from what was measured on real brokers:
 1. A record is visible to readers once its transaction is committed; readers stop at the last stable offset.
 2. `init` ends the former producer's transaction and fences it. One that overruns its time-out is aborted and fenced.
 3. A request that ends a transaction names the producer and its epoch, not the transaction (before KIP-890's client
    side): a delayed one ends whatever is open under that epoch by then.
 4. Offsets are taken from members of the present generation only; a negative generation is not checked. They count
    when their transaction is committed, and `committed` does not answer while some are undecided.
 5. Cooperative rebalances: a partition goes to its new owner in a later generation than the one in which the former
    owner gave it up. No generation begins before every member that is not given up for dead takes part.
 6. Offsets that arrive late are taken by whatever transaction their producer's epoch has open by then (brokers from 3.7
    on refuse them where none is open).
 7. A topic may refuse a record, and every batch that holds it; brokers say which record it is, or do not.
 8. A partition without a leader takes nothing. A transaction that it was added to cannot be ended, nor can its
    transactional.id be used, until it is back.
 9. A topic that is deleted takes its records along, also those of open transactions; recreated it begins at 0. Whether
    the group's offsets go with it is a matter of time: its coordinator hears of it later.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol
from zlib import crc32

from confluent_kafka import KafkaError, KafkaException

from consumer.core.ownership import Partition
from schemas.pending_action import POSITION_KEY

TRANSACTION_TIMEOUT_S = 10.0
TOMBSTONES_KEPT_S = 24 * 3600.0

Headers = list[tuple[str, bytes | str | None]]


def error(code: int, *, fatal: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "in the simulation", fatal))


@dataclass(slots=True, eq=False)
class Transaction:
    """What a producer's epoch has open at the broker. `serials`: the client's transactions that are in it."""

    started_at: float
    records: list[tuple[Log, Record]] = field(default_factory=list)
    offsets: dict[Partition, tuple[int, str | None]] = field(default_factory=dict)
    serials: set[int] = field(default_factory=set)
    stale: bool = False  # an earlier one's offsets came after its own
    state: str = "open"


@dataclass(slots=True, eq=False, kw_only=True)
class Record:
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    at: float
    transaction: Transaction | None = None
    marker: bool = False

    @property
    def settled(self) -> bool:
        return self.transaction is None or self.transaction.state == "committed"


def _offset(record: Record) -> int:
    return record.offset


class Log:
    """One partition."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.recreated = False  # its topic was deleted before, and no transaction has been committed since
        self.records: list[Record] = []
        self.start = 0
        self.end = 0
        self.open: dict[Transaction, int] = {}
        self.latest: dict[bytes, Record] = {}  # by key, of the settled ones
        self.live: dict[bytes, Record] = {}  # those that are actions, and no tombstones

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        now: float,
        headers: Headers | None = None,
        transaction: Transaction | None = None,
    ) -> Record:
        record = Record(offset=self.end, key=key, value=value, headers=headers or [], at=now, transaction=transaction)
        self.records.append(record)
        self.end += 1
        if transaction is None:
            self.settle(record)
        else:
            self.open.setdefault(transaction, record.offset)
        return record

    def settle(self, record: Record) -> None:
        if record.key is not None:
            known = self.latest.get(record.key)
            if known is None or known.offset < record.offset:
                self.latest[record.key] = record
                if record.value is None:
                    self.live.pop(record.key, None)
                elif record.key != POSITION_KEY:
                    self.live[record.key] = record

    def close(self, transaction: Transaction, now: float) -> None:
        """Write the transaction's marker."""
        del self.open[transaction]
        self.records.append(
            Record(offset=self.end, key=None, value=None, headers=[], at=now, transaction=None, marker=True)
        )
        self.end += 1

    @property
    def stable_end(self) -> int:
        return min(self.open.values()) if self.open else self.end

    def read(self, start: int, most: int) -> tuple[list[Record], int]:
        """Return settled records from `start` on, and where to continue."""
        end = self.stable_end
        found: list[Record] = []
        position = start
        records = self.records
        for index in range(bisect_left(records, start, key=_offset), len(records)):
            record = records[index]
            if record.offset >= end or len(found) == most:
                return found, record.offset
            position = record.offset + 1
            if not record.marker and record.settled:
                found.append(record)
        return found, max(position, end)

    def settled(self) -> list[Record]:
        """What readers find in it, once every open transaction has ended."""
        return [record for record in self.records if record.settled and not record.marker]

    def delete_before(self, offset: int) -> None:
        self.start = offset
        self.records = [record for record in self.records if record.offset >= offset]

    def compact(self, now: float) -> int:
        """Clean what is settled; returns how many records went."""
        end = self.stable_end
        before = len(self.records)
        self.records = [record for record in self.records if record.offset >= end or self._stays(record, now)]
        return before - len(self.records)

    def _stays(self, record: Record, now: float) -> bool:
        if record.key is None or self.latest.get(record.key) is not record:
            return False
        return record.value is not None or now - record.at < TOMBSTONES_KEPT_S


@dataclass(slots=True)
class Producers:
    """What the transaction coordinator knows of one transactional.id."""

    epoch: int = 0
    transaction: Transaction | None = None
    added: set[Partition] = field(default_factory=set)  # that were lost, to transactions that have not ended since


class Process(Protocol):
    """Whose member it is."""

    @property
    def responsive(self) -> bool:
        """Whether it answers."""


@dataclass(slots=True, eq=False)
class Member:
    """A member as the group's coordinator knows it. `news`: what it has not been told yet."""

    id: bytes
    process: Process
    owned: set[Partition] = field(default_factory=set)
    generation: int = -1
    news: list[tuple[str, list[Partition]]] = field(default_factory=list)
    silent_since: float = math.inf


Refusal = Literal["of the topic", "of a record", "of a record, unsaid which"]

_METADATA = struct.Struct("=i")
PREFIX = b"CGMDv2:"


def metadata(generation: int, member: bytes) -> bytes:
    return PREFIX + _METADATA.pack(generation) + member


class Kafka:
    """The broker. Nothing here draws a number: the scheduler decides what happens when."""

    def __init__(
        self, clock: Callable[[], float], source: str, partitions: int, topics: Iterable[str], session_s: float
    ) -> None:
        self.session_s = session_s
        self.clock = clock
        self.topic_id = "topic-0"  # the source's
        self.partitions: list[Partition] = [(source, number) for number in range(partitions)]  # that the group knows
        self.logs: dict[Partition, Log] = {
            (topic, number): Log(topic, number) for topic in topics for number in range(partitions)
        }
        self.producers: dict[str, Producers] = {}
        self._open_ones: list[Producers] = []  # those with a transaction
        self.committed: dict[Partition, tuple[int, str | None]] = {}
        self.members: dict[bytes, Member] = {}
        self._silent: list[Member] = []
        self.refusal: Refusal | None = None  # of the dead-letter topics
        self.closed: set[str] = set()  # topics that take no records
        self.lost: set[Partition] = set()  # without a leader
        self.version = 0  # changes with whatever a member may hear of: nobody looks twice at the same
        self.generation = 0
        self.restless = False
        self.written: dict[int, set[Partition]] = {}  # by the client's transaction
        self.on_offsets: Callable[[Member | None, int, int, Iterable[Partition]], None] = lambda *_: None
        self.on_committed: Callable[[Transaction, bool], None] = lambda *_: None

    def beside(self) -> Kafka:
        """Return the same brokers as another group knows them: members, offsets and producers are its own."""
        other = Kafka(self.clock, self.partitions[0][0], len(self.partitions), (), self.session_s)
        other.logs, other.lost = self.logs, self.lost
        return other

    # -- transactions -------------------------------------------------------------------------------------------

    def init(self, transactional_id: str) -> int:
        producers = self.producers.setdefault(transactional_id, Producers())
        self._end(producers, commit=False, torn=False)
        producers.epoch += 1
        producers.added &= self.lost
        if producers.added:
            raise error(KafkaError.CONCURRENT_TRANSACTIONS)
        return producers.epoch

    def add(self, transactional_id: str, epoch: int, serial: int, lost: Iterable[Partition]) -> None:
        """Add partitions to a transaction that cannot take records (rule 8)."""
        self._open(transactional_id, epoch, serial)
        self.producers[transactional_id].added.update(lost)

    def _open(self, transactional_id: str, epoch: int, serial: int) -> Transaction:
        producers = self.producers[transactional_id]
        if epoch != producers.epoch:
            raise error(KafkaError._FENCED, fatal=True)
        if producers.transaction is None:
            producers.transaction = Transaction(self.clock())
            self._open_ones.append(producers)
        producers.transaction.serials.add(serial)
        return producers.transaction

    def produce(
        self,
        transactional_id: str,
        epoch: int,
        serial: int,
        at: Partition,
        record: tuple[bytes | None, bytes | None, Headers],
    ) -> int:
        transaction = self._open(transactional_id, epoch, serial)
        log = self.logs[at]
        key, value, headers = record
        written = log.append(key, value, self.clock(), headers, transaction)
        transaction.records.append((log, written))
        self.written.setdefault(serial, set()).add(at)
        return written.offset

    def send_offsets(
        self,
        transactional_id: str,
        epoch: int,
        serial: int,
        offsets: dict[Partition, tuple[int, str | None]],
        group_metadata: bytes,
    ) -> None:
        transaction = self._open(transactional_id, epoch, serial)
        member, generation = self._checked(group_metadata)
        self.on_offsets(member, generation, serial, offsets)
        transaction.offsets.update(offsets)
        transaction.stale = False

    def late_offsets(
        self,
        transactional_id: str,
        epoch: int,
        offsets: dict[Partition, tuple[int, str | None]],
        group_metadata: bytes,
    ) -> None:
        """A request that was sent before arrives (again)."""
        producers = self.producers[transactional_id]
        if epoch != producers.epoch:
            raise error(KafkaError._FENCED, fatal=True)
        if producers.transaction is None:
            raise error(KafkaError.INVALID_TXN_STATE)
        self._checked(group_metadata)
        producers.transaction.offsets.update(offsets)
        producers.transaction.stale = True

    def _checked(self, group_metadata: bytes) -> tuple[Member | None, int]:
        (generation,) = _METADATA.unpack_from(group_metadata, len(PREFIX))
        member = self.members.get(group_metadata[len(PREFIX) + _METADATA.size :])
        if generation >= 0:
            if member is None:
                raise error(KafkaError.UNKNOWN_MEMBER_ID)
            if generation != self.generation:
                raise error(KafkaError.ILLEGAL_GENERATION)
        return member, generation

    def end(self, transactional_id: str, epoch: int, serial: int, *, commit: bool) -> None:
        producers = self.producers[transactional_id]
        if epoch != producers.epoch:
            raise error(KafkaError._FENCED, fatal=True)
        transaction = producers.transaction
        torn = transaction is not None and (transaction.serials != {serial} or transaction.stale)
        self._end(producers, commit=commit, torn=torn)

    def _end(self, producers: Producers, *, commit: bool, torn: bool) -> None:
        transaction, producers.transaction = producers.transaction, None
        if transaction is None:
            return
        self._open_ones.remove(producers)
        transaction.state = "committed" if commit else "aborted"
        if commit:
            for log, record in transaction.records:
                log.settle(record)
                log.recreated = False
        for log in {log: None for log, _ in transaction.records}:
            log.close(transaction, self.clock())
        if commit:
            self.committed.update(transaction.offsets)
            self.on_committed(transaction, torn)

    def next_time_out(self) -> float | None:
        if not self._open_ones:
            return None
        return min(p.transaction.started_at for p in self._open_ones if p.transaction) + TRANSACTION_TIMEOUT_S

    def end_overrun(self) -> None:
        for producers in list(self._open_ones):
            transaction = producers.transaction
            if transaction is not None and transaction.started_at + TRANSACTION_TIMEOUT_S <= self.clock():
                self._end(producers, commit=False, torn=False)
                producers.epoch += 1

    def undecided(self, partitions: Iterable[Partition]) -> bool:
        """Whether a transaction that is open has sent offsets of one of these."""
        if not self._open_ones:
            return False
        asked = set(partitions)
        return any(p.transaction and not asked.isdisjoint(p.transaction.offsets) for p in self._open_ones)

    def refused(self, records: list[bytes | None]) -> list[int | None]:
        """Say why a dead-letter topic does not take a produce batch, for each of its records; none where it does."""
        if self.refusal == "of the topic":
            return [KafkaError.TOPIC_AUTHORIZATION_FAILED for _ in records]
        culprits = [self.refusal is not None and crc32(value or b"") & 1 for value in records]
        if not any(culprits):
            return [None for _ in records]
        other = KafkaError._INVALID_DIFFERENT_RECORD if self.refusal == "of a record" else KafkaError.INVALID_RECORD
        return [KafkaError.INVALID_RECORD if culprit else other for culprit in culprits]

    # -- topics -------------------------------------------------------------------------------------------------

    def count(self, topic: str) -> int:
        """How many partitions it has."""
        count = 0
        while (topic, count) in self.logs:
            count += 1
        return count

    def grow(self, topic: str) -> Log:
        """Add a partition."""
        number = self.count(topic)
        log = self.logs[topic, number] = Log(topic, number)
        return log

    def recreate(self, topic: str) -> list[Log]:
        """Delete a topic and make it again; returns its former partitions."""
        former = [self.logs[topic, number] for number in range(self.count(topic))]
        for log in former:
            self.logs[topic, log.partition] = new = Log(topic, log.partition)
            new.recreated = True
        return former

    def is_recreated(self, topic: str) -> bool:
        """Whether it was deleted, and a partition of what took its place has met no transaction yet."""
        return any(self.logs[topic, number].recreated for number in range(self.count(topic)))

    def settle_gone(self, gone: Iterable[Log]) -> None:
        """Forget what open transactions wrote into partitions that are no more."""
        for producers in self._open_ones:
            if producers.transaction is not None:
                kept = [(log, record) for log, record in producers.transaction.records if log not in gone]
                producers.transaction.records = kept

    # -- the group ----------------------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        self.members[member.id] = member
        self.restless = True
        self.version += 1
        self.listen(member.process)

    def leave(self, member: Member) -> None:
        if self.members.pop(member.id, None) is not None:
            self.restless = True
            self.version += 1
        if member in self._silent:
            self._silent.remove(member)

    def listen(self, process: Process) -> None:
        """Notice that a process falls silent, or is heard again."""
        for member in self.members.values():
            if member.process is process:
                if process.responsive:
                    member.silent_since = math.inf
                    if member in self._silent:
                        self._silent.remove(member)
                else:
                    self.fall_silent(member)

    def fall_silent(self, member: Member) -> None:
        """No heartbeat of it comes any more."""
        if member not in self._silent:
            member.silent_since = self.clock()
            self._silent.append(member)

    def heartbeats(self) -> None:
        """Give up who was silent too long."""
        if self._silent:
            for member in list(self._silent):
                if self.clock() - member.silent_since >= self.session_s:
                    self.leave(member)

    def gave_up(self, member: Member, partitions: Iterable[Partition]) -> None:
        """A member unassigned these: it joins again without them."""
        member.owned.difference_update(partitions)
        self.restless = True

    def can_rebalance(self) -> bool:
        return self.restless and not self._silent and not any(m.news for m in self.members.values())

    def rebalance(self, order: list[Partition] | None = None) -> None:
        """Begin a generation. `order`: hand the partitions out in this order, wherever they were."""
        self.restless = False
        self.version += 1
        self.generation += 1
        members = list(self.members.values())
        for member in members:
            member.generation = self.generation
        if not members:
            return
        wanted = self._wanted(members, order)
        taken = {at for member in members for at in member.owned}
        for member in members:
            revoked = sorted(at for at in member.owned if wanted[at] is not member)
            new = sorted(at for at in self.partitions if wanted[at] is member and at not in taken)
            if revoked:
                member.news.append(("revoke", revoked))
            if new:
                member.owned.update(new)
                member.news.append(("assign", new))

    def _wanted(self, members: list[Member], order: list[Partition] | None) -> dict[Partition, Member]:
        if order is not None:
            return {at: members[index % len(members)] for index, at in enumerate(order)}
        most = -(-len(self.partitions) // len(members))
        wanted: dict[Partition, Member] = {}
        for member in members:
            wanted.update(dict.fromkeys(sorted(member.owned)[:most], member))
        for at in self.partitions:
            if at not in wanted:
                counts = [sum(owner is member for owner in wanted.values()) for member in members]
                wanted[at] = members[counts.index(min(counts))]
        return wanted
