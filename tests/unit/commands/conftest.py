"""Each test calls the command line as if in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.log_state import logs_as_they_were


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("KAFKA_", "ENGAGE_")):
            monkeypatch.delenv(name)
    with logs_as_they_were():
        yield
