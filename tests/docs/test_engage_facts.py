"""docs/engage.md: each fact that it says has tests has some, and each option of the simulator is in it."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from pydantic.alias_generators import to_camel

from consumer.commands.simulate import simulate
from consumer.simulator import Moods
from tests.conformance import test_client_facts, test_facts

TEXT = (Path(__file__).parents[2] / "docs" / "engage.md").read_text()


def test_the_facts_that_have_tests_are_those_that_say_so() -> None:
    rows = re.findall(r"^\| (\d+) \|.* \| ([^|]*) \|$", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(18))
    tested = {int(number) for number, tests in rows if tests == "yes"}
    names = [*dir(test_facts), *dir(test_client_facts)]
    assert {int(found[1]) for name in names if (found := re.match(r"test_fact_(\d+)_", name))} == tested


def test_every_mood_has_a_flag_and_a_field_and_is_documented() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)` \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert {field for _, field in rows} == {to_camel(each.name) for each in fields(Moods)}
    flags = inspect.signature(simulate).parameters
    assert all(flag.replace("-", "_") in flags for flag, _ in rows)
