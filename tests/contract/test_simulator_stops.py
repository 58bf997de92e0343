"""A simulator that stops leaves nobody connected."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from consumer.simulator import SimulatorOptions
from consumer.simulator.server import Simulator
from tests.contract.test_simulator import LOOPS


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("permits", range(6))
def test_who_connects_while_it_stops_is_cut_off(loop: str, permits: int) -> None:
    """The loop needs some ticks to make a connection: after any of them, nothing of it is left."""

    async def connected_and_stopped() -> bytes:
        async with Simulator(SimulatorOptions(listen="127.0.0.1:0")) as simulator:
            host, _, port = simulator.url.removeprefix("http://").partition(":")
            client = socket.create_connection((host, int(port)))
            for _ in range(permits):
                await asyncio.sleep(0)
        with client:
            client.settimeout(5)
            try:
                return client.recv(1)
            except ConnectionError:
                return b""

    event_loop = LOOPS[loop]()
    try:
        assert event_loop.run_until_complete(connected_and_stopped()) == b""
    finally:
        event_loop.close()
    gc.collect()  # a transport that nobody closed would be told of here
