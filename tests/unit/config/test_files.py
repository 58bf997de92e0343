"""The files that a configuration names are read before anything depends on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.config.files import check_files, unreadable
from consumer.config.settings import Settings
from consumer.errors import ConfigurationError

SECRET = "4711-very-secret"


def settings(kafka: dict[str, object] | None = None, **connection: object) -> Settings:
    key = {} if "api_key_file" in connection else {"api_key": SECRET}
    default = {"base_url": "https://acme.voyado.com", **key, **connection}
    return Settings.model_validate(
        {"kafka": {"bootstrap.servers": "kafka:9092", **(kafka or {})}, "engage": {"connections": {"default": default}}}
    )


def test_what_can_be_read_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    fine = settings(
        {"sasl.password.file": str(file), "ssl.ca.location": str(file), "ssl.certificate.location": str(file)},
        api_key_file=str(file),
    )
    assert list(unreadable(fine)) == []
    check_files(fine)


@pytest.mark.parametrize("elsewhere", ["probe", "a directory"])
def test_authorities_may_be_a_directory_or_the_systems(tmp_path: Path, elsewhere: str) -> None:
    value = str(tmp_path) if elsewhere == "a directory" else elsewhere
    assert list(unreadable(settings({"ssl.ca.location": value}))) == []


@pytest.mark.parametrize(
    "name",
    ["sasl.password.file", "ssl.key.password.file", "ssl.key.location", "ssl.ca.location", "sasl.kerberos.keytab"],
)
def test_a_file_of_kafkas_that_is_missing(tmp_path: Path, name: str) -> None:
    (line,) = unreadable(settings({name: str(tmp_path / "none")}))
    assert line == f"kafka.{name}: cannot read {tmp_path / 'none'}: No such file or directory"


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    (line,) = unreadable(settings({"ssl.certificate.location": str(tmp_path)}))
    assert "Is a directory" in line


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "must hold the API key alone"), (b"two words\n", "must hold the API key alone"), (b"\xff\xfe", "must hold")],
)
def test_a_file_that_holds_no_key_and_nothing_of_it_is_told(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    (line,) = unreadable(settings(api_key_file=str(file)))
    assert line.startswith(f"engage.connections.default.api_key_file: {file} ")
    assert why in line
    assert "two words" not in line


@pytest.mark.parametrize(("content", "why"), [(b"\n", "is empty"), (b"\xff\xfe", "is not text")])
def test_a_file_that_holds_no_password(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    (line,) = unreadable(settings({"sasl.password.file": str(file)}))
    assert line == f"kafka.sasl.password.file: {file} {why}"


def test_all_of_them_are_named_at_once(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    with pytest.raises(ConfigurationError) as raised:
        check_files(settings({"sasl.password.file": nowhere}, api_key_file=nowhere, ca_file=nowhere))
    assert [line.partition(":")[0] for line in raised.value.errors] == [
        "engage.connections.default.api_key_file",
        "engage.connections.default.ca_file",
        "kafka.sasl.password.file",
    ]
