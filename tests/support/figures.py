"""How much is played, and what it measured."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

FIGURES = "figures"
Figures = Callable[..., None]


class Scale(Enum):
    """The short form is in the test command, the long one is for whoever changed something that it may have broken."""

    SHORT = "short"
    LONG = "long"

    def of(self, short: int, long: int) -> int:
        """Choose between two numbers."""
        return short if self is Scale.SHORT else long
