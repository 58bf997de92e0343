"""`pending list`: which actions a filter takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import ExitCode
from consumer.kafka.pending import Filter, Pending
from tests.unit.commands.calling import called

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(
    st.sampled_from([None, "A", "B"]),
    st.sampled_from([None, "acme", "beta"]),
    st.sampled_from([None, "pending", "sending", "unreadable"]),
    st.sampled_from([None, NOON, NOON + timedelta(hours=1)]),
)
def test_a_filter_takes_what_fits_all_that_it_names(
    order_id: str | None, connection: str | None, state: str | None, seen_before: datetime | None
) -> None:
    wanted = Filter(order_id, connection, state, seen_before)  # type: ignore[arg-type]
    a = Pending(
        topic="orders",
        partition=0,
        offset=1,
        state="pending",
        route="r",
        action="ConfirmOrder",
        order_id="A",
        connection="acme",
        first_seen=NOON,
    )
    assert wanted.takes(a) is (
        order_id in (None, "A")
        and connection in (None, "acme")
        and state in (None, "pending")
        and seen_before in (None, NOON + timedelta(hours=1))
    )
    unreadable = Pending(topic="orders", partition=0, offset=2, state="unreadable")
    nothing_else = (order_id, connection, seen_before) == (None, None, None)
    assert wanted.takes(unreadable) is (nothing_else and state in (None, "unreadable"))


def test_the_order_that_is_asked_for_does_not_show_in_a_filters_repr() -> None:
    assert "A-1" not in repr(Filter("A-1"))


@pytest.mark.parametrize("duration", ["soon", "-1h", "1 week", ""])
def test_an_age_that_is_no_duration_is_an_error_of_the_command_line(duration: str) -> None:
    result = called("pending", "list", "--older-than", duration)
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--older-than: must be a duration" in result.stderr
