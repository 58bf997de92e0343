"""Takes the pictures of pages and terminal in docs/images: `make screenshots`.

Rules:
 1. They show the real pages, with the figures that the tests of the pages have.
 2. They are no part of `make generated`: another browser draws other pixels. The terminal's is text, and the same
    everywhere.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from consumer.admin.fleet_page import fleet_page
from consumer.admin.order_page import order_page
from consumer.commands.status.display import drawn
from tests.browser.test_status_page import Instance
from tests.support.chromium import DARK, LIGHT, picture
from tests.unit.admin import fleet_sample, order_sample, status_sample

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PAGES = {  # by name: which colours the reader likes, and the window
    "status": (LIGHT, (1120, 940)),
    "status-dark": (DARK, (1120, 940)),
    "status-narrow": (LIGHT, (390, 1900)),
}
COLUMNS = 110
TERMINAL = IMAGES / "terminal.svg"


def main() -> None:
    """Take them."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    instance = Instance(changing=False)
    try:
        for name, (colours, size) in PAGES.items():
            (IMAGES / f"{name}.png").write_bytes(picture(instance.url, colours, size=size).png)
    finally:
        instance.server.close()
    take("order", order_page(order_sample.ORDER, order_sample.timeline(), up="../"), (1120, 1420))
    take("fleet", fleet_page(fleet_sample.view()), (1120, 760))
    TERMINAL.write_text(terminal())


def take(name: str, document: str, size: tuple[int, int]) -> None:
    """Take the picture of a page that needs no server."""
    page = IMAGES / f"{name}.html"
    page.write_text(document)
    try:
        (IMAGES / f"{name}.png").write_bytes(picture(page.as_uri(), LIGHT, size=size).png)
    finally:
        page.unlink()


def terminal() -> str:
    """Return what `engage-relay status` draws on a terminal, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(drawn(status_sample.status(), console))
    svg = console.export_svg(title="engage-relay status", unique_id="terminal")
    svg = re.sub(r"@font-face {.*?}\s*", "", svg, flags=re.DOTALL)  # a reader's browser asks nobody for a font
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    main()
