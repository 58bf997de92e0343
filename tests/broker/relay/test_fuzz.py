"""Whatever lies on the source topic: the relay lives on, and every record ends as exactly one of three things.

    ignored      a tombstone, or an event that no route takes: nothing is written, nothing is asked
    dead letter  the original key, value, headers and time, with a reason
    accepted     one action, sent to a path that holds the order's id as one segment

`corpus/` holds single values, named `{what becomes of them}.{what they are}`. Chance makes the others, from bytes
without sense to events with one thing wrong. The account is made from the topics and from what Engage was asked.
It is then compared with the relay's own figures.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from consumer.core.places import offset_at
from consumer.kafka.records.keys import place_of_key
from schemas.dead_letter import PREFIX, REDRIVE_OF
from tests.support.books import Books, DeadLetter
from tests.support.engage import Asked, Reply, ScriptedEngage
from tests.support.events import HOUR_AGO_MS, Raw, publish_raw
from tests.support.relay_thread import RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory

CORPUS = Path(__file__).parent / "corpus"
BATCHES = 25
SETTLED_S = 30.0  # 0.3 s on an idle machine
Fate = Literal["ignored", "dead_letter", "accepted"]


@dataclass(frozen=True)
class Case:
    """A record, and what must become of it; None: whatever it is, one of the three."""

    record: Raw
    fate: Fate | None = None


# What chance makes

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["..", "../jobs/1", "%2e%2e", "a/b", "a\r\nX: y", "\u2028", "\x00", "order.shipped", "default"])
)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_FIELDS = st.sampled_from(
    ["version", "type", "orderId", "occurredAt", "language", "engage", "order", "data", "", "orderid", "ORDERID"]
)
_ENGAGE_FIELDS = st.sampled_from(["versionTag", "jobId", "connection", "newerThan"])
_TYPES = st.sampled_from(["confirmed", "shipped", "delivered", "cancelled", "completed", "custom"]).map(
    "order.{}".format
)
_IDS = st.text("aA1åØ注🧦 -_.~%/\\?#&=;+:@'\"<>", min_size=1, max_size=12) | st.text(min_size=1, max_size=12)


_CHARACTERS = st.characters(codec="utf-8")


def _encoded(value: object) -> bytes:
    """Write JSON as a careless sender does: NaN and half characters included."""
    return json.dumps(value).encode()


@st.composite
def _events(draw: st.DrawFn) -> dict[str, object]:
    """Make an event as it should be, but for its id, which may be anything."""
    event: dict[str, object] = {"type": draw(_TYPES), "orderId": draw(_IDS)}
    if draw(st.booleans()):
        event["data"] = draw(st.dictionaries(st.text(max_size=8), _JSON, max_size=3))
    if draw(st.booleans()):
        event["engage"] = draw(st.dictionaries(_ENGAGE_FIELDS, _IDS | _JSON, max_size=2))
    return event


@st.composite
def _events_with_a_wrong_field(draw: st.DrawFn) -> bytes:
    event = draw(_events())
    event[draw(_FIELDS)] = draw(_JSON)
    for missing in draw(st.lists(_FIELDS, max_size=1)):
        event.pop(missing, None)
    return _encoded(event)


@st.composite
def _damaged_events(draw: st.DrawFn) -> bytes:
    """Cut, double, or overwrite a piece of an event's bytes."""
    raw = _encoded(draw(_events()))
    start = draw(st.integers(0, len(raw)))
    end = draw(st.integers(start, len(raw)))
    return raw[:start] + draw(st.binary(max_size=4) | st.just(raw[start:end] * 2)) + raw[end:]


_DEPTHS = st.integers(1, 300) | st.sampled_from([5_000, 100_000])
_DEEP = st.builds(
    lambda depth, opening, closing: (
        b'{"type":"order.shipped","orderId":"1","data":{"a":%b1%b}}' % (opening * depth, closing * depth)
    ),
    _DEPTHS,
    *(st.just(each) for each in (b"[", b"]")),
)
_LONG_NUMBERS = st.integers(15, 5_000).map(lambda digits: b'{"type":"order.shipped","orderId":%b}' % (b"9" * digits))
_NAMES = st.text(max_size=12) | st.sampled_from(["traceparent", "tracestate", f"{PREFIX}reason", f"{PREFIX}redrive-of"])
_HEADERS = st.lists(st.tuples(_NAMES, st.none() | st.binary(max_size=20)), max_size=3).map(tuple)
_KEYS = st.none() | st.binary(max_size=12)
_TIMES = st.integers(HOUR_AGO_MS, HOUR_AGO_MS + 3_000_000)


def _raw(value: bytes | None, key: bytes | None, headers: tuple[tuple[str, bytes | None], ...], time: int) -> Raw:
    # A header's name is a C string on its way through the client.
    return Raw(key, value, tuple((name.replace("\0", ""), each) for name, each in headers), time)


def _records(values: st.SearchStrategy[bytes | None]) -> st.SearchStrategy[Raw]:
    return st.builds(_raw, values, _KEYS, _HEADERS, _TIMES)


_INT64 = st.integers(-(2**63), 2**63 - 1)
_WHOLE_EVENTS = st.fixed_dictionaries(
    {"type": _TYPES, "orderId": st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)},
    optional={
        "data": st.dictionaries(
            st.text(_CHARACTERS, max_size=8), _INT64 | st.text(_CHARACTERS, max_size=20), max_size=4
        ),
        "engage": st.sampled_from([{"versionTag": "t-1"}, {"jobId": "2026/1"}, {"connection": "default"}]),
        "language": st.just("sv-SE"),
        "extra": st.lists(st.booleans() | st.none(), max_size=3),
    },
)
_CASES: st.SearchStrategy[Case] = st.one_of(
    _records(st.none()).map(lambda record: Case(record, "ignored")),
    _records(_WHOLE_EVENTS.map(_encoded)).map(lambda record: Case(record, "accepted")),
    _records(st.binary(max_size=60).map(b"\xff".__add__)).map(lambda record: Case(record, "dead_letter")),
    _records(st.binary(max_size=60)).map(Case),
    _records(_JSON.map(_encoded)).map(Case),
    _records(_events().map(_encoded)).map(Case),
    _records(_events_with_a_wrong_field()).map(Case),
    _records(_damaged_events()).map(Case),
    _records(_DEEP).map(Case),
    _records(_LONG_NUMBERS).map(Case),
)

# The relay that takes it


def engage_answers(asked: Asked) -> Reply:
    """Take everything, and have a tag for every job and order, newer than any."""
    if asked.method in ("POST", "PUT"):
        return Reply(202, {"jobId": "1"})
    return Reply(200, {"status": "Completed", "versionTag": "t-1", "lastChangedAt": "9999-12-31T23:59:59Z"})


class Account:
    """A relay at work, and what became of each record by what Kafka and Engage hold."""

    def __init__(self, sandbox: Sandbox, relay: RelayThread, engage: ScriptedEngage, books: Books) -> None:
        self._sandbox, self._relay, self._engage, self._books = sandbox, relay, engage, books
        self.published: list[Case] = []
        self.fates: Counter[Fate] = Counter()

    def settle(self, batch: Sequence[Case]) -> None:
        """Put a batch on the source, wait until nothing of it is pending any more, and check each record's end."""
        first = len(self.published)
        self.published += batch
        publish_raw(self._sandbox, [each.record for each in batch])
        self._books.wait_until_settled(SETTLED_S)
        dead_letters: dict[int, list[DeadLetter]] = {}
        for dead_letter in self._books.dead_letters:
            dead_letters.setdefault(dead_letter.why.source_offset, []).append(dead_letter)
        acted_on = {offset_at(place_of_key(key) or 0) for _, key in self._books.history}
        surprises: list[tuple[Fate, Case]] = []
        for offset, case in enumerate(batch, first):
            fate: Fate = "accepted" if offset in acted_on else "ignored"
            if offset in dead_letters:
                fate = "dead_letter"
                (dead_letter,) = dead_letters[offset]
                check_original(dead_letter, case.record)
            self.fates[fate] += 1
            if case.fate not in (None, fate):
                surprises.append((fate, case))
        assert surprises == []
        self.check_balance()

    def check_balance(self) -> None:
        """Compare with what Engage was asked, and with what the relay says of itself."""
        asked = list(self._engage.asked)
        assert [each for each in asked if not stays_within(each)] == []
        assert self.fates.total() == len(self.published)
        assert self.fates["accepted"] == sum(each.path.endswith("/action") for each in asked if each.method == "POST")
        assert self.fates["dead_letter"] == len(self._books.dead_letters) == self._counted("dead_letters_total")
        ignored = ("events_unrouted_total", "tombstones_ignored_total", "foreign_redrives_ignored_total")
        assert self.fates["ignored"] == sum(map(self._counted, ignored))
        assert len(self.published) == self._counted("events_consumed_total")

    def _counted(self, name: str) -> float:
        samples = (sample for family in self._relay.registry.collect() for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == f"engage_relay_{name}")


def check_original(dead_letter: DeadLetter, record: Raw) -> None:
    assert (dead_letter.key, dead_letter.value, dead_letter.why.source_timestamp_ms) == (
        record.key,
        record.value,
        record.timestamp_ms,
    )
    own = [header for header in dead_letter.headers if not header[0].startswith(PREFIX) or header[0] == REDRIVE_OF]
    assert own == [header for header in record.headers if not header[0].startswith(PREFIX) or header[0] == REDRIVE_OF]
    assert "\n" not in dead_letter.why.detail


_SEGMENT = r"([A-Za-z0-9._~%-]+)"
_PATHS = {
    "GET": re.compile(rf"/api/v3/orders/(?:jobs/)?{_SEGMENT}"),
    "POST": re.compile(rf"/api/v3/orders(?:/{_SEGMENT}/action)?"),
}


def stays_within(asked: Asked) -> bool:
    """Tell whether a request is one of Engage's order calls, also to a server that decodes before it looks."""
    match = _PATHS[asked.method].fullmatch(asked.path)
    if match is None:
        return False
    segment, before = match[1] or "orders", ""
    while segment != before:
        segment, before = unquote(segment), segment
    return not {"", ".", ".."} & set(re.split(r"[/\\]", segment))


@pytest.fixture
def account(sandboxes: SandboxFactory) -> Iterator[Account]:
    sandbox = sandboxes()
    with (
        ScriptedEngage(engage_answers) as engage,
        RelayThread(sandbox, engage.url, requests_per_second=2000) as relay,
        Books(sandbox) as books,
    ):
        yield Account(sandbox, relay, engage, books)


def test_every_value_of_the_corpus_becomes_what_its_name_says(account: Account) -> None:
    files = sorted(CORPUS.iterdir())
    fates: dict[str, Fate] = {"ignored": "ignored", "dead_letter": "dead_letter", "accepted": "accepted"}
    account.settle(
        [Case(Raw(file.name.encode(), file.read_bytes()), fates[file.name.partition(".")[0]]) for file in files]
    )
    assert account.fates.keys() == set(fates)


@pytest.mark.long
def test_whatever_comes_ends_as_exactly_one_of_three_and_the_relay_lives_on(account: Account) -> None:
    # No shrinking: the relay remembers what came before, and a batch that ended it would be tried again in vain.
    @settings(max_examples=BATCHES, deadline=None, phases=(Phase.reuse, Phase.generate))
    @given(st.lists(_CASES, min_size=20, max_size=60))
    def settles(batch: list[Case]) -> None:
        account.settle(batch)

    settles()
    assert all(account.fates[fate] > BATCHES for fate in ("ignored", "dead_letter", "accepted")), account.fates
