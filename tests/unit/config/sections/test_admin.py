"""Where the admin server listens."""

from __future__ import annotations

import pytest

from consumer.config.sections.admin import Address


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::1]:0", "localhost:65535"])
def test_an_address_is_read_and_written_alike(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["8080", ":8080", "::1:8080", "[::1]", "[x]:1", "a b:1", "host:65536", "host:-1", 80])
def test_another_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        Address.parse(text)
