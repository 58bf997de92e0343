"""What the relay says to its operator. A line that may come with every request is said seldom."""

from __future__ import annotations

import math

import structlog

from consumer.core.clock import Clock

LOG_INTERVAL_S = 10.0
MAX_RATIONED = 10  # lines of one kind within LOG_INTERVAL_S


class ThrottledLog:
    """The relay's log. `throttled` is for lines that may come very often."""

    def __init__(self, log: structlog.stdlib.BoundLogger, clock: Clock) -> None:
        self.info = log.info
        self.warning = log.warning
        self.error = log.error
        self._clock = clock
        self._said: dict[str, float] = {}
        self._rations: dict[str, tuple[float, int]] = {}

    def throttled(self, line: str, **fields: object) -> None:
        """Log a warning at most once in LOG_INTERVAL_S for each connection."""
        now = self._clock()
        about = f"{line} {fields.get('connection', '')}"
        if now - self._said.get(about, -math.inf) >= LOG_INTERVAL_S:
            self._said[about] = now
            self.warning(line, **fields)

    def rationed(self, line: str, **fields: object) -> None:
        """Log a warning for each of things that may come very often, but only MAX_RATIONED within LOG_INTERVAL_S.

        The last of them says that the others are left out.
        """
        now = self._clock()
        since, count = self._rations.get(line, (-math.inf, 0))
        if now - since >= LOG_INTERVAL_S:
            since, count = now, 0
        self._rations[line] = since, count + 1
        if count + 1 < MAX_RATIONED:
            self.warning(line, **fields)
        elif count + 1 == MAX_RATIONED:
            self.warning(line, **fields, note=f"more of them within {LOG_INTERVAL_S:.0f} s are not logged")
