"""EDGE. For `status`: what a running relay says of itself, asked over HTTP and drawn for a terminal.

Rules:
 1. It shows what /status says, and computes nothing itself.
 2. When a relay stops answering, the display stays. It keeps the last figures and says that they are old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumer.admin.fleet import StatusError, fetch
from consumer.admin.status import Moment, Status, age_label, duration, is_known, now_of, number, rate
from consumer.commands.output import shown

EVERY_S = 1.0
PLAIN_WIDTH = 120  # where it is no terminal that says how wide it is
MAX_CONNECTIONS = 12
MAX_PARTITIONS = 12
MAX_DEAD_LETTERS = 5
MAX_WIDTH = 1000
# The columns that a narrow terminal does without, the first one first.
OPTIONAL = ("in flight", "requests/s", "rate limit", "last dead letters", "source offset", "dead-letter offset", "why")
TEXTS = ("why",)  # columns that may be folded; all else is ids, words and numbers
BESIDE_BARS = 48  # columns of the names and figures, before a line of bars
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {"running": "green", "open": "green", "stuck": "red", "suspended": "red"}  # all else: yellow


def updates(url: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[Status | StatusError]:
    """Ask again and again, for ever."""
    while True:
        sleep(EVERY_S)
        try:
            yield fetch(url)
        except StatusError as error:
            yield error


def watch(first: Status, then: Iterable[Status | StatusError], console: Console) -> None:
    """Draw the first one, and what comes then: over it on a terminal, else below."""
    pictures = (drawn(status, console, lost) for status, lost in _with_last(first, then))
    if not console.is_terminal:
        for each in pictures:
            console.print(each, "")
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for each in pictures:
            live.update(each, refresh=True)


def _with_last(first: Status, then: Iterable[Status | StatusError]) -> Iterator[tuple[Status, str | None]]:
    last = first
    yield last, None
    for each in then:
        if isinstance(each, Status):
            last = each
            yield last, None
        else:
            yield last, str(each)


def console_of(*, terminal: bool) -> Console:
    """Return the console that writes to stdout (rich respects NO_COLOR)."""
    return Console(highlight=False) if terminal else Console(highlight=False, width=PLAIN_WIDTH, no_color=True)


# -- how it looks -----------------------------------------------------------------------------------------------


def drawn(status: Status, console: Console, lost: str | None = None) -> RenderableType:
    """Return the whole picture. `lost`: why the relay does not answer any more."""
    now = now_of(status)
    bars = _BARS if console.encoding.lower().startswith("utf") else ""
    parts: list[RenderableType] = [_head(status, now)]
    if lost is not None:
        parts.append(_text(f"! {lost}; these are its last figures", "red"))
    if status.state == "stuck":
        parts.append(_text(f"! The event loop has not shown life for {duration(status.age_s)}", "red"))
    parts += [_text(f"! {each}", "yellow") for each in status.attention]
    if not is_known(status):
        return Group(*parts)
    parts += ["", _figures(status, now), "", _fitted(_recent(status, bars, console.width), console)]
    for table in (_connections(status, now), _pending(status), _partitions(status), _dead_letters(status, now)):
        if table is not None:
            parts += ["", _fitted(table, console)]
    return Group(*parts)


def _fitted(table: Table, console: Console) -> Table:
    """Leave out what the terminal has no room for. An id is never folded: it is one word that can be copied."""
    unlimited = console.options.update(width=MAX_WIDTH)  # a measure is never above the width that it may have
    for column in table.columns:
        if column.no_wrap:
            cells = (console.measure(each, options=unlimited).maximum for each in (column.header, *column.cells))
            column.width = max(cells)
    for name in OPTIONAL:
        if console.measure(table, options=unlimited).minimum <= console.width:
            break
        kept = [each for each in table.columns if each.header != name]
        table.columns = [replace(each, _index=index) for index, each in enumerate(kept)]
    least = console.measure(table, options=unlimited).minimum
    table.width = least if least > console.width else None
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(shown(text), style=style)


def _styled(word: str, more: str = "") -> Text:
    return Text(shown(word + more), style=_STYLES.get(word, "yellow"))


def _head(status: Status, now: datetime) -> Text:
    up = "" if status.started is None else f"  up {duration((now - status.started).total_seconds())}"
    age = "no figures yet" if status.age_s is None else f"figures {duration(status.age_s)} old"
    named = (("", status.instance), ("group ", status.group), ("cluster ", status.cluster))
    who = "".join(f"  {what}{shown(name)}" for what, name in named if name)
    share = f"  {status.rate_limit_share:.0%} of every rate limit" if is_known(status) else ""
    return Text.assemble(
        ("engage-relay ", "bold"),
        shown(status.version),
        "  ",
        _styled(status.state),
        (f"{who}{up}  {age}{share}", "dim"),
    )


def _figures(status: Status, now: datetime) -> Text:
    pending, source, waiting = status.pending, status.source, status.dead_letters.waiting
    oldest = None if pending.oldest is None else (now - pending.oldest).total_seconds()
    due = None if pending.next_due is None else max(0.0, (pending.next_due - now).total_seconds())
    told = (
        ("pending", f"{number(pending.open)} of {number(pending.limit)}", ""),
        *([("parked", f"{number(pending.parked)}, waits for room", "")] if pending.parked else []),
        ("oldest", duration(oldest), ""),
        ("next due in", duration(due), ""),
        ("overdue", number(pending.overdue), "red" if pending.overdue else ""),
        ("in doubt", number(pending.in_doubt), "red" if pending.in_doubt else ""),
        ("lag", number(source.lag), "red" if source.paused else ""),
        ("dead letters", number(status.dead_letters.total), ""),
        *([("waiting", number(waiting), "red" if waiting else "")] if waiting is not None else []),
    )
    text = Text()
    for name, value, style in told:
        text.append(f"{name} ", "dim").append(value, style or "bold").append("   ")
    return text


def _recent(status: Status, bars: str, width: int) -> Table:
    recent = status.recent
    moments = recent.moments[-max(0, width - BESIDE_BARS) :] if width > BESIDE_BARS else []
    accepted = sum(each.accepted_per_second for each in status.connections)
    requests = sum(each.requests_per_second for each in status.connections)
    table = _table("", "now", "last ten minutes" if bars else "")
    for name, value, of in (
        ("accepted/s", rate(accepted), lambda each: each.accepted / max(each.seconds, 1)),
        ("requests/s", rate(requests), lambda each: each.requests / max(each.seconds, 1)),
        ("pending", number(status.pending.open), lambda each: each.pending),
    ):
        table.add_row(name, value, _line(moments, of, bars))
    for name, latency, find in (
        ("event to accepted", recent.event_to_accepted, lambda each: each.event_to_accepted.p50_s or 0),
        ("versionTag to accepted", recent.tag_ready_to_accepted, lambda each: each.tag_ready_to_accepted.p50_s or 0),
    ):
        value = f"p50 {duration(latency.p50_s)}, p95 {duration(latency.p95_s)}"
        table.add_row(name, value, _line(moments, find, bars))
    return table


def _line(moments: Sequence[Moment], value: Callable[[Moment], float], bars: str) -> str:
    values = [value(each) for each in moments]
    most = max(values, default=0.0)
    return "".join(bars[round(each / most * (len(bars) - 1)) if most else 0] for each in values) if bars else ""


def _connections(status: Status, now: datetime) -> Table | None:
    table = _table("connection", "state", ">accepted/s", ">requests/s", ">rate limit", ">in flight", "why")
    for each in status.connections[:MAX_CONNECTIONS]:
        since = "" if each.since is None else f" for {duration((now - each.since).total_seconds())}"
        table.add_row(
            _text(each.name, "bold"),
            _styled(each.state, since),
            rate(each.accepted_per_second),
            rate(each.requests_per_second),
            f"{rate(each.rate)} of {number(each.rate_limit)}",
            number(each.in_flight),
            _text(each.why or ""),
        )
    if len(status.connections) > MAX_CONNECTIONS:
        table.add_row(f"and {len(status.connections) - MAX_CONNECTIONS} more")
    return table if status.connections else None


def _pending(status: Status) -> Table | None:
    pending = status.pending
    table = _table("pending by state", ">", "pending by age", ">")
    states = [(name, number(count)) for name, count in pending.by_state.items() if count]
    ages = [
        (age_label(pending.by_age, index), number(each.actions))
        for index, each in enumerate(pending.by_age)
        if each.actions
    ]
    for index in range(max(len(states), len(ages))):
        left = states[index] if index < len(states) else ("", "")
        right = ages[index] if index < len(ages) else ("", "")
        table.add_row(*map(_text, (*left, *right)))
    return table if pending.open else None


def _partitions(status: Status) -> Table | None:
    table = _table("partition", "state", ">pending", ">lag")
    owned = sorted(status.partitions, key=lambda each: (each.stalled is None, each.holding == "open", -(each.lag or 0)))
    for each in owned[:MAX_PARTITIONS]:
        lag = duration(None) if each.lag is None else number(each.lag)
        drained = ", drained only" if each.drained else ""  # of a removed source
        state = (each.holding, "") if each.stalled is None else (f"no progress: {each.stalled}", "red")
        holding = _text(state[0] + drained, state[1])
        table.add_row(_text(f"{each.topic}[{each.partition}]", "bold"), holding, number(each.pending), lag)
    if len(owned) > MAX_PARTITIONS:
        table.add_row(f"and {len(owned) - MAX_PARTITIONS} more")
    return table if owned else None


def _dead_letters(status: Status, now: datetime) -> Table | None:
    dead_letters = status.dead_letters
    table = _table("last dead letters", "reason", "partition", ">source offset", ">dead-letter offset")
    for each in dead_letters.last[:MAX_DEAD_LETTERS]:
        age = duration(max(0.0, round((now - each.at).total_seconds())))
        offsets = ["" if offset is None else str(offset) for offset in (each.source_offset, each.dead_letter_offset)]
        where = _text(f"{each.source_topic}[{each.partition}]")
        table.add_row(f"{age} ago", _text(each.reason), where, *offsets)
    return table if dead_letters.last else None


def _table(*columns: str) -> Table:
    """Return a table with these columns; those that begin with `>` hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column.lstrip(">"),
            overflow="fold",
            no_wrap=column not in TEXTS,
            justify="right" if column.startswith(">") else "left",
        )
    return table
