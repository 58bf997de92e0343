"""`dead-letters`: what is refused before a broker is asked."""

from __future__ import annotations

import pytest

from consumer.errors import ExitCode
from tests.unit.commands.calling import called


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name the dead letters"),
        (["--offset", "7"], "partition:offset"),
        (["--reason", "bored"], "undecodable"),
        (["--since", "yesterday"], "duration"),
        (["--all", "--topic", "nobody"], "orders"),
        (["-"], "line 2"),
    ],
)
def test_redrive_refuses_what_names_no_letters_before_it_asks_a_broker(arguments: list[str], told: str) -> None:
    stdin = '{"topic": "orders.engage.dead-letters", "partition": 0, "offset": 1}\n{"topic": "x"}\n'
    result = called("dead-letters", "redrive", *arguments, stdin=stdin)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert told in result.stderr
    assert result.stdout == ""


def test_an_offset_alone_is_refused_where_there_are_several_dead_letter_topics() -> None:
    result = called("dead-letters", "redrive", "--offset", "0:7", ENGAGE_RELAY__SOURCE__TOPICS="a,b")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--topic" in result.stderr
