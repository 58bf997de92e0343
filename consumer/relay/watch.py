"""What the check of every second looks at: which partitions stand still, and the figures that others show."""

from __future__ import annotations

from consumer.core.ledger.ledger import Ledger
from consumer.core.progress import FAULTS, ProgressWatch, StallReason, by_reason
from consumer.core.repeats import Repeats
from consumer.relay.control_facts import ControlFacts
from consumer.relay.dispatch import Dispatch
from consumer.relay.edges import Journal, Source
from consumer.relay.journal_facts import JournalFacts
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox
from consumer.relay.partitions import Partitions
from consumer.relay.refused import RefusedDeadLetters
from consumer.relay.requests import Requests
from consumer.telemetry.snapshot import Snapshot


class Watch:
    """Looks at everything, and changes nothing."""

    def __init__(
        self,
        *,
        source: Source,
        journal: Journal,
        ledger: Ledger,
        outbox: Outbox,
        refused: RefusedDeadLetters,
        partitions: Partitions,
        dispatch: Dispatch,
        requests: Requests | None,
        repeats: Repeats | None,
        control_facts: ControlFacts,
        journal_facts: JournalFacts,
        max_pending: int,
        stall_s: float,
        log: ThrottledLog,
    ) -> None:
        """`stall_s`: see core/progress.py."""
        self._source = source
        self._journal = journal
        self._ledger = ledger
        self._outbox = outbox
        self._refused = refused
        self._partitions = partitions
        self._dispatch = dispatch
        self._requests = requests
        self._repeats = repeats
        self._control_facts = control_facts
        self._journal_facts = journal_facts
        self._max_pending = max_pending
        self._progress = ProgressWatch(stall_s)
        self._log = log

    def look(self, now: float) -> None:
        """Say of each partition that stands still that it does, and why."""
        readings, halted = self._source.readings, self._halted_by()
        changes = self._progress.look(
            {each: self._partitions.seen(each, readings.get(each[:2]), halted) for each in self._partitions.ours}, now
        )
        for reason, stalled in by_reason(changes.begun).items():
            say = self._log.error if reason in FAULTS else self._log.warning
            since = min(each.since for each in changes.begun.values() if each.reason == reason)
            say("partitions stand still", reason=reason, partitions=stalled, seconds=round(now - since))
        if changes.ended:
            moved = by_reason(changes.ended)
            self._log.info("partitions move again", partitions=[each for those in moved.values() for each in those])

    def _halted_by(self) -> StallReason:
        """Return what would explain that nothing is read."""
        if not self._outbox.paused:
            return "unknown"
        if self._outbox.journal_is_full:
            return "journal"
        suspended = any(each.pace.suspended for each in self._dispatch.connections.values())
        return "suspended" if suspended else "paused"

    def snapshot(self, now: float) -> Snapshot:
        """Return the figures of this moment."""
        share = self._partitions.share
        parked = self._ledger.parking.by_connection()
        return Snapshot(
            pending=self._ledger.counts(),
            overdue=self._ledger.overdue(now),
            in_doubt=self._ledger.in_doubt,
            facts=0 if self._repeats is None else len(self._repeats),
            journal_backlog=self._journal.backlog,
            paused=self._outbox.paused,
            rate_limit_share=share,
            partitions_owned=len(self._partitions.ours),
            lag={at: each.lag for at, each in self._source.readings.items()},
            stalled={each[:2]: stall for each, stall in self._progress.stalled.items()},
            connections={
                name: connection.figures(
                    now, self._ledger.poll_figures(name), parked.get(name, (0, 0)), has_share=share > 0
                )
                for name, connection in self._dispatch.connections.items()
            },
            at=now,
            first_seen=self._ledger.first_seen(),
            next_due=self._ledger.next_wake(),
            max_pending=self._max_pending,
            partitions=self._partitions.figures(),
            dead_letters=tuple(self._journal_facts.dead_letters),
            refused_dead_letters=self._refused.figures(),
            pauses=self._ledger.pauses.on(now),
            control_unreadable=self._control_facts.unreadable,
            requests_open=0 if self._requests is None else self._requests.open,
            requests_refused=None if self._requests is None else self._requests.refused_by,
        )
