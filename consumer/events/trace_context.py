"""W3C trace context (https://www.w3.org/TR/trace-context/), as a record's headers carry it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"(?=.{1,512}\Z)[\x21-\x7e][\x20-\x7e]*=[\x20-\x7e]+")


def trace_context(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str] | None:
    """Read W3C trace context (https://www.w3.org/TR/trace-context/); a malformed one counts as absent."""
    parent = state = None
    for name, value in headers:
        if name == "traceparent":
            parent = value
        elif name == "tracestate":
            state = value
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return None
    context = {"traceparent": parent.decode("ascii")}
    if state is not None and _TRACESTATE.fullmatch(state):
        context["tracestate"] = state.decode("ascii")
    return context
