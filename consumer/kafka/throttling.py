"""How long brokers make this process's readers wait, where a quota is used up (`consumer_byte_rate`).

A quota belongs to a user or a `client.id` (KIP-13), so what one reader is told holds for all of this process. Meanwhile
the broker answers nothing on that connection (KIP-219), for ten seconds and more. Whoever reads must not take that for
a broker that does not answer: the next try begins again, and meets the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import ThrottleEvent


class Throttling:
    """Notes what brokers say, from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, and one that does not jump."""
        self._clock = clock
        self._until = clock()

    def note(self, event: ThrottleEvent) -> None:
        """Take what librdkafka hands to `throttle_cb`: seconds, and 0 once it is over."""
        self._until = max(self._until, self._clock() + event.throttle_time)

    @property
    def left_s(self) -> float:
        """For how many seconds more a reader waits; 0: none does."""
        return max(0.0, self._until - self._clock())


READERS = Throttling()
"""Of all readers of this process."""
