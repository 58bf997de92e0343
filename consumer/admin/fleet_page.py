"""The page of all instances.

PURE. The rules are those of page.py: every text is escaped, nothing but its own script is run, and it works without.
"""

from __future__ import annotations

from html import escape

from consumer.admin.fleet import Instance, View, answered, attention, disagreements
from consumer.admin.page import list_of, live_document, section, state_pill, table, tiles
from consumer.admin.status import connections_in_brief, duration, is_known, now_of, number, rate

_HEAD = ("Instance", "State", "Version", "Partitions", "Pending", "Oldest", "Lag", "Connections")


def fleet_page(view: View) -> str:
    """Return the document."""
    silent = [each for each in view.instances if each.status is None]
    wrong = [*view.gaps, *(each.why for each in silent)]
    told = [*disagreements(view.instances), *attention(view.instances)]
    count = len(wrong) + len(told)
    title = "engage-relay: all instances" + (f" ({count} to look at)" if count else "")
    body = f"""<main>
<header><h1>engage-relay <small>all instances</small></h1> <p class="meta">{_groups(view)}</p></header>
{list_of([(each, "bad") for each in wrong] + [(each, "") for each in told])}
{_figures(view)}
{section("Instances", _instances(view), none="None is known.")}
</main>
<footer>What each instance says of itself, asked a moment ago.
The same as <a href="fleet.json">JSON</a>; <a href="status">the instance that you ask</a> alone.</footer>"""
    return live_document(title, body)


def _groups(view: View) -> str:
    said = []
    for name in ("group", "cluster"):
        names = {str(value) for each in answered(view.instances) if (value := getattr(each, name))}
        said += [f"{name} {', '.join(sorted(names))}"] if names else []
    return " · ".join(map(escape, said))


def _figures(view: View) -> str:
    known = answered(view.instances)
    silent = len(view.instances) - len(known)
    ages = [(now_of(each) - each.pending.oldest).total_seconds() for each in known if each.pending.oldest is not None]
    overdue, in_doubt = sum(each.pending.overdue for each in known), sum(each.pending.in_doubt for each in known)
    accepted = sum(each.accepted_per_second for status in known for each in status.connections)
    requests = sum(each.requests_per_second for status in known for each in status.connections)
    waiting = [each.dead_letters.waiting for each in known if each.dead_letters.waiting is not None]
    return tiles(
        (
            ("Instances", number(len(known)), f"{silent} without an answer" if silent else "all answer", silent),
            ("Accepted/s", rate(accepted), f"{rate(requests)} requests/s", 0),
            ("Pending", number(sum(each.pending.open for each in known)), "of all instances", 0),
            ("Oldest pending", duration(max(ages, default=None)), "since its event was read", 0),
            ("Overdue", number(overdue), "past their time", overdue),
            ("In doubt", number(in_doubt), "outcome unknown", in_doubt),
            ("Lag", number(sum(each.source.lag for each in known)), "in the sources", 0),
            ("Dead letters", number(sum(waiting)) if waiting else duration(None), "waiting", sum(waiting)),
        )
    )


def _instances(view: View) -> str:
    return table(_HEAD, map(_row, view.instances), numbers=(3, 4, 5, 6), stacks="many")


def _row(instance: Instance) -> str:
    status = instance.status
    if status is None:
        cells = '<td><span class="pill bad">no answer</span></td>' + "<td></td>" * (len(_HEAD) - 2)
        return f'<tr><th scope="row">{escape(instance.address)}</th>{cells}</tr>'
    oldest = status.pending.oldest
    age = "" if oldest is None else duration((now_of(status) - oldest).total_seconds())
    partitions, pending, lag = len(status.partitions), status.pending.open, status.source.lag
    figures = [number(partitions), number(pending), age, number(lag)] if is_known(status) else [""] * 4
    return (
        f'<tr><th scope="row"><span>{escape(status.instance)}<br><small>{escape(instance.address)}</small></span></th>'
        f"<td>{state_pill(status.state)}</td><td>{escape(status.version)}</td>"
        + "".join(f'<td class="number">{each}</td>' for each in figures)
        + f"<td>{escape(connections_in_brief(status))}</td></tr>"
    )
