"""How long an idle connection may wait for its next request: learnt from the server, which alone knows.

A server that closes at the moment in which an action leaves costs an action in doubt. So an action takes a connection
only within what is safe:

 1. What the server says (`Keep-Alive: timeout=N`), less a margin.
 2. Else the longest wait after which a connection was still open, at first `FIRST_S`. The server's own closing shows
    it, or a GET, which may be repeated: it takes a connection of any age that is open.
 3. Less than the age at which the server closed an idle connection, by a margin. A restart closes connections of any
    age: such a limit falls again as soon as a request was answered on an older one.

Beyond `MAX_S` no connection is used: a gateway on the way may have forgotten it without a word.
"""

from __future__ import annotations

import math
import re

FIRST_S = 4.0  # shorter than the shortest idle time-out in wide use (Node 5 s; nginx 75 s)
MAX_S = 120.0
MARGIN = 0.8  # for the way to the server, and for its own timer
MIN_LIMIT_S = 1.0  # a server that closes sooner does so behind its answer, or was stopped: no time-out

_TIMEOUT = re.compile(rb"(?:^|[,\s])timeout\s*=\s*\"?([0-9]{1,6})", re.IGNORECASE)


class IdleTime:
    """What one origin's server has shown. All values are seconds that a connection was idle."""

    def __init__(self) -> None:
        self._said_s = math.inf
        self._survived_s = FIRST_S
        self._closed_s = math.inf

    def said(self, keep_alive: bytes) -> None:
        """Take a Keep-Alive header."""
        found = _TIMEOUT.search(keep_alive)
        if found is not None:
            self._said_s = float(found[1])

    def survived(self, idle_s: float) -> None:
        """Take that the server answered on a connection that had been idle so long."""
        if idle_s > self._closed_s:
            self._closed_s = math.inf
            self._survived_s = idle_s
        self._survived_s = max(self._survived_s, idle_s)

    def closed(self, idle_s: float) -> None:
        """Take that the server closed a connection that had been idle so long, and not before."""
        if idle_s >= MIN_LIMIT_S:
            self._closed_s = min(self._closed_s, idle_s)
            self._survived_s = max(self._survived_s, idle_s)

    @property
    def usable_s(self) -> float:
        """How old an idle connection may be for a request that may be repeated."""
        return min(MAX_S, MARGIN * self._said_s)

    @property
    def safe_s(self) -> float:
        """How old it may be for one that must not be."""
        proven = self._survived_s if math.isinf(self._said_s) else self._said_s
        return min(self.usable_s, proven, MARGIN * self._closed_s)
