"""What a user of the simulator can choose, as text where a command line gives text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from consumer.simulator.chance import parse_durations
from consumer.simulator.faults import parse_faults
from consumer.simulator.moods import Moods
from consumer.simulator.world import Processing, UnknownOrders


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """All options of the simulator. Raises ValueError, with one clear line, for what cannot be.

    listen               host:port, port 0 for any free one
    processing           how long a version's processing takes, see `parse_durations`
    failing, stuck       shares of jobs that fail or never complete
    moods                see `Moods`
    unknown_orders       whether an order or job that nobody submitted is created when it is first asked for
    requests_per_second  within any second and per key; 0 for no limit
    valid_keys           None for any key that isn't empty
    faults               see `parse_faults`
    slow                 how late the answer comes where the fault `slow` befalls it
    """

    listen: str = "127.0.0.1:0"
    seed: int = 0
    processing: str = "lognormal:2s,0.8"
    failing: float = 0.0
    stuck: float = 0.0
    moods: Moods = field(default_factory=Moods)
    unknown_orders: UnknownOrders = "not-found"
    requests_per_second: int = 200
    api_key_header: str = "apikey"
    valid_keys: frozenset[str] | None = field(default=None, repr=False)
    forbidden_keys: frozenset[str] = field(default=frozenset(), repr=False)
    faults: tuple[str, ...] = ()
    slow: str = "uniform:1s..5s"

    def __post_init__(self) -> None:
        self.address()
        parse_durations(self.processing)
        parse_durations(self.slow)
        parse_faults(self.faults)
        if self.failing < 0 or self.stuck < 0 or not self.failing + self.stuck <= 1:
            raise ValueError("failing and stuck: expected shares of 0 or more that add up to 1 at most")
        if self.requests_per_second < 0:
            raise ValueError(f"requests_per_second {self.requests_per_second}: expected 0 (no limit) or more")
        if self.unknown_orders not in get_args(UnknownOrders):
            raise ValueError(f"unknown_orders {self.unknown_orders!r}: expected not-found or create")
        if not self.api_key_header or not self.api_key_header.isascii():
            raise ValueError(f"api_key_header {self.api_key_header!r}: expected the name of a header")

    def address(self) -> tuple[str, int]:
        """Return the host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"listen {self.listen!r}: expected host:port, as in 127.0.0.1:9090 or [::1]:9090")
        return host, int(port)

    def version_processing(self) -> Processing:
        """Return how versions are processed."""
        return Processing(parse_durations(self.processing), self.failing, self.stuck)
