"""docs/images/frontier.svg is what its command draws."""

from __future__ import annotations

import pytest

from tools import frontier


@pytest.mark.long
def test_the_picture_of_the_frontier_is_current() -> None:
    assert frontier.same(frontier.FILE.read_text(), frontier.picture()), "run python -m tools.frontier"


def test_a_picture_with_another_point_is_noticed() -> None:
    drawn = frontier.FILE.read_text()
    assert not frontier.same(drawn, drawn.replace('r="5"', 'r="50"', 1))
    assert not frontier.same(drawn, drawn.replace("learnt", "fixed", 1))
