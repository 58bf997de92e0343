"""Figures in words, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from consumer.admin.status_model import Age, Status

MAX_OF_A_KIND = 5  # lines that say the same of several; how many more there are is a line of its own
_UNITS = (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def number(value: float) -> str:
    """Write a count, or a value on an axis: `0`, `0.5`, `12`, `1,234`."""
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:.1f}"


def rate(value: float) -> str:
    """Write what may have a fraction, and has one digit for it: `0`, `0.4`, `12.0`, `1,234`."""
    return f"{value:,.0f}" if value == 0 or value >= 99.95 else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """Write a duration to two digits or so: `0 s`, `35 ms`, `2.4 s`, `3 min 20 s`, `17 h`, `2 d 4 h`; None: a dash."""
    if seconds is None:
        return "\u2013"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    for name, size, small, per in _UNITS:
        if whole >= size:
            remainder = whole % size // per
            return f"{whole // size} {name}" + (f" {remainder} {small}" if remainder and whole < 10 * size else "")
    return f"{whole} s"


def age_label(limits: Sequence[Age], index: int) -> str:
    """Write what `limits[index]` counts: `under 1 min`, `1 min to 5 min`, `1 d and older`."""
    upper, lower = limits[index].under_s, limits[index - 1].under_s if index else None
    if lower is None:
        return f"under {duration(upper)}"
    return f"{duration(lower)} and older" if upper is None else f"{duration(lower)} to {duration(upper)}"


def connections_in_brief(status: Status) -> str:
    """Return how many connections are open, and which are in trouble, in a few words."""
    others = [f"{each.name} {each.state}" for each in status.connections if each.state != "open"]
    open_ = len(status.connections) - len(others)
    more = len(others) - MAX_OF_A_KIND
    return ", ".join(
        [
            *([f"{number(open_)} open"] if open_ else []),
            *others[:MAX_OF_A_KIND],
            *([f"{number(more)} more in trouble"] if more > 0 else []),
        ]
    )
