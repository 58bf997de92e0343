"""How a host is written: as a name, or as an address."""

from __future__ import annotations

import ipaddress
import re

HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address; None where it is none."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
