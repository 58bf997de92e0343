"""The Engage under test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.target import Target, named_or_simulated


@pytest.fixture(scope="session")
def _engage() -> Iterator[Target]:
    with named_or_simulated() as target:
        yield target


@pytest.fixture
def engage(_engage: Target) -> Iterator[Target]:
    """Return the Engage under test, in no particular mood."""
    yield _engage.fresh()
    if _engage.controllable:
        _engage.moods()
