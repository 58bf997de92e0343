"""The section `limits`: how much one instance holds at most."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from consumer.config.sections.section import Section, number


class Limits(Section):
    """How much one instance holds at most."""

    pending: Annotated[
        int,
        Field(
            ge=1,
            description="How many open actions an instance holds in memory (of 2 KiB each). What a connection has "
            "beyond its share of them stays in the delay topic until there is room.",
        ),
        BeforeValidator(number),
    ] = 100_000
