"""`dead-letters`: what is refused before a broker is asked."""

from __future__ import annotations

import pytest

from consumer.errors import ExitCode
from tests.unit.commands.calling import called


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name the dead letters"),
        (["--source-offset", "7"], "partition:offset"),
        (["--dead-letter-offset", "0:-1"], "partition:offset"),
        (["--reason", "bored"], "undecodable"),
        (["--since", "yesterday"], "duration"),
        (["--all", "--topic", "nobody"], "orders"),
        (["-"], "line 2"),
    ],
)
def test_redrive_refuses_what_names_no_letters_before_it_asks_a_broker(arguments: list[str], told: str) -> None:
    good = '{"dead_letter_topic": "orders.engage.dead-letters", "dead_letter_partition": 0, "dead_letter_offset": 1}'
    stdin = f'{good}\n{{"topic": "x"}}\n'
    result = called("dead-letters", "redrive", *arguments, stdin=stdin)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["--source-offset", "--dead-letter-offset"])
def test_an_offset_alone_is_refused_where_there_are_several_topics(option: str) -> None:
    result = called("dead-letters", "redrive", option, "0:7", ENGAGE_RELAY__SOURCE__TOPICS="a,b")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--topic" in result.stderr
