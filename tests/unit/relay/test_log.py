"""What may come very often leaves room in the log for what else there is to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import structlog

from consumer.relay.log import LOG_INTERVAL_S, MAX_RATIONED, ThrottledLog


@dataclass
class Lines:
    """Keeps what is logged."""

    warnings: list[dict[str, Any]] = field(default_factory=list)

    def info(self, line: str, **fields: object) -> None:
        raise AssertionError(line, fields)

    error = info

    def warning(self, line: str, **fields: object) -> None:
        self.warnings.append({"event": line, **fields})


def test_each_one_has_its_line_until_there_are_too_many_and_the_last_line_says_so() -> None:
    lines, now = Lines(), 100.0
    log = ThrottledLog(cast("structlog.stdlib.BoundLogger", lines), lambda: now)
    for number in range(63):
        log.rationed("a dead letter", source_offset=number)

    assert [each["source_offset"] for each in lines.warnings] == list(range(MAX_RATIONED))
    assert [each for each in lines.warnings if "note" in each] == lines.warnings[-1:]

    log.rationed("something else")
    now += LOG_INTERVAL_S
    log.rationed("a dead letter", source_offset=63)
    assert [each.get("source_offset") for each in lines.warnings[MAX_RATIONED:]] == [None, 63]
