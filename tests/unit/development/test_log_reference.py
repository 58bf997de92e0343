"""docs/logs.md is made from the code, and a line that says nothing of what to do is refused."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import pytest

from tools import log_reference


@pytest.fixture
def advice(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    changed = dict(log_reference.ADVICE)
    monkeypatch.setattr(log_reference, "ADVICE", changed)
    return changed


def test_every_call_of_a_log_is_read_with_its_level_and_fields() -> None:
    tree = ast.parse(
        'self._log.throttled("Kafka", why=why)\n'
        '_LOG.error(f"suspended: {said}; nothing is lost", connection=name)\n'
        '_LOGGER.critical("uncaught", exc_info=error)\n'
        'say("partitions stand still", reason=reason)\n'
        "_LOG.warning(line)\n"
        'print("no log")\n'
    )
    assert list(log_reference._in(tree)) == [
        log_reference.Line("warning", "Kafka", ("why",)),
        log_reference.Line("error", "suspended: ...; nothing is lost", ("connection",)),
        log_reference.Line("critical", "uncaught", ()),
        log_reference.Line("error or warning", "partitions stand still", ("reason",)),
    ]


@pytest.mark.slow
def test_a_line_without_advice_is_refused(advice: dict[str, str]) -> None:
    del advice["transaction aborted, trying again"]
    with pytest.raises(ValueError, match=r"without advice .'transaction aborted, trying again'"):
        log_reference.table()


@pytest.mark.slow
def test_advice_for_what_nobody_logs_is_refused(advice: dict[str, str]) -> None:
    advice["a line of old"] = "nothing"
    with pytest.raises(ValueError, match=r"not logged .'a line of old'"):
        log_reference.table()
