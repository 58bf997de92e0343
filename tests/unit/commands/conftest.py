"""Each test calls the command line as if in a process of its own."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from consumer import logs


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("KAFKA_", "ENGAGE_")):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    named = {name: logging.getLogger(name).level for name in (*logs.OURS, "librdkafka")}
    before = (root.handlers, root.level, sys.excepthook, sys.unraisablehook, threading.excepthook)
    yield
    root.handlers, root.level, sys.excepthook, sys.unraisablehook, threading.excepthook = before
    for name, level in named.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    logs._secrets = []
