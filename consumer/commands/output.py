"""What the commands write to stdout and stderr: JSON for programs, tables for people.

Rules:
 1. Much of what is printed comes from outside: control characters are escaped, so that no terminal obeys them.
 2. A table on a terminal is drawn by rich (which respects NO_COLOR). Elsewhere it is tab-separated, row by row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Literal

import typer

from consumer.events.numbers import Number, read_exactly, written

Row = Mapping[str, object]
Look = Literal["table", "wide", "json", "yaml"]
FLOAT = "tag:yaml.org,2002:float"


def data(line: str) -> None:
    """Write a line to stdout."""
    typer.echo(shown(line))


def notice(line: object) -> None:
    """Write a line for the operator to stderr."""
    typer.echo(shown(str(line)), err=True)


def json_line(row: Row) -> None:
    """Write one JSON object, in ASCII, on one line."""
    typer.echo(json.dumps(row, default=_as_text))


def exact_json_line(row: Row) -> None:
    """Write one JSON object, in ASCII, on one line, its numbers as they came."""
    text = written(dict(row)).decode()
    typer.echo("".join(each if each.isascii() else json.dumps(each)[1:-1] for each in text))


def facts(known: Row, *, as_json: bool) -> None:
    """Print what is known of one thing: as a JSON object, or the facts that there are, one to a line."""
    if as_json:
        json_line(known)
        return
    for name, fact in known.items():
        if fact is not None:
            data(f"{name.replace('_', ' '):<{NAMES}}{_as_text(fact)}")


def rows(found: Iterable[Row], columns: Sequence[str], *, look: Look = "table", optional: Sequence[str] = ()) -> None:
    """Print rows: all of each as JSON or YAML, or these columns of it. Each appears when it is found.

    On a terminal that is too narrow, the `optional` columns are left out, the first ones first, unless it is `wide`.
    """
    if look == "json":
        for row in found:
            json_line(row)
    elif look == "yaml":
        _yaml(found)
    elif sys.stdout.isatty():
        _draw(list(found), columns, () if look == "wide" else optional)
    else:
        typer.echo("\t".join(columns))
        for row in found:
            typer.echo("\t".join(_cell(row[column]) for column in columns))


class YamlList:
    """One YAML list, each of its objects printed when it is found, numbers as they came. `end` it."""

    def __init__(self) -> None:
        import yaml

        class Dumper(yaml.SafeDumper):
            """The safe one, which writes a number as it came."""

        Dumper.add_representer(Number, lambda dumper, number: dumper.represent_scalar(FLOAT, number.text))
        self._dump = partial(yaml.dump, Dumper=Dumper, sort_keys=False)
        self._empty = True

    def add(self, row: Row) -> None:
        """Print the next object."""
        self._empty = False
        typer.echo(self._dump([read_exactly(written(dict(row)))]), nl=False)

    def end(self) -> None:
        """Print what a list without objects looks like, where there was none."""
        if self._empty:
            typer.echo("[]")


def _yaml(found: Iterable[Row]) -> None:
    listed = YamlList()
    for row in found:
        listed.add(json.loads(json.dumps(row, default=_as_text)))
    listed.end()


def _draw(found: Sequence[Row], columns: Sequence[str], optional: Sequence[str]) -> None:
    """Draw a table in which no cell is folded: an id must stay one word that can be copied."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = Console().width
    needed = {name: max(len(name), *(len(_cell(row[name])) for row in found), 0) + BETWEEN for name in columns}
    left_out = []
    for name in optional:
        if sum(needed.values()) <= width:
            break
        if needed.pop(name, None) is not None:
            left_out.append(name)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in needed:
        table.add_column(name.replace("_", " "), no_wrap=True)
    for row in found:
        table.add_row(*(Text(_cell(row[name])) for name in needed))  # Text: square brackets are no markup
    # What is still wider than the terminal is wrapped by the terminal, which copies it as one word.
    Console(width=max(sum(needed.values()), width)).print(table)
    if left_out:
        notice(f"left out, because the terminal is too narrow: {', '.join(left_out)} (-o wide shows them)")


NAMES = 18  # columns for a fact's name
BETWEEN = 3  # columns, at the most, between two cells


def _cell(value: object) -> str:
    return "" if value is None else shown(_as_text(value))


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return time_of(value)
    return str(value)


def time_of(moment: datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it, to the second."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def shown(text: str) -> str:
    """Return the text with every character escaped that a terminal might obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
