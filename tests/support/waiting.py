"""Waiting for what a test expects to see: one function, one patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 60.0  # for what takes a second or two on an idle machine
LOOK_INTERVAL_S = 0.02
T = TypeVar("T")
deaths: list[BaseException] = []
"""What ended relays of this process (`RelayThread`) that nobody asked to stop: waiting for one of them is in vain."""


def until(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        if deaths:
            raise AssertionError(f"the relay ended while waiting: {what}") from deaths.pop()
        assert time.monotonic() < deadline, f"still waiting after {patience_s:g} s: {what}"
        time.sleep(LOOK_INTERVAL_S)
    return answer
