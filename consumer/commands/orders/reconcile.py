"""`engage-relay reconcile`: whether every event of the source is accounted for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config, Output, lines_of, loaded, look_of, reach, source_topics
from consumer.commands.orders.searching import chosen, teller

if TYPE_CHECKING:
    from consumer.kafka.orders.reconciling import Problem, Sums

DEFAULT_SINCE = "1d"
NUMBERS = ("events", "ignored", "expected", "pending", "on_hold", "again", "unread")
COLUMNS = ("topic", "partition", "offset", "item", "order_id", "action", "problem")


def reconcile(
    *,
    config: Config = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Events of the last 90s, 6h, 2d. Default: 1d; with --orders all that the source holds.",
            show_default=False,
        ),
    ] = None,
    orders: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Only these orders: a file of ids, one a line; - is stdin.", show_default=False
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this source topic.", show_default=False, autocompletion=source_topics),
    ] = None,
    as_json: AsJson = False,
    look: Output = None,
) -> None:
    """Check that each event of the source is accounted for.

    Compares events with outcomes, pending actions and dead letters, and prints what does not add up. Then, and where
    not everything could be read, the exit code is 1. The relay may run meanwhile.
    """
    with exit_codes():
        settings = loaded(config)
        from consumer.config.searching import search_of
        from consumer.kafka.orders.reconciling import Problem, Seen, Sums
        from consumer.kafka.orders.reconciling import reconcile as compare

        ids = None if orders is None else _ids(orders)
        since_ms = _since_ms(since if since is not None or ids is not None else DEFAULT_SINCE)
        topics = chosen(settings, topic)
        reach(settings)
        total, seen, gaps = Sums(), set[str](), 0
        problems: list[Problem] = []
        search = search_of(settings, time.time, teller())
        for each in topics:
            for found in compare(each, search, since_ms=since_ms, orders=ids):
                match found:
                    case Problem():
                        problems.append(found)
                    case Sums():
                        total.add(found)
                    case Seen(of):
                        seen |= of
                    case str():
                        output.notice(found)
                        gaps += 1
        missing = sorted((ids or set()) - seen)
        _print(problems, missing, total, look_of(look, as_json=as_json))
        raise typer.Exit(int(bool(problems or missing or gaps)))


def _ids(file: Path) -> set[str]:
    ids = {line.decode(errors="replace").strip() for line in lines_of(file)} - {""}
    if not ids:
        refuse(f"--orders: {file} names no order")
    return ids


def _since_ms(text: str | None) -> int | None:
    from consumer.events.durations import seconds

    if text is None:
        return None
    try:
        return int((time.time() - seconds(text)) * 1000)
    except ValueError as error:
        refuse(f"--since: {error}")


def _print(problems: list[Problem], missing: list[str], total: Sums, look: output.Look) -> None:
    rows = [
        {**each.at._asdict(), "order_id": each.order_id, "action": each.action, "problem": each.what}
        for each in problems
    ]
    rows += [{**dict.fromkeys(COLUMNS), "order_id": each, "problem": "no event of it was read"} for each in missing]
    if look in ("json", "yaml"):
        numbers = {name: getattr(total, name) for name in NUMBERS}
        ended = {"ends": dict(total.ends), "reasons": dict(total.reasons)}
        sums = {"sums": {**numbers, **ended, "problems": len(rows)}}
        output.rows([*rows, sums], COLUMNS, look=look)
        return
    if rows:
        output.rows(rows, COLUMNS, look=look, optional=("item", "action"))
    ends = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(total.ends.items()))
    reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(total.reasons.items()))
    output.data(f"{total.events:,} events were read: {total.ignored:,} ignored, {total.expected:,} to be accounted for")
    on_hold = f" ({total.on_hold:,} on hold)" if total.on_hold else ""
    again = f", {total.again:,} of them sent again" if total.again else ""
    output.data(f"{ends or '0 ended'}{again}, {total.pending:,} pending{on_hold}, {len(rows):,} that do not add up")
    if reasons:
        output.data(f"not sent, or given up, because: {reasons}")
    if total.unread:
        output.data(f"{total.unread:,} offsets of the source are not read yet")
