"""The partitioners of Kafka's clients, against values that those clients gave."""

from __future__ import annotations

import pytest

from consumer.events.partitioners import murmur2, of_java, of_librdkafka

# org.apache.kafka.common.utils.UtilsTest#testMurmur2
FROM_KAFKA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", FROM_KAFKA)
def test_murmur2_is_that_of_kafkas_own_tests(key: bytes) -> None:
    assert murmur2(key) == FROM_KAFKA[key] & 0xFFFF_FFFF


@pytest.mark.parametrize("partitions", [1, 3, 48, 1000])
def test_a_partition_is_one_that_there_is(partitions: int) -> None:
    for number in range(200):
        key = b"A-%d" % number
        assert 0 <= of_java(key, partitions) < partitions
        assert 0 <= of_librdkafka(key, partitions) < partitions
    assert of_java(b"", partitions) in range(partitions)
