"""The API key of a connection: written down, or in a file that is rewritten when the key is rotated.

Nothing here shows the key: not in a repr, not in an error.
"""

from __future__ import annotations

import re
import stat
import time
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

CHECK_S = 1.0
MAX_KEY_BYTES = 8 << 10
# What engage.py puts into a header: printable, no space. (RFC 9110, 5.5 allows spaces within; no key has one.)
LEGAL_KEY = re.compile(r"[!-~]+")


class ApiKey:
    """Gives the key as it is now. A file is looked at once a second at most, and read when it changed."""

    def __init__(self, key: SecretStr | Path, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is seconds on a clock that never jumps."""
        self._file = key if isinstance(key, Path) else None
        self._key = "" if isinstance(key, Path) else key.get_secret_value()
        self._now = now
        self._looked_at = float("-inf")
        self._version: tuple[int, int, int] | None = None

    def current(self) -> str:
        """Return the key, without the byte order mark and the newline that an editor adds to its file.

        Raises OSError where the file cannot be read, ValueError where it holds no key; the next call looks again.
        """
        if self._file is None or self._now() - self._looked_at < CHECK_S:
            return self._key
        # Inode and size as well as the time: a rotation within the clock's grain, or by a symlink, is seen too.
        found = self._file.stat()
        version = (found.st_mtime_ns, found.st_ino, found.st_size)
        if version != self._version:
            if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for its writer
                raise ValueError(f"{self._file} is not a regular file")
            self._key = _read(self._file)
            self._version = version
        self._looked_at = self._now()
        return self._key


def _read(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_KEY_BYTES + 1)
    key = raw.removeprefix(BOM_UTF8).decode("latin-1").rstrip("\r\n")
    if len(raw) > MAX_KEY_BYTES or not LEGAL_KEY.fullmatch(key):
        raise ValueError(f"{path} must hold the API key alone: printable ASCII without spaces")
    return key
