"""Where a producer puts a record with this key: the default partitioners of Kafka's clients. Pure.

Java's clients, Kafka Streams and Connect take murmur2 of the key, librdkafka's clients (Python, Go, .NET, Node, PHP)
take CRC32, unless they are told otherwise.
"""

from __future__ import annotations

from zlib import crc32

_MASK = 0xFFFF_FFFF
_M = 0x5BD1_E995
_SEED = 0x9747_B28C


def murmur2(key: bytes) -> int:
    """Return Kafka's murmur2 hash of a key (org.apache.kafka.common.utils.Utils), as 32 bits without a sign."""
    length = len(key)
    h = _SEED ^ length
    for at in range(0, length - length % 4, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if rest := key[length - length % 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def of_java(key: bytes, partitions: int) -> int:
    """Return the partition that Java's default partitioner gives a key."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions


def of_librdkafka(key: bytes, partitions: int) -> int:
    """Return the partition that librdkafka's default partitioner gives a key."""
    return crc32(key) % partitions
