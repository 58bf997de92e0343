"""Who owns what, and the generation that fences."""

from __future__ import annotations

import logging
import struct

import pytest
from confluent_kafka import Consumer
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.clock import steady_clock, to_ms
from consumer.core.ownership import Assignment, Ownership, generation


def test_only_the_very_same_ownership_is_covered() -> None:
    ownership = Ownership(b"metadata", {("orders", 0): 7})
    assert ownership.covers(Assignment("orders", 0, 7))
    assert not ownership.covers(Assignment("orders", 0, 6))
    assert not ownership.covers(Assignment("orders", 0, 8))
    assert not ownership.covers(Assignment("orders", 1, 7))
    assert not ownership.covers(Assignment("returns", 0, 7))


def test_nothing_is_owned_before_the_first_assignment() -> None:
    assert Ownership().assignments == []
    assert not Ownership().covers(Assignment("orders", 0, 1))


def test_every_assignment_that_is_owned_is_listed_and_covered() -> None:
    ownership = Ownership(b"metadata", {("orders", 0): 1, ("orders", 3): 2})
    assert ownership.assignments == [Assignment("orders", 0, 1), Assignment("orders", 3, 2)]
    assert all(map(ownership.covers, ownership.assignments))


@given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=40))
def test_the_generation_is_read_from_librdkafkas_serialisation(number: int, tail: bytes) -> None:
    assert generation(b"CGMDv2:" + struct.pack("=i", number) + tail) == number


@pytest.mark.parametrize("unknown", [b"", b"CGMDv2:", b"CGMDv2:\x01\x00\x00", b"CGMDv3:\x01\x00\x00\x00group\x00"])
def test_an_unknown_serialisation_is_an_error_never_a_guess(unknown: bytes) -> None:
    with pytest.raises(ValueError, match="unknown serialisation"):
        generation(unknown)


def test_the_installed_client_writes_a_serialisation_that_we_know() -> None:
    nobody = {"bootstrap.servers": "127.0.0.1:1", "group.id": "group", "log_level": 0}
    consumer = Consumer(nobody, logger=logging.getLogger("silent"))
    try:
        assert generation(consumer.consumer_group_metadata()) == -1  # it never joined
    finally:
        consumer.close()


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_survive_being_read_and_written_again(ms: int) -> None:
    assert to_ms(ms / 1000) == ms


def test_the_clock_never_goes_back() -> None:
    clock = steady_clock()
    moments = [clock() for _ in range(1000)]
    assert moments == sorted(moments)
