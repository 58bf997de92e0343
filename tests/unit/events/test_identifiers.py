"""An id that passes is one path segment, whatever a server does to it."""

from __future__ import annotations

import posixpath
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.events.identifiers import MAX_ID_CHARACTERS, hint_on, why_unusable


@pytest.mark.parametrize(
    "good", ["1", "A-1001", "SE 100/2024", "a.b", "...", "åäö", "100%", "%2", "x" * MAX_ID_CHARACTERS]
)
def test_ids_that_shops_use_pass(good: str) -> None:
    assert why_unusable(good) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "is empty"),
        (" \t ", "is blank"),
        ("\u00a0", "is blank"),
        ("x" * (MAX_ID_CHARACTERS + 1), "is longer than 1024 characters"),
        ("a\nb", "has a control character or line break"),
        ("a\x00", "has a control character or line break"),
        ("\x00\x00\x00\x00\x01\x0cA-1001", "begins with byte 0, as a Schema Registry's frame or a binary number does"),
        ("a\x85b", "has a control character or line break"),
        ("a\u2028b", "has a control character or line break"),
        ("a\ud800", "has half a surrogate pair"),
        (".", "would be more than one path segment"),
        ("..", "would be more than one path segment"),
        ("../actions", "would be more than one path segment"),
        ("a/..\\b", "would be more than one path segment"),
        ("/a", "would be more than one path segment"),
        ("%2e%2E", "would be more than one path segment"),
        ("a%252f..", "would be more than one path segment"),
    ],
)
def test_an_id_that_cannot_be_used_is_refused_in_words_without_the_id(bad: str, why: str) -> None:
    assert why_unusable(bad) == why


@given(st.text(st.sampled_from("a./\\%25eEfFcC"), max_size=12), st.integers(0, 3))
def test_no_server_climbs_out_of_an_id_that_passes(raw_id: str, decodings: int) -> None:
    if why_unusable(raw_id) is not None:
        return
    path = quote(raw_id, safe="")
    for _ in range(1 + decodings):
        path = unquote(path).replace("\\", "/")
    assert posixpath.normpath(f"/orders/{path}") == f"/orders/{path}"


@pytest.mark.parametrize(
    ("raw_id", "hint"),
    [
        (" A-1", "has white space around it"),
        ("A-1\u00a0", "has white space around it"),
        ("A\u030a-1", "is not in Unicode's composed form (NFC)"),
        ("A\u200b-1", "has characters that cannot be seen"),
        ("A\u202e1", "has characters that cannot be seen"),
        ("\uff21-1", "has characters that look like plain ones"),
        ("\u0410-1B", "mixes alphabets whose letters look alike"),
        *((plain, None) for plain in ("A-1", "Ordnr-åäö", "注文-1", "🧦", "a b", "#1001", "2026/1", "Заказ-1")),
        ("АВС-1", "has letters of another alphabet that look like Latin ones"),  # noqa: RUF001 - Cyrillic
        ("Α-1", "has letters of another alphabet that look like Latin ones"),  # noqa: RUF001 - Greek
        ("Заказ-1", None),
        *(
            (each, "is a whole value as a converter writes it: json() reads one of JSON")
            for each in ('"A-1"', '{"id":1}', '["A-1"]', "Struct{id=A-1}", '{"schema":{},"payload":"A-1"}')
        ),
        *((each, None) for each in ('A-1"', "{A-1", "A[1]")),
        ("0", "is what programs write for what is not there"),
        ("00000000-0000-0000-0000-000000000000", "is what programs write for what is not there"),
        ("00000000-0000-0000-0000-000000000001", None),
        ("undefined", "is what programs write for what is not there"),
        ("null", "is what programs write for what is not there"),
        ("[object Object]", "is what programs write for what is not there"),
    ],
)
def test_an_id_that_engage_may_know_by_another_spelling_gets_a_hint(raw_id: str, hint: str | None) -> None:
    assert hint_on(raw_id) == hint


@given(st.text())
def test_no_id_crashes_the_hint(raw_id: str) -> None:
    hint_on(raw_id)
