"""For `status --all`: every instance behind one name, side by side.

Rules:
 1. A name stands for all of its addresses, as a headless service's does. Each address is asked once, all at once.
 2. An instance that does not answer has a row, too: it says so.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from consumer.admin.status import Status, duration, now_of, number
from consumer.commands.status.display import StatusError, fetch

MAX_AT_ONCE = 32

COLUMNS = (
    "instance",
    "state",
    "version",
    "group",
    "cluster",
    "partitions",
    "pending",
    "oldest",
    "lag",
    "connections",
    "address",
)
OPTIONAL = ("cluster", "address", "group", "version", "lag", "oldest")  # that a narrow terminal does without


@dataclass(frozen=True, slots=True)
class Instance:
    """What an address answered: its status, or why there is none."""

    address: str
    status: Status | None
    why: str = ""


def addresses(urls: Iterable[str]) -> list[str]:
    """Return the URL of each address behind these. Raises ValueError where one is no URL or its host has none."""
    found: list[str] = []
    for text in urls:
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise ValueError(f"{text}: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{text}: must be http://host:port")
        try:
            behind = socket.getaddrinfo(url.host, url.port or 80, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"{text}: {error.strerror or error}") from None
        # With TLS the certificate is for the name, so the name is asked.
        names = [url.host] if url.scheme == "https" else [str(each[4][0]) for each in behind]
        found += [str(url.copy_with(host=name)).rstrip("/") for name in names]
    return list(dict.fromkeys(found))


def asked(urls: Sequence[str]) -> list[Instance]:
    """Ask each for its status. In the order of the instances' names, those without an answer last."""
    with ThreadPoolExecutor(max_workers=MAX_AT_ONCE) as threads:
        found = list(threads.map(_asked, urls))
    return sorted(found, key=lambda each: (each.status is None, each.status.instance if each.status else each.address))


def _asked(url: str) -> Instance:
    try:
        return Instance(url, fetch(url))
    except (StatusError, ValueError) as error:
        return Instance(url, None, str(error))


def row(instance: Instance) -> dict[str, object]:
    """Return an instance's row."""
    status = instance.status
    if status is None:
        return {**dict.fromkeys(COLUMNS, ""), "state": "no answer", "address": instance.address}
    oldest = status.pending.oldest
    return {
        "instance": status.instance,
        "state": status.state,
        "version": status.version,
        "group": status.group,
        "cluster": status.cluster,
        "partitions": len(status.partitions),
        "pending": number(status.pending.open),
        "oldest": None if oldest is None else duration((now_of(status) - oldest).total_seconds()),
        "lag": number(status.source.lag),
        "connections": ", ".join(f"{each.name} {each.state}" for each in status.connections),
        "address": instance.address,
    }


def whole(instance: Instance) -> dict[str, object]:
    """Return all that is known of an instance."""
    status = None if instance.status is None else instance.status.model_dump(mode="json")
    return {"address": instance.address, "why": instance.why, "status": status}


def together(found: Iterable[Instance]) -> str:
    """Say what all instances that answer have together."""
    known = [each.status for each in found if each.status is not None]
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
    known = [each.status for each in found if each.status is not None]
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
