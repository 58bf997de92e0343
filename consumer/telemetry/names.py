"""What metrics and spans call things."""

from __future__ import annotations

import re

PREFIX = "engage_relay_"


class OutcomeNames(dict[type, str]):
    """An outcome's label: its class's name in snake case."""

    def __missing__(self, outcome: type) -> str:
        name = self[outcome] = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", outcome.__name__).lower()
        return name
