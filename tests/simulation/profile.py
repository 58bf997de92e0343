"""How large and how wild a schedule is."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a schedule is drawn from. `twins`: two processes were given the same transactional.id.

    `documents`: each event carries its order's document. `strikes`: what goes wrong while one is under way.
    `parking`: three orders on two connections, which have no room for most of their actions. `repeats`: a fact is sent
    once within a window, and the producer writes most events again. `pauses`, `requests`: how many. `supersedes`: later
    actions of an order supersede earlier ones that wait. `steps`: an order's steps do not go backwards. `neighbour`: a
    relay of another group on the same source has topics of its own, or none (neighbour.py). `items`: events are several
    actions. `closures`: how often the control topic takes no answers for a while.
    """

    processes: int
    partitions: int
    events: int
    faults: int
    client_error: float  # the share of Engage's answers that are no success
    unreliable: float  # the share of requests to Kafka that go wrong
    delays: bool = True  # and whether some of those arrive late, or once more
    nesting: float
    max_pending: int
    session_s: float
    skew_s: float = 0.0  # how far a process's wall clock may be off
    twins: bool = False
    documents: bool = False
    strikes: int = 0
    parking: bool = False
    pauses: int = 0
    repeats: bool = False
    requests: int = 0
    closures: int = 0
    supersedes: bool = False
    steps: bool = False
    neighbour: Literal["own topics", "same topics"] | None = None
    items: bool = False

    @classmethod
    def drawn(cls, draw: random.Random) -> Profile:
        size = draw.random()
        if size < 0.1:
            return cls.storm(draw)
        if size > 0.95:
            return cls.of_documents(draw)
        if size > 0.88:
            return cls.of_parking(draw)
        if size > 0.86:
            return cls.of_repeats(draw)
        if size > 0.84:
            return cls.of_pauses(draw)
        if size > 0.82:
            return cls.of_sequences(draw)
        if size > 0.8:
            return cls.of_requests(draw)
        if size > 0.77:
            return cls.of_neighbours(draw)
        if size > 0.74:
            return cls.of_items(draw)
        small = size < 0.7
        return cls(
            processes=1 if small else draw.randint(1, 3),
            partitions=1 if small else draw.randint(1, 3),
            events=draw.choice((1, 1, 1, 1, 2, 2, 3)) if small else draw.randint(2, 8),
            faults=draw.choice((0, 1, 1, 2)) if small else draw.randint(0, 7),
            client_error=draw.choice((0.0, 0.1, 0.4)),
            unreliable=draw.choice((0.0, 0.0, 0.05, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=draw.choice((2, 4, 1000)),
            session_s=draw.choice((45.0, 6.0, 3.0)),
            skew_s=draw.choice((0.0, 0.0, 300.0)),
            twins=not small and draw.random() < 0.1,
        )

    @classmethod
    def short(cls, draw: random.Random) -> Profile:
        """Much is found in little: see how many of these a second holds."""
        return cls(
            processes=1,
            partitions=1,
            events=draw.randint(1, 2),
            faults=draw.randint(0, 1),
            client_error=draw.choice((0.0, 0.2)),
            unreliable=draw.choice((0.0, 0.1)),
            nesting=draw.choice((0.0, 0.3)),
            max_pending=draw.choice((1, 1000)),
            session_s=draw.choice((45.0, 3.0)),
        )

    @classmethod
    def of_documents(cls, draw: random.Random) -> Profile:
        """Documents of one or two orders, slow answers, and two processes that lose their partitions meanwhile."""
        return cls(
            processes=2,
            partitions=2,
            events=draw.randint(2, 5),
            faults=draw.choice((0, 0, 1, 3)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=0.0,
            nesting=0.0,
            max_pending=1000,
            session_s=45.0,
            twins=draw.random() < 0.15,
            documents=True,
            strikes=draw.choice((0, 1, 2, 5)),
        )

    @classmethod
    def of_parking(cls, draw: random.Random) -> Profile:
        """Little memory for the actions of three orders on two connections, and all that may go wrong meanwhile."""
        processes = draw.choice((1, 1, 2))
        return cls(
            processes=processes,
            partitions=draw.randint(1, processes),
            events=draw.randint(3, 9),
            faults=draw.choice((0, 1, 2, 4)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=draw.choice((0.0, 0.1, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=draw.choice((1, 2, 4)),
            session_s=draw.choice((45.0, 6.0)),
            skew_s=draw.choice((0.0, 0.0, 300.0)),
            parking=True,
        )

    @classmethod
    def of_pauses(cls, draw: random.Random) -> Profile:
        """Somebody pauses and resumes actions while all may go wrong."""
        processes = draw.choice((1, 1, 2))
        return cls(
            processes=processes,
            partitions=draw.randint(1, processes),
            events=draw.randint(1, 6),
            faults=draw.choice((0, 0, 1, 3)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=draw.choice((0.0, 0.1)),
            nesting=draw.choice((0.0, 0.2)),
            max_pending=draw.choice((2, 1000)),
            session_s=draw.choice((45.0, 6.0)),
            pauses=draw.randint(1, 3),
        )

    @classmethod
    def of_requests(cls, draw: random.Random) -> Profile:
        """Somebody has actions sent again, hastened and dropped, while partitions change hands and commits fail."""
        processes = draw.choice((1, 2, 2))
        drawn = cls(
            processes=processes,
            partitions=draw.randint(1, processes),
            events=draw.randint(1, 5),
            faults=draw.choice((0, 1, 2, 4)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=draw.choice((0.0, 0.0, 0.1, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=draw.choice((2, 1000)),
            session_s=draw.choice((45.0, 6.0)),
            documents=draw.random() < 0.3,
            requests=draw.randint(2, 7),
            closures=draw.choice((0, 1, 3)),
        )
        return replace(drawn, delays=drawn.unreliable > 0.2)  # where few go wrong, more is found of all else

    @classmethod
    def of_neighbours(cls, draw: random.Random) -> Profile:
        """A relay of another group, and dead letters of both that are redriven."""
        processes = draw.choice((1, 1, 2))
        return cls(
            processes=processes,
            partitions=draw.randint(1, processes),
            events=draw.randint(2, 6),
            faults=draw.choice((0, 1, 2, 4)),
            client_error=draw.choice((0.0, 0.4)),
            unreliable=draw.choice((0.0, 0.0, 0.1)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=draw.choice((2, 1000)),
            session_s=draw.choice((45.0, 6.0)),
            neighbour=draw.choice(("own topics", "own topics", "same topics")),
        )

    @classmethod
    def of_repeats(cls, draw: random.Random) -> Profile:
        """Events that are written again within the window and after it, redriven dead letters, hand-overs, restarts."""
        processes = draw.choice((1, 1, 2))
        return cls(
            processes=processes,
            partitions=draw.randint(1, processes),
            events=draw.randint(1, 4),
            faults=draw.choice((0, 1, 2, 4)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=draw.choice((0.0, 0.0, 0.1, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=draw.choice((1, 2, 1000, 1000)),
            session_s=draw.choice((45.0, 6.0)),
            repeats=True,
        )

    @classmethod
    def of_sequences(cls, draw: random.Random) -> Profile:
        """Orders whose actions supersede each other, or come backwards, in whatever else may be."""
        kinds = (cls.of_documents, cls.of_parking, cls.of_pauses, cls.of_repeats, cls.of_hand_overs)
        both = draw.choice((False, False, True))
        supersedes = draw.random() < 0.5
        return replace(draw.choice(kinds)(draw), supersedes=supersedes or both, steps=not supersedes or both)

    @classmethod
    def of_hand_overs(cls, draw: random.Random) -> Profile:
        """A few orders with several actions each, whose partitions change hands."""
        return cls(
            processes=draw.randint(1, 3),
            partitions=draw.randint(1, 2),
            events=draw.randint(3, 7),
            faults=draw.choice((0, 1, 3, 5)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=draw.choice((0.0, 0.05, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=1000,
            session_s=draw.choice((45.0, 6.0, 3.0)),
        )

    @classmethod
    def of_items(cls, draw: random.Random) -> Profile:
        """Events with several items each, and all that may go wrong between them."""
        processes = draw.choice((1, 1, 2))
        return cls(
            processes=processes,
            partitions=draw.randint(1, processes),
            events=draw.randint(1, 3),
            faults=draw.choice((0, 1, 2, 4)),
            client_error=draw.choice((0.0, 0.2, 0.4)),
            unreliable=draw.choice((0.0, 0.1, 0.25)),
            nesting=draw.choice((0.0, 0.2, 0.5)),
            max_pending=draw.choice((1, 2, 1000)),
            session_s=draw.choice((45.0, 6.0)),
            skew_s=draw.choice((0.0, 0.0, 300.0)),
            items=True,
        )

    @classmethod
    def storm(cls, draw: random.Random) -> Profile:
        """Partitions change hands faster than transactions time out."""
        return cls(
            processes=3,
            partitions=draw.randint(1, 2),
            events=draw.randint(1, 4),
            faults=draw.randint(4, 9),
            client_error=0.1,
            unreliable=draw.choice((0.0, 0.05)),
            nesting=draw.choice((0.2, 0.5)),
            max_pending=1000,
            session_s=draw.choice((3.0, 6.0)),
        )
