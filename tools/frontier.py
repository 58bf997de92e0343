"""Draws the frontier of polling: `python -m tools.frontier` writes docs/images/frontier.svg (`--check`: only compare).

The curve is the least mean lateness that so many requests per action allow, where processing takes 2 s at the median
(lognormal, sigma 0.8): the dynamic programme of consumer/core/poll_plan.py. The points are runs of
benchmarks/lateness.py with 12 events a second: polls that are learnt, with different rate limits, and fixed schedules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks.lateness import SCENARIOS, USUAL, Summary, least_lateness, play, summary
from consumer.core.pacing import PollSchedule

FILE = Path(__file__).parents[1] / "docs" / "images" / "frontier.svg"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 64, 56, 24, 24
FEWEST, MOST, LATEST_S = 2.0, 5.0, 3.0
STEPS = 60
LIMITS = (34.0, 40.0, 50.0)
CLOSE = 3  # how many pixels a point may be elsewhere on another machine


@dataclass(frozen=True, slots=True)
class Point:
    """Requests of an action, mean lateness in seconds, and what stands beside it."""

    requests: float
    late_s: float
    label: str
    learnt: bool


@cache
def points() -> tuple[Point, ...]:
    """Play the runs."""
    usual = SCENARIOS[0]
    learnt = [
        _point(summary(scenario, play(scenario, PollSchedule(learns=True), 0)), f"learnt, limit {limit:g}/s", True)
        for limit in LIMITS
        for scenario in (replace(usual, rate_limit=limit),)
    ]
    fixed = [
        _point(summary(usual, play(usual, PollSchedule(initial_s=initial), 0)), f"fixed, initial {initial:g}s", False)
        for initial in (1.0, 3.0)
    ]
    return (*learnt, *fixed)


def _point(result: Summary, label: str, learnt: bool) -> Point:
    return Point(result.requests, result.late, label, learnt)


def _x(requests: float) -> int:
    return round(LEFT + (requests - FEWEST) / (MOST - FEWEST) * (WIDTH - LEFT - RIGHT))


def _y(late_s: float) -> int:
    return round(HEIGHT - BOTTOM - late_s / LATEST_S * (HEIGHT - BOTTOM - TOP))


def _curve() -> str:
    grid = [FEWEST + (MOST - FEWEST) * step / STEPS for step in range(STEPS + 1)]
    least = [(requests, least_lateness(USUAL.share, requests)) for requests in grid]
    return " ".join(f"{_x(requests)},{_y(late_s)}" for requests, late_s in least if late_s <= LATEST_S)


def _text(x: int, y: int, words: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'


def _lines() -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13">'
    )
    yield "<title>Requests per action and mean lateness: the frontier, learnt polls and fixed ones</title>"
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    for late_s in (0, 1, 2, 3):
        yield f'<path d="M{LEFT} {_y(late_s)}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield _text(LEFT - 8, _y(late_s) + 4, f"{late_s} s", "end")
    for requests in (2, 3, 4, 5):
        yield f'<path d="M{_x(requests)} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
        yield _text(_x(requests), HEIGHT - BOTTOM + 20, str(requests), "middle")
    yield _text(WIDTH // 2, HEIGHT - 14, "requests per action (the action itself is one)", "middle")
    yield _text(LEFT, TOP - 8, "from tag ready to accepted, on average")
    yield f'<polyline points="{_curve()}" fill="none" stroke="#0a6" stroke-width="2.5"/>'
    yield _text(_x(3.9), _y(0.25), "the frontier: no schedule is below it", "middle")
    for point in points():
        colour = "#06c" if point.learnt else "#b40"
        yield f'<circle cx="{_x(point.requests)}" cy="{_y(point.late_s)}" r="5" fill="{colour}"/>'
        yield _text(_x(point.requests) + 9, _y(point.late_s) - 6, point.label)
    yield "</svg>"


def picture() -> str:
    """Return it as SVG."""
    return "\n".join(_lines()) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write it. Returns the exit code."""
    if "--check" in (sys.argv[1:] if arguments is None else arguments):
        return int(not FILE.exists() or not same(FILE.read_text(), picture()))
    FILE.write_text(picture())
    return 0


def same(one: str, other: str) -> bool:
    """Whether two pictures say the same: numbers may differ by CLOSE, as another machine's logarithms do."""
    ones, others = (_parts(text) for text in (one, other))
    return len(ones) == len(others) and all(
        abs(float(a) - float(b)) <= CLOSE if a.isdigit() and b.isdigit() else a == b
        for a, b in zip(ones, others, strict=True)
    )


def _parts(text: str) -> list[str]:
    return "".join(each if each.isalnum() else f" {each} " for each in text).split()


if __name__ == "__main__":
    sys.exit(main())
