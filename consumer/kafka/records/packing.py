"""Payloads in memory, compressed: an event and its action have much in common, and so have all of them.

That saves two thirds for 7 microseconds, and keeps a pending action under 1 KiB. The latest ones are kept as they were,
too: an action's intent, its request and its outcome follow close on one another.
"""

from __future__ import annotations

import zlib

# What most payloads have in common, the most common part last. It packs memory only, so it may change at any time.
_SKELETON = (
    b'"carrier":"","trackingNumber":"","trackingUri":"https://'
    rb"\"language\":\"\"occurredAt\":\"20\"engage\":{\"jobId\":\"\"data\":{\"\"orderId\":\"{\"version\":1,\"type\":\"order."
    b'{"route":"","connection":"default","order_id":"","action":"Confirm","language":"","data":{},'
    b'"tag_source":{"kind":"job","job_id":""},"on_unknown":"resend","event_time_ms":17,'
    b'"source":{"topic":"orders","partition":0,"offset":1,"timestamp_ms":17,"key":{"text":""},"value":{"text":"{'
)
_WINDOW_BITS, _MEMORY_LEVEL = -12, 5  # 4 KiB back is far enough; the usual 256 KiB would have to be cleared each time
_MAX_LATEST, _MAX_LATEST_BYTES = 512, 4096  # 2 MiB at most
_latest: dict[bytes, bytes] = {}  # packed payloads -> what they hold; for all threads


def packed(payload: bytes) -> bytes:
    """Return the payload as it is kept in memory."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zdict=_SKELETON)
    return packer.compress(payload) + packer.flush()


def unpacked(payload: bytes) -> bytes:
    """Return a payload's JSON."""
    latest = _latest.get(payload)
    if latest is None:
        latest = zlib.decompressobj(_WINDOW_BITS, zdict=_SKELETON).decompress(payload)
        note_latest(payload, latest)
    return latest


def note_latest(in_memory: bytes, payload: bytes) -> None:
    """Keep what a payload holds for a while: it is needed soon."""
    if len(payload) <= _MAX_LATEST_BYTES:
        if len(_latest) >= _MAX_LATEST:
            _latest.clear()
        _latest[in_memory] = payload
