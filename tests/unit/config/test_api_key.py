"""The API key: read again when its file changes, never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from consumer.engage.api_key import CHECK_S, MAX_KEY_BYTES, ApiKey


class Watch:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key"


def test_a_written_key_is_the_key() -> None:
    assert ApiKey(SecretStr("k-1")).current() == "k-1"


@pytest.mark.parametrize("raw", [b"k-1", b"k-1\n", b"k-1\r\n", b"\xef\xbb\xbfk-1\r\n"])
def test_a_files_key_lacks_what_an_editor_adds(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)

    assert ApiKey(file).current() == "k-1"


def test_a_changed_file_is_read_again_a_second_later(file: Path) -> None:
    watch = Watch()
    file.write_text("k-1\n")
    key = ApiKey(file, watch)
    assert key.current() == "k-1"

    file.write_text("k-20\n")
    watch.s = CHECK_S / 2
    assert key.current() == "k-1"
    watch.s = CHECK_S
    assert key.current() == "k-20"


def test_a_rotation_by_symlink_is_seen_though_size_and_time_are_equal(tmp_path: Path, file: Path) -> None:
    # As Kubernetes mounts a secret.
    watch = Watch()
    for name in ("k-1", "k-2"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1, 1))
    file.symlink_to("k-1")
    key = ApiKey(file, watch)
    assert key.current() == "k-1"

    (tmp_path / "new").symlink_to("k-2")
    (tmp_path / "new").replace(file)
    watch.s = CHECK_S
    assert key.current() == "k-2"


def test_a_missing_file_is_an_error_until_it_is_there(file: Path) -> None:
    key = ApiKey(file, Watch())
    with pytest.raises(FileNotFoundError):
        key.current()

    file.write_text("k-1")
    assert key.current() == "k-1"


def test_a_file_that_vanished_is_an_error_not_the_old_key(file: Path) -> None:
    watch = Watch()
    file.write_text("k-1")
    key = ApiKey(file, watch)
    key.current()

    file.unlink()
    watch.s = CHECK_S
    with pytest.raises(FileNotFoundError):
        key.current()


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"\xef\xbb\xbf", b"hunter 2", b"hunter2\nx\n", b"hunter\xff2", b"h" * (MAX_KEY_BYTES + 1)]
)
def test_a_file_that_holds_no_key_is_an_error_that_does_not_show_it(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)

    with pytest.raises(ValueError, match="must hold the API key alone") as raised:
        ApiKey(file).current()
    assert "hunter" not in str(raised.value)


def test_a_pipe_is_an_error_instead_of_a_wait(file: Path) -> None:
    os.mkfifo(file)

    with pytest.raises(ValueError, match="is not a regular file"):
        ApiKey(file).current()


def test_no_repr_shows_the_key() -> None:
    key = ApiKey(SecretStr("hunter2"))
    key.current()

    assert "hunter2" not in repr(key)
