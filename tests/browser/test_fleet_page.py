"""The page of all instances in a real browser: readable on a phone and in the dark, and it asks nobody but its own."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from consumer.admin import server
from consumer.admin.fleet import Fleet
from consumer.admin.fleet_page import fleet_page
from consumer.admin.server import AdminServer, Health
from tests.browser.test_status_page import MEASURE, WAIT
from tests.support.chromium import DARK, LIGHT, asked_by_the_page, chromium, dom, picture
from tests.unit.admin import fleet_sample, status_sample


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where an instance shows the fleet: itself, and one that is gone."""
    chromium()  # before a server is started in vain
    monkeypatch.setattr(server, "CHECK_S", 0.01)
    others = ["http://127.0.0.1:1"]
    admin = AdminServer(
        ("127.0.0.1", 0),
        CollectorRegistry(),
        lambda: Health({"event_loop": 0.4, "consumer": 0.4}, joined=True),
        lambda: (status_sample.snapshot(), status_sample.flow()),
        fleet=Fleet(others),
    )
    admin.start()
    others.append(f"http://127.0.0.1:{admin.port}")
    yield f"http://127.0.0.1:{admin.port}/fleet"
    admin.close()


def test_it_shows_all_renews_itself_and_asks_nobody_but_its_own_address(url: str) -> None:
    shown = dom(url, WAIT)
    assert "nobody answers at http://127.0.0.1:1: connection refused" in shown
    assert "outlet suspended" in shown
    assert '<body class="lost">' not in shown
    assert asked_by_the_page(url, WAIT) == {url}


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("width", [390, 768])
def test_its_picture_is_as_wide_as_the_page_and_in_the_readers_colours(url: str, width: int, scheme: str) -> None:
    taken = picture(url, scheme, size=(width, 800))
    assert int.from_bytes(taken.png[16:20]) == width
    assert min(taken.corner) > 230 if scheme == LIGHT else max(taken.corner) < 40


@pytest.mark.parametrize("width", [390, 768, 1024])
def test_on_a_narrow_page_nothing_is_cut_and_no_tile_is_empty(tmp_path: Path, width: int) -> None:
    file = tmp_path / "page.html"
    file.write_text(fleet_page(fleet_sample.view()).replace("</body>", MEASURE))
    shown = dom(file.as_uri(), f"--window-size={width},2400")
    (measured,) = re.findall(r"<title>measured:(.*?)</title>", shown)
    assert json.loads(html.unescape(measured)) == [], measured
