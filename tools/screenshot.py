"""Takes README's picture of the status page: `python -m tools.screenshot` writes docs/images/status.png."""

from __future__ import annotations

from pathlib import Path

from tests.browser.test_status_page import Instance
from tests.support.chromium import LIGHT, picture

FILE = Path(__file__).parents[1] / "docs" / "images" / "status.png"


def main() -> None:
    """Take it."""
    instance = Instance(changing=False)
    try:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_bytes(picture(instance.url, LIGHT, size=(1120, 940)).png)
    finally:
        instance.server.close()


if __name__ == "__main__":
    main()
