"""The account: which requests the simulator got, and which actions it accepted.

It judges every run: whoever claims that nothing was lost or doubled is checked against it.
The relay sends no event id, so whether an action was doubled is for the reader to judge: the account keeps every
acceptance, in order, and counts those that repeat an earlier one of the same order.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from hashlib import sha256

from pydantic_core import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedAction:
    """An accepted action: it was answered 202, or a fault took that answer away.

    `sequence` counts from 1. Seconds since 1970: `tag_ready_at`, when the order's version was processed, and
    `accepted_at`, when the action was accepted. `with_document`: it came as the `orderAction` of a document, and was
    applied when that version was processed. `after_no_contact`: it was refused before, as its order had no contact.
    """

    sequence: int
    order_id: str
    action: str
    version_tag: str
    language: str | None
    data: object
    tag_ready_at: float
    accepted_at: float
    with_document: bool = False
    after_no_contact: bool = False

    def as_json(self) -> dict[str, object]:
        """Return it as the control endpoint shows it."""
        return {
            "sequence": self.sequence,
            "orderId": self.order_id,
            "action": self.action,
            "versionTag": self.version_tag,
            "language": self.language,
            "data": self.data,
            "tagReadyAt": self.tag_ready_at,
            "acceptedAt": self.accepted_at,
            "withDocument": self.with_document,
            "afterNoContact": self.after_no_contact,
        }


class SlidingSecond:
    """Counts what happened in the last second (now - 1 s, now], and the most there ever was."""

    def __init__(self) -> None:
        self.most = 0
        self._moments: deque[float] = deque()

    def count(self, now: float) -> int:
        """Return how many are in the second that ends now. `now` must not go back."""
        moments = self._moments
        while moments and moments[0] <= now - 1:
            moments.popleft()
        return len(moments)

    def add(self, now: float) -> None:
        """Count one more."""
        in_window = self.count(now) + 1
        self._moments.append(now)
        self.most = max(self.most, in_window)


class Account:
    """Everything that a run is judged by; the most requests in any sliding second are kept per key."""

    def __init__(self) -> None:
        self.accepted: list[AcceptedAction] = []
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.integration_log: Counter[str] = Counter()  # what Engage tells nobody but its own log
        self._by_order: dict[str, list[AcceptedAction]] = {}
        self._seconds: dict[str, SlidingSecond] = {}
        self._without_contact: set[bytes] = set()  # actions that were refused for this

    def refused_without_contact(self, order_id: str, action: str, language: str | None, data: object) -> None:
        """Record an action that was refused because its order has no contact."""
        self._without_contact.add(_likeness(order_id, action, language, data))

    def accept(
        self,
        order_id: str,
        action: str,
        version_tag: str,
        language: str | None,
        data: object,
        *,
        tag_ready_at: float,
        now: float,
        with_document: bool = False,
    ) -> None:
        """Record one accepted action."""
        sequence = len(self.accepted) + 1
        entry = AcceptedAction(
            sequence=sequence,
            order_id=order_id,
            action=action,
            version_tag=version_tag,
            language=language,
            data=data,
            tag_ready_at=tag_ready_at,
            accepted_at=now,
            with_document=with_document,
            after_no_contact=_likeness(order_id, action, language, data) in self._without_contact,
        )
        self.accepted.append(entry)
        self._by_order.setdefault(order_id, []).append(entry)

    def asked(self, key: str, now: float) -> None:
        """Count a request that carried this key."""
        second = self._seconds.get(key)
        if second is None:
            second = self._seconds[key] = SlidingSecond()
        second.add(now)

    def of_order(self, order_id: str) -> list[AcceptedAction]:
        """Return the order's accepted actions, in order of acceptance."""
        return list(self._by_order.get(order_id, ()))

    def max_in_a_second(self, key: str) -> int:
        """Return the most requests with this key in any sliding second."""
        return self._seconds[key].most if key in self._seconds else 0

    def repeated(self) -> int:
        """Count acceptances with the same order, action, language and data as an earlier one."""
        return sum(
            len(entries) - len({_likeness(e.order_id, e.action, e.language, e.data) for e in entries})
            for entries in self._by_order.values()
        )

    def summary(self) -> dict[str, object]:
        """Return the counts, without the list. Keys appear as a digest: somebody may have used a real one."""
        requests: dict[str, dict[str, int]] = {}
        for (call, status), times in sorted(self.requests.items()):
            requests.setdefault(call, {})[status] = times
        return {
            "accepted": len(self.accepted),
            "acceptedByAction": dict(Counter(entry.action for entry in self.accepted)),
            "acceptedWithDocument": sum(entry.with_document for entry in self.accepted),
            "acceptedAfterNoContact": sum(entry.after_no_contact for entry in self.accepted),
            "orders": len(self._by_order),
            "repeated": self.repeated(),
            "requests": requests,
            "requestsTotal": self.requests.total(),
            "faults": dict(self.faults),
            "integrationLog": dict(self.integration_log),
            "mostRequestsPerSecond": {key_name(key): second.most for key, second in self._seconds.items()},
        }

    def clear(self) -> None:
        """Forget everything."""
        self.accepted.clear()
        self.requests.clear()
        self.faults.clear()
        self.integration_log.clear()
        self._by_order.clear()
        self._seconds.clear()
        self._without_contact.clear()


def key_name(key: str) -> str:
    """Return a name for an API key that doesn't give it away."""
    return f"key-{sha256(key.encode(errors='replace')).hexdigest()[:8]}"


def _likeness(order_id: str, action: str, language: str | None, data: object) -> bytes:
    return to_json([order_id, action, language, _ordered(data)])


def _ordered(data: object) -> object:
    """Sort the keys of objects, which have no sequence in JSON."""
    match data:
        case dict():
            return {key: _ordered(data[key]) for key in sorted(data)}
        case list():
            return [_ordered(item) for item in data]
        case _:
            return data
