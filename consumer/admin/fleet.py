"""EDGE. All instances, each asked for its status: what /fleet and `status --all` show.

Rules:
 1. A name stands for all of its addresses, as a headless service's does. Each address is asked once, all at once.
 2. One that does not answer within TIMEOUT_S is named, too, and why.
 3. Nobody is asked for more than /status.json, so no instance asks further ones.
 4. However many look at /fleet, instances are asked once at a time, and not again within FRESH_S.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from consumer.admin.status_model import Status
from consumer.admin.words import number
from consumer.engage.connection import Failure
from consumer.engage.http import HttpEngine, Origin

TIMEOUT_S = 5.0
FRESH_S = 2.0
MAX_INSTANCES = 256  # at /fleet; a group has no more than the source has partitions


class StatusError(Exception):
    """There is no status to be had. Its text says where and why."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What an address answered: its status, or why there is none."""

    address: str
    status: Status | None
    why: str = ""


def addresses(urls: Iterable[str]) -> list[str]:
    """Return the URL of each address behind these.

    Raises ValueError where one is no URL, and StatusError where its host has no address (now).
    """
    found: list[str] = []
    for text in urls:
        origin = _origin(text)
        try:
            behind = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        except OSError:
            raise StatusError(f"nobody answers at {text}: host name could not be resolved") from None
        if origin.secure:  # its certificate is for the name, so the name is asked
            found.append(text.rstrip("/"))
            continue
        path = urlsplit(text).path.rstrip("/")
        for address in (str(each[4][0]) for each in behind):
            host = f"[{address}]" if ":" in address else address
            found.append(f"http://{host}:{origin.port}{path}")
    return list(dict.fromkeys(found))


def _origin(url: str) -> Origin:
    """Return an admin server's address. Raises ValueError where it is none."""
    try:
        return Origin(url)
    except ValueError:
        raise ValueError(f"{url}: must be http://host:port") from None


def fetch(url: str) -> Status:
    """Ask the relay whose admin server is at `url`. Raises StatusError, or ValueError where that is no URL."""
    _origin(url)
    (found,) = asked([url])
    if found.status is None:
        raise StatusError(found.why)
    return found.status


def asked(urls: Sequence[str]) -> list[Instance]:
    """Ask each for its status. In the order of the instances' names, those without an answer last."""

    async def all_of_them() -> list[Instance]:
        return await asyncio.gather(*map(_ask, urls))

    found = asyncio.run(all_of_them())
    return sorted(found, key=lambda each: (each.status is None, each.status.instance if each.status else each.address))


async def _ask(url: str) -> Instance:
    origin = _origin(url)
    engine = HttpEngine(origin=origin, timeout_s=TIMEOUT_S)  # its own address, not what lies beyond a proxy
    headers = [
        (b"host", origin.host_header),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"identity"),
    ]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await engine.exchange("order", b"GET", origin.prefix + b"/status.json", headers)
    except TimeoutError:
        return Instance(url, None, f"nobody answers at {url} within {TIMEOUT_S:g} s")
    finally:
        await engine.aclose()
    if isinstance(answer, Failure):
        return Instance(url, None, f"nobody answers at {url}: {answer.why}")
    if answer.status == 200:
        try:
            return Instance(url, Status.model_validate_json(answer.body))
        except ValidationError:
            pass
    return Instance(url, None, f"{url} answers {answer.status}, but no status: is it the relay's admin.listen?")


@dataclass(frozen=True, slots=True)
class View:
    """All instances at one moment. `gaps`: why there may be more."""

    instances: list[Instance]
    gaps: list[str]

    def as_json(self) -> dict[str, object]:
        """Return what a program reads."""
        return {
            "together": together(self.instances),
            "attention": [*attention(self.instances), *disagreements(self.instances)],
            "gaps": self.gaps,
            "instances": [whole(each) for each in self.instances],
        }


class Fleet:
    """Shows all instances behind the configured addresses. May be called from any thread."""

    def __init__(self, urls: Sequence[str]) -> None:
        """`urls`: as `status --all` is given them."""
        self._urls = urls
        self._asking = threading.Lock()
        self._last: tuple[float, View] | None = None

    def look(self) -> View | None:
        """Ask all instances, or return what they said a moment ago (rule 4); None: somebody asks, come back."""
        if not self._asking.acquire(timeout=TIMEOUT_S):
            return None
        try:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                view = self._view()
                self._last = time.monotonic(), view
            return self._last[1]
        finally:
            self._asking.release()

    def _view(self) -> View:
        found: list[str] = []
        gaps: list[str] = []
        for url in self._urls:
            try:
                found += addresses([url])
            except (ValueError, StatusError) as error:
                gaps.append(str(error))
        known = list(dict.fromkeys(found))
        if len(known) > MAX_INSTANCES:
            gaps.append(f"{len(known) - MAX_INSTANCES} more addresses are not asked")
        return View(asked(known[:MAX_INSTANCES]), gaps)


def whole(instance: Instance) -> dict[str, object]:
    """Return all that is known of an instance."""
    status = None if instance.status is None else instance.status.model_dump(mode="json")
    return {"address": instance.address, "why": instance.why, "status": status}


def answered(found: Iterable[Instance]) -> list[Status]:
    """Return what the instances said that answer."""
    return [each.status for each in found if each.status is not None]


def together(found: Iterable[Instance]) -> str:
    """Say what all instances that answer have together."""
    known = answered(found)
    partitions, pending = sum(len(each.partitions) for each in known), sum(each.pending.open for each in known)
    return (
        f"{len(known)} instances own {partitions} partitions; {number(pending)} actions are pending, "
        f"lag {number(sum(each.source.lag for each in known))}"
    )


def attention(found: Iterable[Instance]) -> list[str]:
    """Say what to look at, each thing once, with the instances that say it. What most of them say comes first."""
    said: dict[str, list[str]] = {}
    for each in found:
        if each.status is not None:
            for what in each.status.attention:
                said.setdefault(what, []).append(each.status.instance or each.address)
    return [f"{', '.join(who)}: {what}" for what, who in sorted(said.items(), key=lambda item: -len(item[1]))]


def disagreements(found: Sequence[Instance]) -> list[str]:
    """Say what should be the same of all instances and is not, and which partitions more than one of them own."""
    known = answered(found)
    owners: dict[tuple[str, str, int], list[str]] = {}
    for status in known:
        for each in status.partitions:
            owners.setdefault((status.group, each.topic, each.partition), []).append(status.instance)
    said = [
        f"{topic}[{partition}] is owned by {' and by '.join(names)}: it changes hands now, or one of them is stuck"
        for (_, topic, partition), names in sorted(owners.items())
        if len(names) > 1
    ]
    for name in ("version", "group", "cluster"):
        different = sorted({str(value) for each in known if (value := getattr(each, name))})
        if len(different) > 1:
            said.append(f"the instances have more than one {name}: {', '.join(different)}")
    return said
