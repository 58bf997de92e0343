"""Where an event has what a path of a route does not find: JMESPath gives null there, and nobody would know.

Names may be spelt otherwise, an object may be JSON in a text (an outbox, MongoDB's changes, what queues wrap), and one
object may stand in a list.
"""

from __future__ import annotations

from collections.abc import Collection

from consumer.events.decoding import Undecodable, decode
from consumer.events.field_names import plain
from consumer.events.trees import written_path


def json_in(value: object) -> object:
    """Return the object or list that a text holds as JSON; None: it holds none, or is no text."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return None
    held = decode(value.encode(errors="replace"))
    return None if isinstance(held, Undecodable) else held


def read_instead(path: tuple[str, ...], value: object) -> str | None:
    """Return the expression that reads what a path means, where the path itself finds nothing; None: it is not there.

    `value`: what the path begins in.
    """
    behind = ""  # what is read so far; the names that follow it are in `names`
    names: list[str] = []
    for name in path:
        held = json_in(value)
        if held is not None:
            behind, names, value = f"json({_written(behind, names)})", [], held
        if isinstance(value, list):
            value = next(iter(value), None)
            behind, names = f"{_written(behind, names)}[0]", []
        if not isinstance(value, dict):
            return None
        names.append(_spelling(name, value))
        value = value.get(names[-1])
    found = _written(behind, names)
    return None if value is None or found == written_path(path) else found


def _spelling(name: str, names: Collection[str]) -> str:
    """Return how a name is spelt: case, `_` and `-` aside. As it is given, where there is none."""
    return name if name in names else next((each for each in names if plain(each) == plain(name)), name)


def _written(behind: str, names: list[str]) -> str:
    if not behind:
        return written_path(tuple(names))
    return ".".join([behind, *([written_path(tuple(names))] if names else [])])
