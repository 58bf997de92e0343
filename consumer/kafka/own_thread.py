"""What looks at Kafka beside the relay's work: on a thread of its own, from `start` to `stop`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

STOP_S = 2.0  # a call to a broker that does not answer is not waited for


class OwnThread(ABC):
    """Runs `_run` once, which ends soon after `_stopping` is set."""

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End. What a broker does not answer now is not waited for."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    @abstractmethod
    def _run(self) -> None:
        """Do it, on the thread."""
