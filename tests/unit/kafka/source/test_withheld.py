"""Who joins again for partitions that a stable group gives to nobody."""

from __future__ import annotations

from dataclasses import replace

from consumer.kafka.source.withheld import LOOKS, Look, Withheld

WITHHELD = Look(stable=True, unowned=3, names=["relay-1", "relay-0"])


def rejoins(name: str, *looks: Look) -> list[int]:
    """Return at which looks this member is to join again, counted from 1."""
    withheld = Withheld(name)
    return [number for number, look in enumerate(looks, 1) if withheld.saw(look)]


def test_one_member_after_the_other_joins_again_until_it_helps() -> None:
    looks = [WITHHELD] * 4 * LOOKS
    assert rejoins("relay-0", *looks) == [LOOKS, 3 * LOOKS]
    assert rejoins("relay-1", *looks) == [2 * LOOKS, 4 * LOOKS]


def test_what_passes_by_itself_makes_nobody_join_again() -> None:
    almost = [WITHHELD] * (LOOKS - 1)
    moving = replace(WITHHELD, stable=False)
    well = replace(WITHHELD, unowned=0)
    assert rejoins("relay-0", *almost, moving, *almost, well, *almost) == []


def test_a_member_that_the_group_does_not_name_has_nothing_to_decide() -> None:
    assert rejoins("relay-2", *[WITHHELD] * 9) == []
