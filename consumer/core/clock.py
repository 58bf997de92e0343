"""One clock for the whole process: wall time that never jumps.

Records in the delay topic carry wall time (a restart must understand them), waits must not notice that somebody
set the clock. So the wall clock is read once, at the start, and moved on by the monotonic one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

Clock = Callable[[], float]


# Where the platform has a clock that runs on while the machine is suspended: an intent's lease ends there, too.
_SINCE_BOOT: Clock = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


def steady_clock(wall: Clock = time.time, since_boot: Clock = _SINCE_BOOT) -> Clock:
    """Return a clock: seconds since 1970, exact at the moment of this call, monotonic from then on."""
    start = wall() - since_boot()
    return lambda: start + since_boot()


def to_ms(seconds: float) -> int:
    """Seconds since 1970 as whole milliseconds, the unit of every record. Rounded: what was read is written back."""
    return round(seconds * 1000)
