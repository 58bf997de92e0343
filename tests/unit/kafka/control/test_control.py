"""The control topic's records: what is written is read, and what cannot be read is counted and ignored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.pauses import Pause
from consumer.kafka.control.records import Controls, pause_key, pause_value, read_pause
from schemas.control import MAX_REASON

_names = st.none() | st.text(min_size=1, max_size=20)
_moments = st.integers(0, 10**12).map(lambda ms: ms / 1000)


@given(
    st.builds(
        Pause,
        id=st.text("0123456789abcdef", min_size=1),
        begun=_moments,
        reason=st.text(min_size=1, max_size=MAX_REASON),
        connection=_names,
        route=_names,
        action=_names,
        until=st.none() | _moments,
        ended=st.none() | _moments,
        discard=st.booleans(),
    )
)
def test_what_is_written_is_read(pause: Pause) -> None:
    controls = Controls()
    controls.take(pause_key(pause), pause_value(pause, "over"))
    assert controls.pauses.known == (pause,)
    assert controls.unreadable == 0


@given(st.binary())
def test_whatever_lies_there_is_read_or_not(value: bytes) -> None:
    assert isinstance(read_pause("x", value), Pause | None)


GOOD = {"version": 1, "reason": "why", "begun_ms": 1}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        *(json.dumps({**GOOD, **wrong}).encode() for wrong in (
            {"version": 2}, {"mode": "shout"}, {"reason": ""}, {"reason": "x" * 201}, {"begun_ms": -1}, {"route": 1},
            {"until_ms": 10**16}, {"begun_ms": "soon"},
        )),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted_and_holds_nothing(value: bytes) -> None:
    controls = Controls()
    controls.take(b"pause/x", value)
    assert (controls.unreadable, controls.pauses.known) == (1, ())
    controls.take(b"pause/x", None)
    assert controls.unreadable == 0


def test_what_replaces_a_pause_and_cannot_be_read_ends_it() -> None:
    controls = Controls()
    controls.take(b"pause/x", json.dumps(GOOD).encode())
    controls.take(b"pause/x", b"{}")
    assert (controls.unreadable, controls.pauses.known) == (1, ())
    controls.take(b"pause/x", json.dumps({**GOOD, "new": 1}).encode())
    assert (controls.unreadable, len(controls.pauses.known)) == (0, 1)


def test_what_newer_versions_ask_for_is_theirs() -> None:
    controls = Controls()
    controls.take(b"something/1", b"\xff")
    assert controls.unreadable == 0


def test_a_record_without_a_key_is_nobodys() -> None:
    controls = Controls()
    controls.take(None, b"{}")
    assert controls.unreadable == 1
