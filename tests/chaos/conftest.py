"""Stages on a real broker. See stage.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.broker.conftest import bootstrap_servers, sandboxes
from tests.chaos.stage import Stage, StageFactory, staged
from tests.support.sandbox import SandboxFactory

__all__ = ["bootstrap_servers", "sandboxes"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this directory: `pytest -m "not broker"` leaves it out."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.broker)


@pytest.fixture
def stages(sandboxes: SandboxFactory, tmp_path: Path) -> Iterator[StageFactory]:
    """Return a factory of stages: `stages(partitions=3, rate_limit=200, engage={...}, kafka={...})`."""
    with ExitStack() as closing:

        def make(*, partitions: int = 3, sandbox: object = None, **options: object) -> Stage:
            where = sandboxes(partitions=partitions) if sandbox is None else sandbox
            return closing.enter_context(staged(where, tmp_path, **options))  # type: ignore[arg-type]

        yield make
