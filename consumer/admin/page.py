"""The status page: one HTML document, made on the server from a `Status`. It loads nothing else.

PURE. Rules:
 1. Every text that is not written here is escaped, wherever it comes from.
 2. No element has style or script of its own. The content security policy allows this file's, by their hashes, and
    nothing else, not even an image.
 3. Nothing is shown by colour alone, and a chart's figures are written beside it.
 4. The page works without its script, which only avoids the flicker of a reload.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from consumer.admin.chart import WINDOW_S, Line, chart
from consumer.admin.status_model import ConnectionState, Latency, Moment, Partition, Polling, Status, is_known, now_of
from consumer.admin.words import age_label, duration, number, rate
from consumer.core.progress import FAULTS, StallReason

RELOAD_S = 5  # without the script
MIN_SLICE_S = 3.0  # of the slice that still grows: a rate of one second is noise
MAX_CONNECTIONS = 48  # in the table, as of partitions; the JSON has all of them
MAX_PARTITIONS = 48

_STATE_WORDS = {
    "queued": "behind another action of its order",
    "waiting": "until its next poll",
    "due": "may be polled, waits for its connection",
    "polling": "Engage is asked for its tag",
    "tagged": "has its tag, waits for its connection",
    "saving": "its intent is being saved",
    "ready": "its intent is saved",
    "sending": "sent, no answer yet",
    "holding": "waits before it is sent again",
    "paused": "on hold: a person paused it",
}

_STYLE = Path(__file__).with_suffix(".css").read_text("utf-8")
_SCRIPT = Path(__file__).with_suffix(".js").read_text("utf-8")
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%231a6c8c'/%3E"
    "%3Cpath d='M4.5 8.2l2.4 2.4 4.6-5' fill='none' stroke='white' stroke-width='1.8'/%3E%3C/svg%3E"
)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


def document(title: str, body: str, head: str = "") -> str:
    """Return an HTML document in the pages' one look. `head`: more of its head."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{escape(title)}</title>
<link rel="icon" href="{_ICON}">
<style>{_STYLE}</style>
{head}</head>
<body>
{body}
</body>
</html>
"""


def search_form(action: str, order_id: str = "") -> str:
    """Return the form that asks for an order. `action`: where, as a relative link."""
    return (
        f'<form action="{action}" method="get" role="search"><label>Order <input name="id" value="{escape(order_id)}" '
        'required autocomplete="off" spellcheck="false"></label> <button>Show</button></form>'
    )


def live_document(title: str, body: str) -> str:
    """Return a document whose `main` renews itself, and which says so once it cannot."""
    head = f'<noscript><meta http-equiv="refresh" content="{RELOAD_S}"></noscript>\n'
    lost = '<p id="lost" role="status">The relay does not answer. These figures are the last that it gave.</p>'
    return document(title, f"{lost}\n{body}\n<script>{_SCRIPT}</script>", head)


def page(status: Status, *, with_search: bool = False, with_fleet: bool = False) -> str:
    """Return the document. `with_search`, `with_fleet`: there are also order_page.py, fleet_page.py."""
    now = now_of(status)
    title = f"engage-relay: {status.state}" + (f" ({len(status.attention)} to look at)" if status.attention else "")
    all_of_them = '<a href="fleet">page</a>' if with_fleet else "<code>engage-relay status --all</code>"
    body = f"""<main>
{_header(status, now)}
{_attention(status)}
{_known(status, now) if is_known(status) else _UNKNOWN}
</main>
{search_form("orders") if with_search else ""}
<footer>This instance only; all of them: {all_of_them}.
The same as <a href="status.json">JSON</a>; for Prometheus: <a href="metrics">metrics</a>;
probes: <a href="healthz">healthz</a>, <a href="readyz">readyz</a>.</footer>"""
    return live_document(title, body)


def _known(status: Status, now: datetime) -> str:
    return f"""{_figures(status, now)}
<div class="grid">
{_charts(status, now)}
</div>
{_connections(status, now)}
<div class="grid">
{_pending_by_state(status)}
{_pending_by_age(status)}
{_dead_letters(status, now)}
{_partitions(status)}
</div>"""


_UNKNOWN = '<p class="quiet">This instance starts. What is pending and which partitions it owns is not known yet.</p>'


# -- its parts --------------------------------------------------------------------------------------------------


def _header(status: Status, now: datetime) -> str:
    told = [
        f"figures are {duration(status.age_s)} old" if status.age_s is not None else "no figures yet",
        *([f"up {duration((now - status.started).total_seconds())}"] if status.started else []),
        *([f"{status.rate_limit_share:.0%} of every rate limit is this instance's"] if is_known(status) else []),
    ]
    named = (("", status.instance), ("group ", status.group), ("cluster ", status.cluster))
    told = [f"{what}{escape(name)}" for what, name in named if name] + told
    return (
        f"<header><h1>engage-relay <small>{escape(status.version)}</small></h1> {state_pill(status.state)} "
        f'<p class="meta">{" · ".join(told)}</p></header>'
    )


def state_pill(state: str) -> str:
    """Return an instance's state in its colour."""
    return f'<span class="pill{_STATE_PILLS.get(state, " warn")}">{escape(state)}</span>'


_STATE_PILLS = {"running": "", "stuck": " bad"}


def _attention(status: Status) -> str:
    said = [(each, "") for each in status.attention]
    if status.state == "stuck":
        since = f"for {duration(status.age_s)}" if status.age_s is not None else "any more"
        said.insert(0, (f"The event loop has not shown life {since}: what follows is as old.", "bad"))
    return list_of(said)


def list_of(attention: Iterable[tuple[str, str]]) -> str:
    """Return what to look at: texts and their looks (`bad`, or none)."""
    said = "".join(f"<li{_CLASSES[look]}>{escape(each)}</li>" for each, look in attention)
    return f'<ul class="attention">{said}</ul>' if said else ""


_CLASSES = {"": "", "bad": ' class="bad"'}


def _figures(status: Status, now: datetime) -> str:
    pending, source = status.pending, status.source
    dead_letters, waiting = status.dead_letters.total, status.dead_letters.waiting
    accepted = sum(each.accepted_per_second for each in status.connections)
    requests = sum(each.requests_per_second for each in status.connections)
    oldest = None if pending.oldest is None else (now - pending.oldest).total_seconds()
    held = f"{number(pending.parked)} parked" if pending.parked else f"of at most {number(pending.limit)}"
    return tiles(
        (
            ("Accepted/s", rate(accepted), f"{rate(requests)} requests/s", 0),
            ("Pending", number(pending.open), held, 0),
            ("Oldest pending", duration(oldest), f"next due {_until(pending.next_due, now)}", 0),
            ("Overdue", number(pending.overdue), "past their time", pending.overdue),
            ("In doubt", number(pending.in_doubt), "outcome unknown", pending.in_doubt),
            ("Lag", number(source.lag), "source is paused" if source.paused else "in the source", source.paused),
            ("Dead letters", number(dead_letters), f"since the start{_waiting(waiting)}", waiting or 0),
        )
    )


def tiles(told: Iterable[tuple[str, str, str, int]]) -> str:
    """Return figures side by side: what it is, the figure, more about it, and how many are wrong."""
    shown = (
        f'<div><dt>{name}</dt><dd class="{"bad" if wrong else ""}">{value}<small>{more}</small></dd></div>'
        for name, value, more, wrong in told
    )
    return f'<dl class="figures">{"".join(shown)}</dl>'


def _waiting(count: int | None) -> str:
    return "" if count is None else f", {number(count)} wait"


def _until(due: datetime | None, now: datetime) -> str:
    if due is None:
        return "never"
    seconds = (due - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"


def _charts(status: Status, now: datetime) -> str:
    seen = [each for each in status.recent.moments if each.seconds >= MIN_SLICE_S]

    def line(name: str, latest: str, value: Callable[[Moment], float | None]) -> Line:
        at = [((each.start - now).total_seconds() + each.seconds, value(each)) for each in seen]
        return Line(name, latest, [(seconds, figure) for seconds, figure in at if seconds > -WINDOW_S])

    def per_second(count: Callable[[Moment], int]) -> Callable[[Moment], float]:
        return lambda each: count(each) / each.seconds

    def latency(title: str, of: Callable[[Moment], Latency], all_together: Latency) -> str:
        lines = (
            line("p50", duration(all_together.p50_s), lambda each: of(each).p50_s),
            line("p95", duration(all_together.p95_s), lambda each: of(each).p95_s),
        )
        return chart(title, lines, duration)

    connections, recent = status.connections, status.recent
    flow = (
        line(
            "actions accepted",
            rate(sum(each.accepted_per_second for each in connections)),
            per_second(lambda each: each.accepted),
        ),
        line(
            "requests",
            rate(sum(each.requests_per_second for each in connections)),
            per_second(lambda each: each.requests),
        ),
    )
    pending = (line("actions", number(status.pending.open), lambda each: each.pending),)
    return "\n".join(
        (
            chart("Per second", flow, number),
            chart("Pending", pending, number),
            latency("From event to accepted", lambda each: each.event_to_accepted, recent.event_to_accepted),
            latency(
                "From versionTag to accepted", lambda each: each.tag_ready_to_accepted, recent.tag_ready_to_accepted
            ),
        )
    )


def _connections(status: Status, now: datetime) -> str:
    rows = []
    for each in status.connections[:MAX_CONNECTIONS]:
        waits = "" if each.next_at is None else f", next request {_until(each.next_at, now)}"
        why = "" if each.why is None else f"<br><small>{escape(each.why)}{waits}</small>"
        since = "" if each.since is None else f" for {duration((now - each.since).total_seconds())}"
        rows.append(
            f'<tr><th scope="row">{escape(each.name)}</th>'
            f'<td><div><span class="pill{_PILLS[each.state]}">{each.state}{since}</span>{why}</div></td>'
            f'<td class="number">{rate(each.accepted_per_second)}</td>'
            f'<td class="number">{rate(each.requests_per_second)}</td>'
            f'<td class="number"><span>{rate(each.rate)} <small>of {number(each.rate_limit)}</small></span></td>'
            f'<td class="number">{number(each.in_flight)}</td>'
            f'<td class="number">{_processing(each.polling)}</td></tr>'
        )
    head = ("Connection", "State", "Accepted/s", "Requests/s", "Rate limit", "In flight", "Engage takes")
    hidden = len(status.connections) - MAX_CONNECTIONS
    if hidden > 0:
        rows.append(f'<tr><td colspan="7" class="quiet">and {number(hidden)} more, in no worse state</td></tr>')
    return section(
        "Connections", table(head, rows, numbers=(2, 3, 4, 5, 6), stacks="many"), none="No connection is at work yet."
    )


def _processing(polling: Polling | None) -> str:
    if polling is None:
        return ""
    late = "" if polling.seen_lateness_s is None else f"found {duration(polling.seen_lateness_s)} late, "
    told = f"tags: {late}planned {duration(polling.lateness_s)} late, {polling.polls:.1f} polls"
    times = f"{duration(polling.median_s)} <small>95 %: {duration(polling.p95_s)}</small>"
    return f'<span title="{told}">{times}</span>'


_PILLS: dict[ConnectionState, str] = {"open": "", "cooldown": " warn", "suspended": " bad"}


def _pending_by_state(status: Status) -> str:
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="quiet">{escape(_STATE_WORDS.get(name, ""))}</td>'
        f'<td class="number">{number(count)}</td></tr>'
        for name, count in status.pending.by_state.items()
        if count
    ]
    return section("Pending by state", table(("State", "", "Actions"), rows, numbers=(2,)), none="Nothing is pending.")


def _pending_by_age(status: Status) -> str:
    by_age = status.pending.by_age
    most = max((each.actions for each in by_age), default=0)
    rows = [
        f'<tr><td class="nowrap">{age_label(by_age, index)}</td><td class="bar">{_bar(each.actions, most)}</td>'
        f'<td class="number">{number(each.actions)}</td></tr>'
        for index, each in enumerate(by_age)
        if most
    ]
    return section(
        "Pending by age", table(("Event was read", "", "Actions"), rows, numbers=(2,)), none="Nothing is pending."
    )


def _dead_letters(status: Status, now: datetime) -> str:
    dead_letters = status.dead_letters
    reasons = " · ".join(f"{escape(reason)} <b>{number(count)}</b>" for reason, count in dead_letters.by_reason.items())
    rows = [
        f'<tr><td><time datetime="{each.at.isoformat()}">{_ago(each.at, now)}</time></td>'
        f"<td>{escape(each.reason)}</td><td>{escape(each.source_topic)}[{each.partition}]</td>"
        f'<td class="number">{_offset(each.source_offset)}</td>'
        f'<td class="number">{_offset(each.dead_letter_offset)}</td></tr>'
        for each in dead_letters.last
    ]
    head = ("When", "Reason", "Partition", "Source offset", "Dead-letter offset")
    listed = table(head, rows, numbers=(3, 4), stacks="few")
    return section("Dead letters", listed and f'<p class="key">{reasons}</p>{listed}', none="None since the start.")


def _offset(offset: int | None) -> str:
    return "" if offset is None else str(offset)


def _ago(at: datetime, now: datetime) -> str:
    return f"{duration(max(0.0, round((now - at).total_seconds())))} ago"


def _partitions(status: Status) -> str:
    owned = status.partitions
    shown = sorted(
        owned,
        key=lambda each: (each.stalled is None, each.holding == "open", -(each.lag or 0), each.topic, each.partition),
    )
    rows = [
        f'<tr><th scope="row">{escape(each.topic)}[{each.partition}]</th>'
        f"<td>{each.holding}{_drained(each)}{_stalled(each)}</td>"
        f'<td class="number">{number(each.pending)}</td>'
        f'<td class="number">{duration(None) if each.lag is None else number(each.lag)}</td></tr>'
        for each in shown[:MAX_PARTITIONS]
    ]
    hidden = len(owned) - MAX_PARTITIONS
    if hidden > 0:
        rows.append(f'<tr><td colspan="4" class="quiet">and {number(hidden)} more, with less lag</td></tr>')
    listed = table(("Partition", "State", "Pending", "Lag"), rows, numbers=(2, 3))
    return section(f"Partitions owned: {number(len(owned))}", listed, none="None: other instances have them.")


def _drained(partition: Partition) -> str:
    """Mark what belongs to a removed source."""
    return ' <span class="pill">drained only</span>' if partition.drained else ""


def _stalled(partition: Partition) -> str:
    if partition.stalled is None:
        return ""
    return f' <span class="pill{_STALL_PILLS.get(partition.stalled, " warn")}">no progress: {partition.stalled}</span>'


_STALL_PILLS: dict[StallReason, str] = dict.fromkeys(FAULTS, " bad")


# -- what the parts are made of ---------------------------------------------------------------------------------


def section(title: str, content: str, *, none: str) -> str:
    """Return a panel. `none`: what it says where there is no content."""
    inside = content or f'<p class="quiet">{none}</p>'
    return f'<section class="panel" aria-label="{title}"><h2>{title}</h2>{inside}</section>'


def table(head: Sequence[str], rows: Iterable[str], *, numbers: Sequence[int], stacks: str = "") -> str:
    """Return a table. One that `stacks` becomes a list where it has little room: each cell beside its column's title.

    `stacks`: `few` or `many` columns, which says how little that is (page.css).
    """
    body = "".join(_labelled(row, head) if stacks else row for row in rows)
    if not body:
        return ""
    looks = ("number" if index in numbers else "" for index in range(len(head)))
    cells = "".join(f'<th scope="col" class="{look}">{each}</th>' for each, look in zip(head, looks, strict=True))
    kind = f' class="{stacks}"' if stacks else ""
    return f"<table{kind}><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _labelled(row: str, head: Sequence[str]) -> str:
    """Return a row whose cells say which column they are in. What is not ours in it is escaped, so it opens no cell."""
    titles = iter(head)
    return re.sub(r"<(td|th)\b", lambda found: f'<{found[1]} data-label="{next(titles)}"', row)


def _bar(value: float, most: float) -> str:
    width = 100 * value / most if most else 0
    return (
        '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{max(width, 1) if value else 0:.1f}" height="8"/></svg>'
    )
