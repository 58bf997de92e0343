"""The folder with a configuration file that most tests here write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.workspace import Workspace


@pytest.fixture
def relay(tmp_path: Path) -> Workspace:
    """Return a folder to write relay.yaml in."""
    return Workspace(tmp_path)
