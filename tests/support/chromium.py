"""Chromium without a window: what a page looks like, what becomes of its document, and what it asks for meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.downloads import UnavailableError, alone, last_line, needed, said

RUN_TIMEOUT_S = 90.0
INSTALL_TIMEOUT_S = 600.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
DARK, LIGHT = "--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1"


@cache
def chromium() -> str:
    """Return the browser's path. In CI it is installed where it is missing; elsewhere the test is skipped."""
    return needed("chromium", _found)


def _found() -> str:
    if found := _on_the_path():
        return found
    if os.environ.get("CI"):
        with alone("chromium"):  # two at once would meet at dpkg's lock
            if not _on_the_path():
                _install()
        if found := _on_the_path():
            return found
    raise UnavailableError("Debian has it: apt-get install --no-install-recommends chromium")


def _on_the_path() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def _install() -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        code, text = said([*sudo, "apt-get", *arguments], cwd=Path("/"), timeout_s=INSTALL_TIMEOUT_S)
        if code != 0:
            raise UnavailableError(f"apt-get {arguments[0]}: {last_line(text)}")


def run(url: str, *options: str) -> str:
    """Have it open a page, with a profile of its own; returns what it writes to stdout."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [chromium(), *OPTIONS, f"--user-data-dir={profile}", *options, url],
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dom(url: str, *options: str) -> str:
    """Return the document as it is when all is loaded and, with --virtual-time-budget, when that time is over."""
    return run(url, "--dump-dom", *options)


@dataclass(frozen=True)
class Picture:
    """A screenshot."""

    png: bytes

    @property
    def corner(self) -> tuple[int, int, int]:
        """The colour at the top left, which every one of PNG's filters leaves as it is."""
        data, at = b"", 8
        while at < len(self.png):
            length = int.from_bytes(self.png[at : at + 4])
            if self.png[at + 4 : at + 8] == b"IDAT":
                data += self.png[at + 8 : at + 8 + length]
            at += length + 12
        red, green, blue = zlib.decompress(data)[1:4]
        return red, green, blue


def picture(url: str, *options: str, size: tuple[int, int] = (1180, 900)) -> Picture:
    """Return what it looks like."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "page.png"
        run(url, f"--screenshot={file}", f"--window-size={size[0]},{size[1]}", *options)
        return Picture(file.read_bytes())


def asked_by_the_page(url: str, *options: str) -> set[str]:
    """Return every URL that was asked for on the page's behalf, whether it was allowed or not."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "net.json"
        run(url, "--dump-dom", f"--log-net-log={file}", *options)
        log = json.loads(file.read_text())
    request = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    told = [each["params"] for each in log["events"] if each["type"] == request and "url" in each.get("params", {})]
    origin = "/".join(url.split("/")[:3])
    return {each["url"] for each in told if each["url"] == url or each.get("initiator") == origin}
