"""The section `polling`: when to poll for a versionTag, and when to give up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from consumer.config.sections.section import Section
from consumer.events.durations import AS_DURATION, PositiveSeconds, Seconds, seconds

InitialSeconds = Annotated[
    float | Literal["auto"],
    BeforeValidator(lambda value: value if value == "auto" else seconds(value)),
    WithJsonSchema({"anyOf": [{"const": "auto"}, *AS_DURATION]}),
]


class Polling(Section):
    """When to poll for a versionTag."""

    initial: InitialSeconds = Field(
        "auto",
        description="`auto` learns from each connection's processing times when to poll. A duration is the wait before"
        " the first poll; the waits after it grow by a fixed factor.",
    )
    max_interval: PositiveSeconds = Field(
        60.0, description="Longest wait between two polls for an action, while the rate limit has room for them."
    )
    deadline: PositiveSeconds = Field(
        24 * 3600.0,
        description="An action that is not delivered by then becomes a dead letter, unless Engage as a whole cannot be"
        " reached or refuses the API key.",
    )
    not_found_grace: Seconds = Field(
        600.0,
        description="How long to poll for a job or order that Engage does not know. Then the order is asked for in a"
        " job's place. Where it is unknown, too, the action becomes a dead letter `not_found`.",
    )
    contact_grace: Seconds = Field(
        600.0,
        description="How long to send an action again whose order has no contact yet (422). Then it becomes a dead"
        " letter `no_contact`.",
    )
