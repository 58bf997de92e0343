"""Each test calls the command line as if in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from consumer.commands import checks
from consumer.kafka import reaching
from tests.support.log_state import logs_as_they_were

NO_BROKER_S = 0.5  # until a command gives up: none of them has a broker, and what says so comes at once


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("KAFKA_", "ENGAGE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(reaching, "GIVE_UP_S", NO_BROKER_S)
    monkeypatch.setattr(checks, "GIVE_UP_S", NO_BROKER_S)
    with logs_as_they_were():
        yield
