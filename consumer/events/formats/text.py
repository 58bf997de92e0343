"""Bytes to UTF-8 text: what a value is compressed with, and which encoding it has.

Rules:
 1. What is unpacked is bounded: a few bytes of gzip may stand for gigabytes.
 2. A value that is not what the configuration says is undecodable, and is never taken for something else.
"""

from __future__ import annotations

import codecs
import zlib
from typing import Literal

from consumer.events.decoding import Undecodable, begins_like, binary_like

Encoding = Literal["utf-8", "utf-16", "latin-1"]
Compression = Literal["none", "gzip"]

MAX_UNPACKED_BYTES = 16 << 20
"""Of one value: brokers take 1 MiB in a record unless told otherwise, and JSON shrinks to a tenth."""

MAX_GZIP_PARTS = 1_000
"""Of one value. Each costs a copy of what follows it: 50,000 empty ones in 1 MiB held the event loop for seconds."""

_GZIP = 16 + zlib.MAX_WBITS  # with gzip's header and check sum
_PIECE = 1 << 16


def unpacked(value: bytes, compression: Compression) -> bytes | Undecodable:
    """Undo a value's compression."""
    return value if compression == "none" else _gunzipped(value)


def _gunzipped(value: bytes) -> bytes | Undecodable:
    """Unpack gzip, which may be several parts one behind the other (RFC 1952, 2.2)."""
    found = bytearray()
    left, parts = value, 0
    while left:
        parts += 1
        if parts > MAX_GZIP_PARTS:
            return Undecodable(f"gzip of more than {MAX_GZIP_PARTS} parts")
        part = zlib.decompressobj(_GZIP)
        try:
            found += part.decompress(left, MAX_UNPACKED_BYTES + 1 - len(found))
        except zlib.error:
            return Undecodable("not gzip, or damaged")
        if len(found) > MAX_UNPACKED_BYTES:
            return Undecodable(f"gzip of more than {MAX_UNPACKED_BYTES >> 20} MiB")
        if not part.eof:
            return Undecodable("gzip that ends too early")
        left = part.unused_data
    return bytes(found)


def as_utf_8(value: bytes, encoding: Encoding) -> bytes | Undecodable:
    """Return the same text as UTF-8. UTF-16 may begin with a byte order mark, or with a character of ASCII."""
    if encoding == "utf-8":
        return value
    if encoding == "latin-1":
        # Any bytes are Latin-1. What is known to be something else must not become a text that nobody wrote.
        what = binary_like(value) or ("looks like UTF-8" if _is_utf_8(value) else None)
        return _latin_1(value).encode() if what is None else Undecodable(f"not Latin-1: it {what}")
    if not value.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and 0 not in value[:2]:
        return Undecodable(f"not UTF-16: it {begins_like(value)}")
    codec = "utf-16" if value.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else _utf_16_without_mark(value)
    try:
        return value.decode(codec).encode()
    except UnicodeDecodeError as wrong:
        return Undecodable(f"not UTF-16 at byte {wrong.start}")


def _is_utf_8(value: bytes) -> bool:
    """Tell whether bytes above ASCII are UTF-8: as Latin-1 they would be `Ã¥`, which nobody writes."""
    try:
        return not value.isascii() and bool(value.decode())
    except UnicodeDecodeError:
        return False


def _latin_1(value: bytes) -> str:
    """Read Latin-1, with what Windows-1252 has where Latin-1 has nothing to be shown: the sign of the euro."""
    try:
        return value.decode("cp1252")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _utf_16_without_mark(value: bytes) -> str:
    return "utf-16-be" if value[:1] == b"\x00" else "utf-16-le"
