"""How a person names one record: where it lies, in full or by partition and offset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consumer.commands.exits import refuse

if TYPE_CHECKING:
    from consumer.kafka.dead_letters.redrive import Coordinates


def place_in(text: str) -> tuple[int, int] | None:
    """Read `PARTITION:OFFSET`; None where the text is something else."""
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18})", text)
    return None if match is None else (int(match[1]), int(match[2]))


def coordinates_of(text: str, topics: Sequence[str], *, others: bool = False) -> Coordinates:
    """Read `TOPIC/PARTITION/OFFSET`, or `PARTITION:OFFSET` where there is one topic. Else ends with exit code 2.

    `others`: there may be more topics, which only a broker can tell.
    """
    from consumer.kafka.dead_letters.redrive import Coordinates

    if (place := place_in(text)) is not None:
        if len(topics) != 1:
            refuse(f"{text}: say of which topic, as in {topics[0]}/{place[0]}/{place[1]}")
        return Coordinates(topics[0], *place)
    match = re.fullmatch(r"([^/:]+)/([0-9]{1,9})/([0-9]{1,18})", text)
    if match is None:
        refuse(f"{text}: must be TOPIC/PARTITION/OFFSET or PARTITION:OFFSET, as in {topics[0]}/0/17 or 0:17")
    if match[1] not in topics and not others:
        refuse(f"{text}: {match[1]} is none of {', '.join(topics)}")
    return Coordinates(match[1], int(match[2]), int(match[3]))
