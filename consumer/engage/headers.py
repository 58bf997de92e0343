"""What an HTTP header may be, and which of them a user may add to each request."""

from __future__ import annotations

import re

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1
VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # RFC 9110, 5.5, without its obsolete bytes above ASCII

# What the client says itself, and what belongs to the connection or the body (RFC 9110, 7.6.1).
_RESERVED = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "traceparent",
        "tracestate",
        "upgrade",
        "user-agent",
    }
)


def is_reserved(name: str) -> bool:
    """Say whether the relay sets this header itself, or none may be set."""
    return name.lower() in _RESERVED or name.lower().startswith("content-")
