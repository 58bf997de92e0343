"""The process's logging, put back as it was behind a test that configures it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from consumer import logs


@contextmanager
def logs_as_they_were() -> Iterator[None]:
    """Put back what `consumer.logs` sets for the whole process."""
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
