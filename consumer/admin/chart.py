"""A small line chart of the last ten minutes, as inline SVG. Its figures are also written as text.

PURE. Its colours are the page's (page.css). It can be read without colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class Line:
    """A chart's line: seconds from now (negative) and the value, None where there was nothing to measure."""

    name: str
    latest: str
    points: Sequence[tuple[float, float | None]]

    @property
    def values(self) -> list[float]:
        """What was measured."""
        return [value for _, value in self.points if value is not None]


# The drawing's size and the room that its axes' words take, in its own units.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 480, 132, 44, 8, 18


def chart(title: str, lines: Sequence[Line], words: Callable[[float], str]) -> str:
    """Return a figure of one line or two. `words` writes a value, on the axis and in words."""
    most = nice(max((value for line in lines for value in line.values), default=0.0))
    told = "; ".join(
        f"{line.name}: now {line.latest}, between {words(min(line.values))} and {words(max(line.values))}"
        if line.values
        else f"{line.name}: nothing to measure"
        for line in lines
    )
    key = "".join(
        f'<i class="{look}"></i>{line.name} <b>{line.latest}</b>'
        for look, line in zip(("first", "second"), lines, strict=False)
    )
    bottom = _HEIGHT - _BOTTOM
    drawn = []
    for part in (0.0, 0.5, 1.0):
        y = bottom - part * (bottom - _TOP)
        drawn.append(f'<line class="grid-line" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{words(part * most)}</text>')
    for minutes, anchor in ((-10, "start"), (-5, "middle"), (0, "end")):
        text = f"{-minutes} min ago" if minutes else "now"
        drawn.append(f'<text x="{_x(minutes * 60):.1f}" y="{_HEIGHT - 3}" text-anchor="{anchor}">{text}</text>')
    for look, line in zip(("first", "second"), lines, strict=False):
        if len(lines) == 1:
            drawn.append(f'<path class="area" d="{_path(line, most, closed=True)}"/>')
        drawn.append(f'<path class="{look}" d="{_path(line, most)}"/>')
    return (
        f'<figure class="panel"><figcaption><h2>{title}</h2><span class="key">{key}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{title}, the last ten minutes</title>'
        f"<desc>{told}</desc>{''.join(drawn)}</svg></figure>"
    )


def _x(seconds: float) -> float:
    return _LEFT + (_WIDTH - 1 - _LEFT) * (1 + seconds / WINDOW_S)


def _path(line: Line, most: float, *, closed: bool = False) -> str:
    """Draw the line, with a gap where there was nothing to measure; a lone point is a dot."""
    bottom = _HEIGHT - _BOTTOM
    parts: list[list[str]] = [[]]
    for seconds, value in line.points:
        if value is None:
            parts.append([])
        else:
            parts[-1].append(f"{_x(seconds):.1f} {bottom - value / most * (bottom - _TOP):.1f}")
    drawn = []
    for part in filter(None, parts):
        if closed:
            first, last = part[0].split()[0], part[-1].split()[0]
            drawn.append(f"M{first} {bottom}L{'L'.join(part)}L{last} {bottom}Z")
        else:
            drawn.append(f"M{part[0]}L{'L'.join(part[1:] or part)}")
    return "".join(drawn)


def nice(most: float) -> float:
    """Return the end of an axis: at least `most`, and easy to halve and read."""
    if most < 1e-9:  # nothing, to an eye
        return 1.0
    size = 10.0 ** math.floor(math.log10(most))
    return next((size * each for each in (1, 1.5, 2, 3, 4, 5, 6, 8) if size * each >= most), size * 10)
