"""EDGE. The files that clients log in to the brokers with, and whether they hold something else by now.

librdkafka takes a password, a key or a certificate when a client is created, and keeps it. Once these were replaced,
each new connection of that client is refused, for ever. What was created after that has the new ones.

Rule: a file that changed ends nothing by itself, as the former password may be good for days. A login that is refused
does, if its file changed before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from confluent_kafka import KafkaError

from consumer.kafka.clients import Properties

# With TLS 1.3 a client hears only behind its handshake that its certificate is refused: an alert comes in place of the
# first answer. librdkafka calls that a failed transport, in OpenSSL's words.
_ALERT = "SSL routines:"
_REFUSALS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})


class LoginFiles:
    """Remembers what the files held when it was created. Create it before the clients that it is about."""

    def __init__(self, kafka: Properties) -> None:
        self._files = {name: str(path) for name, path in kafka.items() if name.endswith((".file", ".location"))}
        self._held = {name: _digest(path) for name, path in self._files.items()}

    def outdated_by(self, error: KafkaError) -> list[str]:
        """Return the properties whose files changed, where the error is a refused login; else none."""
        if error.code() not in _REFUSALS and _ALERT not in error.str():
            return []
        return [name for name, path in self._files.items() if _digest(path) not in (None, self._held[name])]


def _digest(path: str) -> bytes | None:
    """Return what tells a file's content from another one; None: it cannot be read, or is a directory."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except (OSError, ValueError):
        return None
