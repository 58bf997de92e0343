"""The page of an order's timeline, and what is said where there is none.

PURE. The rules are those of page.py: every text is escaped, nothing is loaded, no script is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from consumer.admin.orders import Answer, NotLookedUp
from consumer.admin.page import document, search_form
from consumer.kafka.orders.lookup import Nothing
from consumer.kafka.orders.timeline import Entry, Searched, Step, Timeline
from consumer.kafka.topics.scan import moment

_LOOKS: Mapping[str, str] = {"accepted": "", "dead_letter": " bad", "untold": " bad", "pending": " warn"}


def order_page(order_id: str, answer: Answer, *, up: str) -> str:
    """Return the document. `up`: from its address to that of the status page's folder, as a relative link."""
    title = f"engage-relay: order {order_id}"
    body = f"""<main>
<header><h1>Order {escape(order_id)}</h1> <p class="meta"><a href="{up}status">Status of this instance</a></p></header>
{search_form(f"{up}orders", order_id)}
{_told(answer)}
</main>"""
    return document(title, body)


def _told(answer: Answer) -> str:
    match answer:
        case NotLookedUp(why=why):
            return f'<ul class="attention"><li class="bad">{escape(why)}</li></ul>'
        case Nothing(how=how, searched=searched, gaps=gaps):
            return (
                f'{_gaps(gaps)}<section class="panel"><h2>Nothing found</h2><p>No record is about this order. Searched '
                f"were {escape(how)}. Where events are keyed otherwise, ask "
                f"<code>engage-relay order ID --partition N</code>.</p>{_searched(searched)}</section>"
            )
    return _gaps(answer.gaps) + "".join(map(_entry, answer.entries)) + _footer(answer)


def _gaps(gaps: list[str]) -> str:
    said = "".join(f"<li>{escape(gap)}</li>" for gap in gaps)
    return f'<ul class="attention">{said}</ul>' if said else ""


def _entry(entry: Entry) -> str:
    state = entry.state.replace("_", " ") + ("" if entry.reason is None else f" ({entry.reason})")
    rows = "".join(map(_step, entry.steps))
    if entry.next_due_ms is not None:
        rows += _step(Step(entry.next_due_ms, "next due"))
    return (
        f'<section class="panel"><h2>{escape(entry.title)} '
        f'<span class="pill{_LOOKS.get(entry.state, "")}">{escape(state)}</span></h2>'
        f'<p class="quiet">{escape(str(entry.at))}</p><table><tbody>{rows}</tbody></table></section>'
    )


def _step(step: Step) -> str:
    at = None if step.at_ms is None else moment(step.at_ms)
    if at is None:  # it has no time, or one that there is not
        return f"<tr><td>{'' if step.at_ms is None else step.at_ms}</td><td>{escape(step.text)}</td></tr>"
    shown = at.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    return (
        f'<tr><td class="nowrap"><time datetime="{at.isoformat()}">{shown}</time></td><td>{escape(step.text)}</td></tr>'
    )


def _footer(timeline: Timeline) -> str:
    return f'<section class="panel"><h2>Searched</h2>{_searched(timeline.searched)}</section>'


def _searched(searched: list[Searched]) -> str:
    rows = "".join(
        f'<tr><td>{escape(each.topic)}[{each.partition}]</td><td class="number">{each.records:,}</td></tr>'
        for each in searched
    )
    return f"<table><thead><tr><th>Partition</th><th>Records</th></tr></thead><tbody>{rows}</tbody></table>"
