"""How large a transaction may be: what did not fit into its time is cut down, and what fits grows again."""

from __future__ import annotations

import pytest

from consumer.kafka.journal.transaction_size import MAX_BYTES, MIN_BYTES, TransactionSize

TIMEOUT_S = 10.0


def play(size: TransactionSize, waiting: int, bytes_per_s: float) -> tuple[float, int]:
    """Write `waiting` bytes at this rate; returns how long it took, and how many transactions came to nothing."""
    seconds, aborted = 0.0, 0
    while waiting:
        part = min(waiting, size.limit)
        took = part / bytes_per_s
        if took > TIMEOUT_S:
            seconds += TIMEOUT_S
            aborted += 1
            size.overran(part, int(bytes_per_s * TIMEOUT_S))
        else:
            seconds += took
            waiting -= part
            size.committed(part, took)
    return seconds, aborted


@pytest.mark.parametrize("bytes_per_s", [20_000, 300_000, 1_000_000])
def test_a_thin_uplink_costs_one_aborted_transaction(bytes_per_s: float) -> None:
    seconds, aborted = play(TransactionSize(TIMEOUT_S), MAX_BYTES, bytes_per_s)

    assert aborted == 1
    assert seconds < MAX_BYTES / bytes_per_s + TIMEOUT_S + 1


def test_a_broker_that_takes_nothing_shrinks_it_to_a_few_records() -> None:
    size = TransactionSize(TIMEOUT_S)
    for _ in range(10):
        size.overran(size.limit, 0)

    assert size.limit == MIN_BYTES


def test_it_grows_back_once_the_quota_is_gone() -> None:
    size = TransactionSize(TIMEOUT_S)
    play(size, MAX_BYTES, 20_000)
    assert size.limit < MAX_BYTES / 50
    play(size, 100 * MAX_BYTES, 100_000_000)

    assert size.limit == MAX_BYTES


def test_small_transactions_say_nothing_of_what_fits() -> None:
    size = TransactionSize(TIMEOUT_S)
    size.overran(MAX_BYTES, 1_000_000)
    before = size.limit
    for _ in range(100):
        size.committed(1000, 0.01)

    assert size.limit == before


def test_one_that_nearly_did_not_fit_shrinks_the_next() -> None:
    size = TransactionSize(TIMEOUT_S)
    size.committed(1_000_000, 0.7 * TIMEOUT_S)

    assert size.limit == 500_000


def test_one_record_that_is_larger_than_the_limit_goes_alone_however_long_it_takes() -> None:
    size = TransactionSize(TIMEOUT_S)
    size.committed(1, 0.9 * TIMEOUT_S)

    assert size.limit == MIN_BYTES
