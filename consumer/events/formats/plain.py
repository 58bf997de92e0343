"""The format `plain`: JSON or any other text.

What begins as JSON does (`{`, `[` or a quote) must be JSON, unless it begins with a column in quotes (`"A-1";SHIPPED`).
All else is one text: the event itself, which a route takes apart with `split(event, ';')`, say. The line break at its
end is no part of it: with it the last field would equal nothing.
"""

from __future__ import annotations

import re

from consumer.events.decoding import Undecodable, decode, is_null, looks_like

_BOM = b"\xef\xbb\xbf"
_JSON = (b"{", b"[", b'"')
_QUOTED_COLUMN = re.compile(rb'"[^"]*"(?:"[^"]*")*[;,|\t]')  # RFC 4180: a quote inside is written twice


def read(text: bytes) -> object | Undecodable:
    """Read UTF-8 text."""
    text = text.removeprefix(_BOM)
    if text.lstrip(b" \t\r\n").startswith(_JSON) or is_null(text):
        event = decode(text)
        if not isinstance(event, Undecodable) or _QUOTED_COLUMN.match(text) is None:
            return event
    try:
        return text.decode().rstrip("\r\n")
    except UnicodeDecodeError as wrong:
        what = looks_like(text)
        return Undecodable(f"not UTF-8 at byte {wrong.start}{f': it {what}' if what else ''}")
