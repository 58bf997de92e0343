"""What comes back on a connection, read without I/O: bytes in, an answer or a fault out.

llhttp (by httptools) does the parsing. Around it stand the decisions that it leaves to its user, or takes too lightly:

 1. The last byte of each read is parsed by itself. An answer that was complete before it has bytes behind it: they
    must never be read as the answer to the next request, so the connection is done.
 2. An answer without a length ends with the connection. Who calls us says when that is (`end`).
 3. An answer has limits: `MAX_BODY_BYTES` in all, `MAX_FRAMING_BYTES` without a byte of body, no compression.
 4. What two parsers could read differently is no answer: a transfer coding other than `chunked`, an informational
    answer with a body, another version than HTTP/1.0 and 1.1. A 204 or 304 has no body, whatever it says.

Where it is stricter than others is listed by tests/contract/test_answers.py, which compares it with h11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# Counted on the wire, head and framing included: what one answer may cost in memory.
MAX_BODY_BYTES = 1 << 20
# A head, or what stands between two pieces of a body.
MAX_FRAMING_BYTES = 64 << 10
# Of an answer's beginning so much is kept until its status line is known; informational answers may come before it.
MAX_STATUS_LINE_BYTES = 8 << 10

FailureKind = Literal["connect", "timeout", "closed", "garbage", "oversized", "encoded", "withdrawn"]
Headers = list[tuple[bytes, bytes]]

_BLANKS = b" \t"  # around a header's value, and no part of it (RFC 9110, 5.5); llhttp leaves those behind it
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. `headers`: all of them, with names in lower case.

    `secret`: what nobody may be shown of the body, which is read as it came.
    """

    status: int
    body: bytes
    location: str | None = None
    retry_after: str | None = None
    keep_alive: bytes | None = field(default=None, compare=False, repr=False)
    headers: Headers = field(default_factory=list, compare=False, repr=False)
    secret: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why what came is no answer. `why` never holds what came over the wire."""

    kind: FailureKind
    why: str


GARBAGE = Fault("garbage", "answer was not HTTP")
OVERSIZED = Fault("oversized", f"answer was longer than {MAX_BODY_BYTES} bytes")
ENCODED = Fault("encoded", "answer was compressed, though identity was asked for")


def says_enough(status: int | None) -> bool:
    """Say whether a status line alone decides of an action: 202, and a 4xx, with which it was refused."""
    return status is not None and (status == 202 or 400 <= status < 500)


class AnswerReader:
    """Reads the answers of one connection, one after the other. `begin` before each request."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Forget the former answer."""
        self.received_bytes = 0
        self.reusable = False
        """Whether the connection may carry another request; known once `feed` has returned an answer."""
        self._beginning = b""
        self._framing_bytes = 0
        self._headers: Headers = []
        self._fields: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._status = 0
        self._ends_with_connection = False
        self._result: Response | Fault | None = None

    def feed(self, data: bytes) -> Response | Fault | None:
        """Read on; None while the answer is not complete."""
        size = len(data)
        self.received_bytes += size
        self._framing_bytes += size
        if len(self._beginning) < MAX_STATUS_LINE_BYTES:
            self._beginning += data[: MAX_STATUS_LINE_BYTES - len(self._beginning)]
        if self.received_bytes > MAX_BODY_BYTES:
            return OVERSIZED
        early = False
        try:
            if size > 1:
                self._parser.feed_data(data[:-1])
                early = self._result is not None
            self._parser.feed_data(data[-1:])
        except (HttpParserError, HttpParserUpgrade):
            if self._result is None:
                return GARBAGE
            early = True  # the answer was read; what is wrong lies behind it
        if early:
            self.reusable = False
        if self._result is None and self._framing_bytes > MAX_FRAMING_BYTES:
            return GARBAGE
        return self._result

    def end(self) -> Response | None:
        """Return the answer that is complete now that the connection has ended, if it is."""
        return self._response() if self._ends_with_connection else None

    def status_seen(self) -> int | None:
        """Return what the status line said, also where the answer is of no use; None where it was not complete."""
        beginning = self._beginning
        while line := _STATUS_LINE.match(beginning):
            status = int(line[1])
            if status >= 200:
                return status
            _, _, beginning = beginning.partition(b"\r\n\r\n")
        return None

    # What llhttp calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer behind a chunked body (which says nothing to us)."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide how the answer ends, and refuse what could be read in two ways."""
        if self._result is not None:
            return
        fields = self._fields = {
            name: value.strip(_BLANKS) for name, value in self._headers
        }  # of a repeated one the last
        status = self._status = self._parser.get_status_code()
        # Behind a tab, llhttp does not see that it is `chunked`: it would give the chunks as the body.
        codings = [value.rstrip(b" ").lower() for name, value in self._headers if name == b"transfer-encoding"]
        framed = b"content-length" in fields or bool(codings)
        if (
            self._parser.get_http_version() not in ("1.0", "1.1")
            or not self._beginning.startswith(b"HTTP/")
            or codings not in ([], [b"chunked"])
            or (status < 200 and (status == 101 or framed))
        ):
            self._result = GARBAGE
        elif fields.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            self._result = ENCODED
        elif status in (204, 304) and framed:
            self._result = self._response()
        elif status >= 200 and status not in (204, 304):
            self._ends_with_connection = not framed

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._framing_bytes = 0
        self._body.append(body)

    def on_chunk_header(self) -> None:
        """Begin a chunk."""
        self._framing_bytes = 0

    def on_message_complete(self) -> None:
        """Take the answer as it stands; an informational one is forgotten."""
        if self._result is not None:
            return
        if self._status < 200:
            self._headers = []
            return
        self.reusable = self._parser.should_keep_alive()  # true at this moment only
        self._result = self._response()

    def _response(self) -> Response:
        fields = self._fields
        location, retry_after = fields.get(b"location"), fields.get(b"retry-after")
        return Response(
            self._status,
            b"".join(self._body),
            None if location is None else location.decode("latin-1"),
            None if retry_after is None else retry_after.decode("latin-1"),
            fields.get(b"keep-alive"),
            self._headers,
        )
