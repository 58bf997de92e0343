"""How a person names one record: where it lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consumer.commands.exits import refuse

if TYPE_CHECKING:
    from consumer.kafka.dead_letters.redrive import Coordinates


def coordinates_of(text: str, topics: Sequence[str], *, others: bool = False) -> Coordinates:
    """Read `TOPIC/PARTITION/OFFSET`, or `PARTITION:OFFSET` where there is one topic. Else ends with exit code 2.

    `others`: there may be more topics, which only a broker can tell.
    """
    from consumer.kafka.dead_letters.redrive import Coordinates

    match = re.fullmatch(r"([^/:]+)/([0-9]{1,9})/([0-9]{1,18})|([0-9]{1,9}):([0-9]{1,18})", text)
    if match is None:
        refuse(f"{text}: must be TOPIC/PARTITION/OFFSET or PARTITION:OFFSET, as in {topics[0]}/0/17 or 0:17")
    topic, partition, offset = match[1], match[2] or match[4], match[3] or match[5]
    if topic is None:
        if len(topics) != 1:
            refuse(f"{text}: say of which topic, as in {topics[0]}/{partition}/{offset}")
        topic = topics[0]
    if topic not in topics and not others:
        refuse(f"{text}: {topic} is none of {', '.join(topics)}")
    return Coordinates(topic, int(partition), int(offset))
