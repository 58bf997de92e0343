"""What a mutant is: an Engage or a client with one thing wrong, and the facts whose tests must fail for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from consumer.simulator import SimulatorOptions
from tests.conformance.target import PLAIN, Tamper

Patch = pytest.MonkeyPatch
Fact = Callable[..., object]
LISTED = {"ConfirmOrder", "ConfirmShipment", "ConfirmDelivery", "ConfirmCancellation", "ConfirmCompletion", "Custom"}


@dataclass(frozen=True)
class Mutant:
    """One thing that is wrong, and the facts whose tests fail for it: each a test and its arguments."""

    name: str
    caught_by: list[tuple[Fact, dict[str, Any]]]
    apply: Callable[[Patch], None] = lambda patch: None  # the same simulator
    options: SimulatorOptions = PLAIN
    tamper: Tamper | None = field(default=None, repr=False)


def of(fact: Fact, **arguments: Any) -> tuple[Fact, dict[str, Any]]:
    return fact, arguments


def around(owner: object, name: str, wrapper: Callable[..., Any]) -> Callable[[Patch], None]:
    """Replace a function by one that is given the original first."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        return wrapper(original, *arguments, **named)

    return lambda patch: patch.setattr(owner, name, wrapped)


def instead(owner: object, name: str, value: object) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(owner, name, value)
