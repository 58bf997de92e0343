"""Moods: where Engage's documentation leaves a choice, or where its answers differ from order to order.

A rule (a missing Content-Type is answered 500) is no mood: it always holds. A fault (faults.py) is a problem on
the way; a mood is Engage working as it should. Every share is 0 by default: the simulator has no moods
unless it is told. Which order or job a share falls on depends on the seed and its id only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from pydantic.alias_generators import to_camel

from consumer.simulator.chance import Durations, parse_durations, parse_probability

ContactLink = Literal["itself", "again"]
Redirect = Literal["relative", "absolute", "other-scheme", "other-host"]
Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moods:
    """Engage's moods, as text where a command line gives text. Raises ValueError for what cannot be.

    late_contacts     share of orders whose contact Engage learns of only after `contact_delay` (422 until then)
    missing_contacts  share of orders whose contact never comes
    contact_delay     how long after the order a late contact comes, see `parse_durations`
    contact_link      what links a late contact: its coming (`itself`), or the order put again after it (`again`)
    redirects         kind=share of completed jobs that answer 302, by how the Location is written
    job_words         word=share of done jobs that say this status instead of Completed. The tag is only at the order.
                      A word that begins with "fail" or "error" is of a job that failed
    waiting_words     word=share of jobs that say this status instead of Processing while they are under way
    created           share of acceptances (orders, changes, actions) that answer 201 instead of 202
    html_errors       share of errors that come as an HTML page instead of JSON
    last_changed_at   whether the orders that the simulator itself makes carry `lastChangedAt`
    """

    late_contacts: float = 0.0
    missing_contacts: float = 0.0
    contact_delay: str = "uniform:10s..60s"
    contact_link: ContactLink = "itself"
    redirects: tuple[str, ...] = ()
    job_words: tuple[str, ...] = ()
    waiting_words: tuple[str, ...] = ()
    created: float = 0.0
    html_errors: float = 0.0
    last_changed_at: bool = True

    def __post_init__(self) -> None:
        self.parse()
        for name in ("late_contacts", "missing_contacts", "created", "html_errors"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if self.late_contacts + self.missing_contacts > 1:
            raise ValueError("late_contacts and missing_contacts add up to more than 1")
        if self.contact_link not in get_args(ContactLink):
            raise ValueError(f"contact_link {self.contact_link!r}: expected itself or again")

    def parse(self) -> ParsedMoods:
        """Return what the texts mean."""
        return ParsedMoods(
            moods=self,
            contact_delay=parse_durations(self.contact_delay),
            redirects=parse_shares("redirects", self.redirects, get_args(Redirect)),
            job_words=parse_shares("job_words", self.job_words),
            waiting_words=parse_shares("waiting_words", self.waiting_words),
        )


@dataclass(frozen=True, slots=True)
class ParsedMoods:
    """Moods, with their texts read."""

    moods: Moods
    contact_delay: Durations
    redirects: Shares
    job_words: Shares
    waiting_words: Shares


def read_moods(asked: Mapping[str, object]) -> Moods:
    """Read moods from a JSON object; what it does not name is as by default. Raises ValueError for what is wrong."""
    known = {to_camel(each.name): each for each in fields(Moods)}
    chosen: dict[str, Any] = {}  # each has the type of its default
    for name, value in asked.items():
        if name not in known:
            raise ValueError(f"{name}: unknown; there are {', '.join(known)}")
        chosen[known[name].name] = _typed(name, value, known[name].default)
    return Moods(**chosen)


def parse_shares(option: str, texts: Iterable[str], known: tuple[str, ...] = ()) -> Shares:
    """Read `name=share` each. Raises ValueError for a name that is not `known`, and for more than 1 in all."""
    shares = tuple(_parse_share(option, text, known) for text in texts)
    total = sum(share for _, share in shares)
    if total > 1 + 1e-9:
        raise ValueError(f"{option}: the shares add up to {total:g}, which is more than 1")
    return shares


def pick(shares: Shares, chance: float) -> str | None:
    """Return the name that belongs to a draw in [0, 1); None if no name has that share."""
    for name, share in shares:
        chance -= share
        if chance < 0:
            return name
    return None


def _parse_share(option: str, text: str, known: tuple[str, ...]) -> tuple[str, float]:
    found = re.fullmatch(r"\s*([^=]*[^=\s])\s*=([^=]+)", text)
    if found is None:
        raise ValueError(f"{option} {text!r}: expected name=share, as in {known[0] if known else 'Queued'}=0.1")
    if known and found[1] not in known:
        raise ValueError(f"{option} {text!r}: expected one of {', '.join(known)}")
    try:
        return found[1], parse_probability(found[2])
    except ValueError as error:
        raise ValueError(f"{option} {text!r}: {error}") from None


def _typed(name: str, value: object, default: object) -> object:
    match default:
        case bool():
            if isinstance(value, bool):
                return value
            raise ValueError(f"{name}: expected true or false")
        case float():
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            raise ValueError(f"{name}: expected a number")
        case tuple():
            if isinstance(value, list) and all(isinstance(each, str) for each in value):
                return tuple(value)
            raise ValueError(f"{name}: expected a list of texts")
    if isinstance(value, str):
        return value
    raise ValueError(f"{name}: expected a text")
