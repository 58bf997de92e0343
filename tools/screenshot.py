"""Takes the pictures of the pages: `python -m tools.screenshot` writes docs/images/status.png and order.png."""

from __future__ import annotations

from pathlib import Path

from consumer.admin.order_page import order_page
from tests.browser.test_status_page import Instance
from tests.support.chromium import LIGHT, picture
from tests.unit.admin import order_sample

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    """Take them."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    instance = Instance(changing=False)
    try:
        (IMAGES / "status.png").write_bytes(picture(instance.url, LIGHT, size=(1120, 940)).png)
    finally:
        instance.server.close()
    take_order()


def take_order() -> None:
    """Take the picture of an order's timeline."""
    page = IMAGES / "order.html"
    page.write_text(order_page(order_sample.ORDER, order_sample.timeline(), up="../"))
    try:
        (IMAGES / "order.png").write_bytes(picture(page.as_uri(), LIGHT, size=(1120, 1420)).png)
    finally:
        page.unlink()


if __name__ == "__main__":
    main()
