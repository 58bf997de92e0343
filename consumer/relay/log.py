"""What the relay says to its operator. A line that may come with every request is said seldom."""

from __future__ import annotations

import math

import structlog

from consumer.core.clock import Clock

LOG_INTERVAL_S = 10.0


class ThrottledLog:
    """The relay's log. `throttled` is for lines that may come very often."""

    def __init__(self, log: structlog.stdlib.BoundLogger, clock: Clock) -> None:
        self.info = log.info
        self.warning = log.warning
        self.error = log.error
        self._clock = clock
        self._said: dict[str, float] = {}

    def throttled(self, line: str, **fields: object) -> None:
        """Log a warning at most once in LOG_INTERVAL_S for each connection."""
        now = self._clock()
        about = f"{line} {fields.get('connection', '')}"
        if now - self._said.get(about, -math.inf) >= LOG_INTERVAL_S:
            self._said[about] = now
            self.warning(line, **fields)
