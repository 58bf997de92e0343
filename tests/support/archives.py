"""Archives of what we trust: our own commits, and downloads whose hash is pinned."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(archive: tarfile.TarFile, into: Path) -> None:
    """Unpack it there. Python before 3.11.4, such as Debian 12's, has no filters (PEP 706)."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(into, filter="data")
    else:
        archive.extractall(into)
