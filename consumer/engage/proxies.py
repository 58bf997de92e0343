"""Which proxy stands between us and a host: one that is configured, or the environment's.

`HTTPS_PROXY` and `HTTP_PROXY` go by the scheme of the URL that is asked, in capitals or not. `NO_PROXY` names hosts
that are asked directly: a name (its subdomains with it) or an address, with a port or without, a network, or `*`.
A host on this machine is never asked through the environment's proxy.

A proxy's credentials come with its URL. They are in no repr, log line or error.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes, urlsplit

DIRECT = "none"
WHAT_A_PROXY_IS = "must be http://[user:password@]host[:port]"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `authorization`: what its Proxy-Authorization header says, if anything."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)


def proxy_at(url: str) -> Proxy:
    """Read a proxy's URL. Raises ValueError, whose text holds nothing of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
        if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError
        host = host.encode("idna").decode()
        if not host.isprintable() or " " in host:
            raise ValueError
    except ValueError:
        raise ValueError(WHAT_A_PROXY_IS) from None
    if parts.username is None:
        return Proxy(host, port)
    credentials = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return Proxy(host, port, b"Basic " + base64.b64encode(credentials))


def proxy_for(host: str, port: int, *, secure: bool, environment: Mapping[str, str]) -> Proxy | None:
    """Return the environment's proxy for a host. Raises ValueError, which names the variable."""
    names = ("HTTPS_PROXY", "https_proxy") if secure else ("HTTP_PROXY", "http_proxy")
    name = next((name for name in names if environment.get(name)), None)
    if name is None or _is_local(host):
        return None
    excluded = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if any(_matches(each.strip(), host, port) for each in excluded.split(",")):
        return None
    url = environment[name]
    try:
        return proxy_at(url if "://" in url else f"http://{url}")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _is_local(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host.lower().rstrip(".") == "localhost"


def _matches(pattern: str, host: str, port: int) -> bool:
    if not pattern or pattern == "*":
        return pattern == "*"
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(pattern.strip("[]"), strict=False)
        except ValueError:
            pass  # perhaps an address with a port
    name, colon, number = pattern.rpartition(":")
    if colon and number.isdecimal():
        if int(number) != port:
            return False
        pattern = name
    if address is not None:
        return _address(pattern.strip("[]")) == address
    name = pattern.lower().removeprefix("*").strip(".")
    host = host.lower().rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
