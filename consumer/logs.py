"""Logs: one line per record on stderr, our own and the libraries', as JSON or, on a terminal, as text.

Rules:
 1. No secret: what was registered with `redact` becomes *** wherever it appears in a line.
 2. No personal data: of an exception, a line has its type and where it was raised. It has the text only where that is
    known to hold no contents (our own errors, Kafka's error codes, the operating system's). No local variables.
 3. An uncaught error, on any thread, is logged as any other record. Nothing else writes to stderr.
 4. Libraries log from `warning` on: at lower levels they log requests. librdkafka has our level.
"""

from __future__ import annotations

import json as json_module
import logging
import os
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

import structlog
from confluent_kafka import KafkaError, KafkaException
from pydantic import ValidationError
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LEVELS = ("debug", "info", "warning", "error")
OURS = ("consumer", "schemas")
MAX_FRAMES = 30  # of one traceback, the innermost: a recursion has a thousand
SHORTEST_SECRET = 6  # characters; a shorter one would also strike ordinary words and numbers

_secrets: list[str] = []
_LOGGER = logging.getLogger("consumer")


def configure(level: str, *, json: bool | None = None) -> None:
    """Send all logs to stderr, from `level` on. `json`: None means wherever stderr is no terminal.

    Colours only on a terminal, and without NO_COLOR (https://no-color.org). May be called again.
    Raises ValueError for a level that is none of LEVELS.
    """
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}")
    terminal = sys.stderr.isatty()
    as_json = not terminal if json is None else json
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = _Stderr()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*shared, _one_line],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                *(_as_json() if as_json else _for_people(colors=terminal and not os.environ.get("NO_COLOR"))),
                _strike_secrets,
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *shared,
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    for name in (*OURS, "librdkafka"):
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_died


def redact(secret: str) -> None:
    """Register a secret; from now on every line shows *** instead. A rotated one is added, not replaced."""
    if len(secret) < SHORTEST_SECRET:
        return
    escaped = (json_module.dumps(secret)[1:-1], repr(secret)[1:-1])  # as it looks inside of JSON, and of a repr in it
    forms = {secret, *escaped, *(json_module.dumps(form)[1:-1] for form in escaped)}
    global _secrets  # noqa: PLW0603 - replaced whole, so that a thread that logs meanwhile sees one or the other
    _secrets = sorted(forms.union(_secrets), key=len, reverse=True)  # a secret may hold another one


def describe(error: BaseException) -> list[dict[str, object]]:
    """Tell of an exception and of what caused it, the latest first: type, text where rule 2 allows it, positions.

    Positions (`file:line function`) run from the outside to where it was raised.
    """
    described: list[dict[str, object]] = []
    for each in _chain(error):
        entry: dict[str, object] = {"type": _type_name(each)}
        text = _safe_text(each)
        if text:
            entry["text"] = text
        entry["at"] = list(_positions(each.__traceback__))[-MAX_FRAMES:]
        described.append(entry)
    return described


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk through an exception, its causes, and a group's members; each one once."""
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            ahead.extend(each.exceptions)
        ahead.append(each.__cause__ or (None if each.__suppress_context__ else each.__context__))


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _safe_text(error: BaseException) -> str | None:
    """Return the part of an error's text that may be logged; None where it could hold anything."""
    if type(error).__module__.partition(".")[0] in OURS:
        return str(error)
    if isinstance(error, ValidationError):  # which field and which rule; never the input
        return "; ".join(
            f"{error.title}.{'.'.join(map(str, each['loc']))}: {each['type']}"
            for each in error.errors(include_url=False, include_context=False, include_input=False)
        )
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return f"{error.args[0].name()}: {error.args[0].str()}"
    if isinstance(error, OSError):
        return error.strerror  # without the file's name
    return None


def _positions(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield f"{code.co_filename}:{traceback.tb_lineno} {code.co_qualname}"
        traceback = traceback.tb_next


def _as_json() -> list[Processor]:
    return [
        structlog.processors.ExceptionRenderer(lambda exc_info: describe(_raised(exc_info))),
        _in_order,
        structlog.processors.JSONRenderer(),
    ]


def _for_people(*, colors: bool) -> list[Processor]:
    return [
        structlog.processors.ExceptionRenderer(lambda exc_info: _as_text(describe(_raised(exc_info)))),
        structlog.dev.ConsoleRenderer(colors=colors, repr_native_str=True),
    ]


def _raised(exc_info: ExcInfo) -> BaseException:
    return exc_info[1]


def _as_text(described: list[dict[str, object]]) -> str:
    lines: list[str] = []
    for each in described:
        text = each.get("text")
        lines.append(f"  {each['type']}: {text}" if text else f"  {each['type']}")
        positions = each["at"]
        if isinstance(positions, list):
            lines += (f"    {position}" for position in positions)
    return "\n".join(lines)


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep a library's first line: asyncio puts an exception's repr into the next ones."""
    first, _, _ = str(event["event"]).strip().partition("\n")
    event["event"] = "".join(each if each.isprintable() else "?" for each in first)
    return event


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Put first what every line has."""
    first = {name: event.pop(name, None) for name in ("timestamp", "level", "logger", "event")}
    return {**first, **event}


def _strike_secrets(_: WrappedLogger, __: str, event: EventDict) -> str:
    """Last of all, when the line is written: event dictionaries are rendered by now."""
    line = str(event)
    for secret in _secrets:
        line = line.replace(secret, "***")
    return line


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes the lines; what cannot be written is reported without the record, which could hold anything."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record to what stderr is now: a progress display replaces it while it runs."""
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Tell which logger's record was lost, and why."""
        failure = sys.exception()
        lost = {
            "level": "error",
            "logger": record.name,
            "event": "a log record could not be written",
            "exception": describe(failure) if failure is not None else [],
        }
        try:
            self.stream.write(json_module.dumps(lost) + self.terminator)
            self.flush()
        except (OSError, ValueError):  # stderr itself is gone
            return


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _LOGGER.warning("interrupted")
    else:
        _LOGGER.critical("uncaught exception", exc_info=(kind, error, traceback))


def _log_thread_died(died: threading.ExceptHookArgs) -> None:
    # A bare KafkaError, as confluent-kafka raises it amid a callback, is no exception and has no traceback.
    if isinstance(died.exc_value, BaseException) and not isinstance(died.exc_value, SystemExit):
        name = died.thread.name if died.thread is not None else "?"
        _LOGGER.critical("uncaught exception in thread %s", name, exc_info=died.exc_value)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    _LOGGER.error("exception ignored", exc_info=unraisable.exc_value)
