"""The terminal's picture in the docs is what `status` draws now, and a reader's browser asks nobody else for it."""

from __future__ import annotations

import re

from tools import screenshots


def test_the_terminals_picture_is_current() -> None:
    assert screenshots.TERMINAL.read_text() == screenshots.terminal(), "make screenshots"


def test_it_shows_the_figures_and_asks_for_nothing() -> None:
    svg = screenshots.terminal()
    assert "outlet" in svg
    assert "url(" not in re.sub(r"url\(#", "", svg)
