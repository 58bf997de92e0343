"""For each fact a simulator, or a client, that gets it wrong: the fact's test must catch it.

A test that cannot fail is how client and simulator came to be wrong alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest

from tests.conformance import test_client_facts as client
from tests.conformance import test_facts as facts
from tests.conformance.client_mutants import CLIENTS
from tests.conformance.mutants import Mutant
from tests.conformance.simulator_mutants import SIMULATORS
from tests.conformance.target import simulated

MUTANTS = SIMULATORS + CLIENTS
FAILURES = (AssertionError, KeyError)  # and nothing that a mutant raises which is itself broken


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fact_that_is_wrong_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.apply(monkeypatch)
    with simulated(mutant.options, patience_s=0.4) as engage:
        wrong = engage if mutant.tamper is None else replace(engage, tamper=mutant.tamper)
        for fact, arguments in mutant.caught_by:
            with pytest.raises(FAILURES):
                fact(wrong, **arguments)
            engage.moods()


def test_without_a_mutation_the_same_tests_pass() -> None:
    """So it is the mutation that they catch, and no argument of ours that no Engage could satisfy."""
    played = []
    with simulated() as engage:
        for fact, arguments in (each for mutant in MUTANTS for each in mutant.caught_by):
            if (fact, arguments) not in played:
                fact(engage.fresh(), **arguments)
                engage.moods()
                played.append((fact, arguments))
    assert played


def _tests(module: ModuleType) -> Iterator[str]:
    return (name for name, _ in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_"))


def test_every_fact_catches_a_mutant() -> None:
    caught = {fact.__name__ for mutant in MUTANTS for fact, _ in mutant.caught_by}
    assert caught == {*_tests(facts), *_tests(client)}
