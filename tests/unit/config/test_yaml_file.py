"""YAML with nothing guessed: positions of all keys, and an error where two readers would differ."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.config.yaml_file import MAX_BYTES, ConfigurationFile, Position, UnreadableFileError, read


def read_text(folder: Path, text: str) -> ConfigurationFile:
    file = folder / "relay.yaml"
    file.write_text(text, encoding="utf-8")
    return read(file)


def unreadable(path: Path) -> tuple[Position | None, str]:
    with pytest.raises(UnreadableFileError) as raised:
        read(path)
    return raised.value.error.position, raised.value.error.text


def test_every_key_and_item_has_its_line_and_column(tmp_path: Path) -> None:
    file = read_text(tmp_path, "# first\na:\n  b: 1\n  c: [x, yy, {d: 2}]\n\n'e': {f: 3}\n")

    assert file.values == {"a": {"b": 1, "c": ["x", "yy", {"d": 2}]}, "e": {"f": 3}}
    assert file.positions == {
        ("a",): (2, 1),
        ("a", "b"): (3, 3),
        ("a", "c"): (4, 3),
        ("a", "c", 0): (4, 7),
        ("a", "c", 1): (4, 10),
        ("a", "c", 2): (4, 14),
        ("a", "c", 2, "d"): (4, 15),
        ("e",): (6, 1),
        ("e", "f"): (6, 7),
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0.5", 0.5),
        ("10s", "10s"),
        ("24h", "24h"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("localhost:9092", "localhost:9092"),
        ("https://acme.voyado.com", "https://acme.voyado.com"),
        ("nothing", "nothing"),
        ("'on'", "on"),
        ('"0123"', "0123"),
        ("'2025-01-01'", "2025-01-01"),
        ("|\n  two\n  lines", "two\nlines\n"),
    ],
)
def test_a_value_is_what_it_looks_like(tmp_path: Path, written: str, value: object) -> None:
    file = read_text(tmp_path, f"key: {written}\n")

    assert file.errors == ()
    assert file.values == {"key": value}
    assert type(file.values["key"]) is type(value)


@pytest.mark.parametrize(
    "written",
    [
        *("on", "Off", "YES", "no", "y", "N"),
        *("0123", "089", "0o17", "0x1F", "1e3", "1.5E+3", "1_000", "1_0.5", "12345678901234567890"),
        *("12:30:00", "1:20", "2025-01-01", "2025-01-01 10:00:00", "2025-01-01T10:00:00Z"),
        *(".inf", "-.INF", ".nan"),
    ],
)
def test_a_value_that_yaml_programs_read_differently_is_an_error(tmp_path: Path, written: str) -> None:
    file = read_text(tmp_path, f"a:\n  key: {written}\n  next: 1\n")

    (error,) = file.errors
    assert (error.position, error.path) == ((2, 8), ("a", "key"))
    assert "quotes" in error.text
    assert written not in error.text.split()
    assert file.unusable == {("a", "key")}
    assert file.values == {"a": {"key": None, "next": 1}}


def test_a_key_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    assert read_text(tmp_path, "no: a\n1: b\ntrue: c\n2025-01-01: d\n").values == {
        "no": "a",
        "1": "b",
        "true": "c",
        "2025-01-01": "d",
    }


def test_a_character_that_json_writes_as_two_escapes_is_one(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text('{"a\\ud83d\\ude00": "b\\ud83d\\ude00"}')
    assert read(file).values == {"a\U0001f600": "b\U0001f600"}


def test_a_key_that_is_written_twice_is_an_error(tmp_path: Path) -> None:
    file = read_text(tmp_path, "a:\n  b: 1\n  c: 2\n  b: 3\na: 4\n")

    assert [(m.position, m.path, m.text) for m in file.errors] == [
        ((4, 3), ("a", "b"), "written twice, first in line 2"),
        ((5, 1), ("a",), "written twice, first in line 1"),
    ]


@pytest.mark.parametrize(
    ("text", "position", "word"),
    [
        ("a: &x 1\n", (1, 4), "anchors"),
        ("a: &x\n  b: 1\n", (1, 4), "anchors"),
        ("a: 1\nb: *x\n", (2, 4), "aliases"),
        ('a: 1\nb: "\\ud800"\n', (2, 4), "half a surrogate pair"),
        ("a: 1\n<<: *x\n", (2, 5), "aliases"),
        ("a: !!python/object:os.system x\n", (1, 4), "tags"),
        ("a: !x [1]\n", (1, 4), "tags"),
        ("a: 1\n---\nb: 2\n", (2, 1), "second document"),
    ],
)
def test_what_a_configuration_has_no_use_for_is_an_error(
    tmp_path: Path, text: str, position: tuple[int, int], word: str
) -> None:
    (error,) = read_text(tmp_path, text).errors

    assert error.position == position
    assert word in error.text


@pytest.mark.parametrize(
    ("raw", "position", "text"),
    [
        (b"a:\n\tb: 1\n", (2, 1), "a tab cannot stand here: use spaces"),
        (b"a: @x\n", (1, 4), "a value cannot begin with this character: put it in quotes"),
        (b"a: b: c\n", (1, 5), "a key is not expected here: look at the indentation and for an unquoted ': '"),
        (b"a:\n  b: 1\n c: 2\n", (3, 2), "this does not line up with the lines above: look at the indentation"),
        (b"a: 1\nbc\nd: 1\n", (3, 1), "a ':' and a space are missing after the key"),
        (b"a: 'x\n", (2, 1), "the quotes are never closed"),
        (b"a: [1, 2\n", (2, 1), "a ',' or the closing bracket is missing"),
        (b'a: "\\q"\n', (1, 6), "unknown escape after '\\': use single quotes"),
        (b"a: }\n", (1, 4), "is not valid YAML here"),
        (
            b"a: 'b == 'c''\n",
            (1, 11),
            "the value before this has ended: within 'single quotes' a quote is written twice, within double ones \\\"",
        ),
        (b"a: *.b\n", (1, 5), "a value cannot begin with this: put it in quotes"),
        (b"a: - b\n", (1, 4), "a list's '- ' stands on a line of its own"),
        (b'a: "\\x"\n', (1, 7), "unknown escape after '\\': use single quotes"),
        (b"a: !x!y z\n", (1, 4), "is not valid YAML here"),
        (b"? [a]\n: b\n", (1, 3), "a key must be plain text"),
        (b"ok: 1\n\xc3\xa4\xff: 2\n", (2, 2), "is not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), (1, 1), "is not UTF-8 text"),
        (b"a: 1\nb: '\x01'\n", (2, 5), "holds a control character"),
        (b"a: 1\x00\n", None, "is not a text file"),
        (b"", None, "is empty"),
        (b" \n\n", None, "is empty"),
        (b"# only a comment\n", None, "is empty"),
        (b"---\n", None, "is empty"),
        (b"- a\n- b\n", (1, 1), "must hold sections at its top level (kafka:, engage:, …)"),
        (b"\n  text\n", (2, 3), "must hold sections at its top level (kafka:, engage:, …)"),
        (b"a: " + b"[" * 33, (1, 36), "is nested more than 32 levels deep"),
        (b"a: " + b"{b: " * 40, (1, 132), "is nested more than 32 levels deep"),
    ],
)
def test_what_is_no_yaml_is_reported_at_its_place(
    tmp_path: Path, raw: bytes, position: tuple[int, int] | None, text: str
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_bytes(raw)

    assert unreadable(file) == (position, text)


def test_a_byte_order_mark_moves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")

    assert read(file).positions == {("a",): (1, 1), ("b",): (2, 1)}


def test_what_is_no_file_is_said_so(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a: 1\n" * (MAX_BYTES // 5 + 1))

    assert unreadable(tmp_path / "none.yaml") == (None, "there is no such file")
    assert unreadable(tmp_path) == (None, "is a directory, not a file")
    assert unreadable(large)[1].startswith("is longer than")


def test_an_alias_bomb_and_a_deep_nest_cost_nothing(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 200))

    started = time.process_time()
    assert read_text(tmp_path, bomb).errors
    with pytest.raises(UnreadableFileError):
        read_text(tmp_path, "a: " + "[" * 500_000)
    assert time.process_time() - started < 5


@given(st.binary(max_size=200) | st.text(alphabet="ab:- \n\t[]{},&*!|>'\"%@`#?~0", max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "relay.yaml"
    file.write_bytes(raw)
    try:
        found = read(file)
    except UnreadableFileError:
        return
    assert {(key,) for key in found.values} <= set(found.positions)
