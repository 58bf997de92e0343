"""The status page in a real browser: it shows what it should, renews itself, and asks nobody else for anything."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from consumer.admin import server
from consumer.admin.page import page
from consumer.admin.server import AdminServer, Health
from consumer.admin.status import status_of
from consumer.core.poll_plan import Figures
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import Snapshot
from tests.support.chromium import DARK, LIGHT, asked_by_the_page, chromium, dom, picture
from tests.unit.admin import status_sample

WAIT = "--virtual-time-budget=9000"  # four renewals


class Instance:
    """The admin server of a busy instance; where it is `changing`, each answer shows another pending action."""

    def __init__(self, *, changing: bool = True) -> None:
        self.changing = changing
        self.asked = 0
        self.closes_after = 1000
        self.flow = status_sample.flow()
        health = Health({"event_loop": 0.4, "consumer": 0.4}, joined=True)
        self.server = AdminServer(("127.0.0.1", 0), CollectorRegistry(), lambda: health, self.published)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}/status"

    def published(self) -> tuple[Snapshot, Flow]:
        self.asked += 1
        if self.asked > self.closes_after:
            raise ConnectionError("gone")
        if not self.changing:
            return status_sample.snapshot(), self.flow
        return replace(status_sample.snapshot(), pending={"waiting": 1000 + self.asked}), self.flow


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    chromium()  # before a server is started in vain
    monkeypatch.setattr(server, "CHECK_S", 0.01)
    instance = Instance()
    yield instance
    instance.server.close()


def test_the_page_shows_the_figures(instance: Instance) -> None:
    shown = dom(instance.url)
    assert "1,001" in shown
    assert "Connection outlet is suspended" in shown
    assert len(re.findall('<path class="(?:first|second)" d="M', shown)) == 7


def test_it_renews_itself(instance: Instance) -> None:
    shown = dom(instance.url, WAIT)
    assert instance.asked >= 3
    assert f"{1000 + instance.asked:,}" in shown
    assert "1,001" not in shown
    assert '<body class="">' in shown or "<body>" in shown


def test_it_says_so_when_the_relay_does_not_answer_any_more(instance: Instance) -> None:
    instance.closes_after = 2
    shown = dom(instance.url, WAIT)
    assert "1,002" in shown
    assert '<body class="lost">' in shown


def test_it_asks_nobody_but_its_own_address_and_that_only_for_the_status(instance: Instance) -> None:
    assert asked_by_the_page(instance.url, WAIT) == {instance.url}


def test_what_a_page_asks_others_for_would_be_seen(instance: Instance) -> None:
    class Greedy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<img src={instance.url}>".encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Greedy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        assert instance.url in asked_by_the_page(url)
        server.shutdown()


def test_it_is_light_or_dark_as_the_reader_wants(instance: Instance) -> None:
    light, dark = picture(instance.url, LIGHT).corner, picture(instance.url, DARK).corner
    assert min(light) > 230
    assert max(dark) < 40


def test_the_root_leads_to_it(instance: Instance) -> None:
    assert "Connection outlet is suspended" in dom(instance.url.removesuffix("status"))


# -- narrow pages -------------------------------------------------------------------------------------------------

# What is wider than the page, and what of a text reaches out of its own box. The page's policy would not run this
# script, so it is asked of the same document from a file.
MEASURE = """<script>
const out = [];
for (const each of document.querySelectorAll("main *")) {
  if (each.closest("svg") || each.closest("thead")) continue;
  const box = each.getBoundingClientRect();
  const name = each.tagName + " " + each.textContent.trim().slice(0, 30);
  if (box.right > innerWidth + 1) out.push("beyond the page: " + name);
  if (each.scrollWidth > each.clientWidth + 1 && each.clientWidth) out.push("cut: " + name);
}
const tiles = [...document.querySelectorAll(".figures > div")].map(each => each.getBoundingClientRect());
const row = document.querySelector(".figures").getBoundingClientRect();
if (Math.abs(Math.max(...tiles.slice(-1).map(each => each.right)) - row.right) > 3) out.push("an empty tile");
document.title = "measured:" + JSON.stringify(out);
</script></body>"""


@pytest.mark.parametrize("width", [390, 768, 1024])
def test_on_a_narrow_page_nothing_is_cut_and_no_tile_is_empty(tmp_path: Path, width: int) -> None:
    busy = status_sample.snapshot()
    plan = Figures(median_s=459.0, p95_s=1_234.5, polls=2.0, lateness_s=1.0, seen_lateness_s=123.4, price=1.0)
    slow = replace(busy.connections["nordics"], plan=plan)
    snapshot = replace(
        busy,
        connections={**busy.connections, "a-connection-with-quite-a-long-name": slow},
        first_seen={int((status_sample.NOW - 459) // 10): 122},
        dead_letters_waiting={"orders": 1_234},
    )
    text = page(status_of((snapshot, status_sample.flow()), version="0.1.0", age_s=0.4))
    file = tmp_path / "page.html"
    file.write_text(text.replace("</body>", MEASURE))
    shown = dom(file.as_uri(), f"--window-size={width},2400")
    (measured,) = re.findall(r"<title>measured:(.*?)</title>", shown)
    assert json.loads(html.unescape(measured)) == [], measured
    assert "7 min 39 s" in shown


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("width", [390, 768])
def test_its_picture_is_as_wide_as_the_page(instance: Instance, width: int, scheme: str) -> None:
    png = picture(instance.url, scheme, size=(width, 800)).png
    assert int.from_bytes(png[16:20]) == width
