"""What the control topic's reader reports: which pauses and requests there are.

Until it was read once, nothing is asked of Engage. While it cannot be read, what was read before holds on.
"""

from __future__ import annotations

from collections.abc import Callable

from consumer.core.clock import Clock
from consumer.core.ledger.ledger import Ledger
from consumer.core.pauses import Pauses
from consumer.kafka.facts import ControlFact, ControlNotRead, ControlRead
from consumer.relay.log import ThrottledLog
from consumer.relay.outbox import Outbox
from consumer.relay.requests import Requests


class ControlFacts:
    """Takes what the control topic's reader reports."""

    def __init__(
        self,
        *,
        is_configured: bool,
        ledger: Ledger,
        outbox: Outbox,
        requests: Requests | None,
        clock: Clock,
        tick_soon: Callable[[], None],
        log: ThrottledLog,
    ) -> None:
        """`is_configured`: whether there is a control topic."""
        self._ledger = ledger
        self._outbox = outbox
        self._requests = requests
        self._clock = clock
        self._tick_soon = tick_soon
        self._log = log
        self.wait = "the control topic is not read yet" if is_configured else None  # what everything waits for
        self.unreadable = 0  # records of it

    def take(self, fact: ControlFact) -> None:
        """Take a fact, and do what follows."""
        match fact:
            case ControlRead(pauses, unreadable, requests, asked):
                self._read(pauses, unreadable)
                if self._requests is not None:
                    self._requests.heard(requests, asked)
            case ControlNotRead(why):
                self.wait = f"the control topic cannot be read: {why}"
                self._log.throttled("the control topic cannot be read; the pauses that are known hold on", why=why)

    def _read(self, pauses: Pauses, unreadable: int) -> None:
        """Hold what is paused now, and let go what is no longer."""
        now = self._clock()
        before = {each.id: each for each in self._ledger.pauses.on(now)}
        after = {each.id: each for each in pauses.on(now)}
        for each in after.values():
            if each.id not in before:
                self._log.warning(
                    "paused", id=each.id, what=each.what, mode="discard" if each.discard else "hold", why=each.reason
                )
        for each in before.values():
            if each.id not in after:
                self._log.info("resumed", id=each.id, what=each.what)
        if unreadable != self.unreadable:
            self._log.error("records of the control topic cannot be read, and are ignored", records=unreadable)
        self.wait, self.unreadable = None, unreadable
        self._outbox.apply(self._ledger.pause(pauses, now), now)
        self._tick_soon()
