"""The section `admin`: where the HTTP server of the status page, the metrics and the probes listens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from consumer.config.sections.hosts import HOST_NAME, ip_address
from consumer.config.sections.section import Section


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port to listen on; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Address:
        """Read `host:port` or `[IPv6]:port`. Raises ValueError."""
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", text) if isinstance(text, str) else None
        if match is not None and int(match[3]) <= 65_535:
            six = ip_address(match[1] or "")
            if (six is not None and six.version == 6) or HOST_NAME.fullmatch(match[2] or ""):
                return cls(match[1] or match[2], int(match[3]))
        raise ValueError("must be host:port, such as 0.0.0.0:8080 or [::]:8080")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Admin(Section):
    """The HTTP server of the status page, the metrics and the probes."""

    listen: Annotated[
        Address,
        PlainValidator(Address.parse),
        PlainSerializer(str),
        WithJsonSchema({"type": "string", "default": "0.0.0.0:8080"}),
    ] = Field(
        default_factory=lambda: Address("0.0.0.0", 8080),  # noqa: S104 - scraped and probed from other hosts
        description="host:port that serves /status, /metrics, /healthz and /readyz.",
    )
    instances: list[Annotated[str, Field(pattern="^https?://[^/]")]] = Field(
        default_factory=list,
        description="Where all instances are, for /fleet: URLs, as `status --all --url` takes them. A name stands for "
        "all of its addresses.",
    )
