"""What an operator is told of a connection that waits."""

from __future__ import annotations

import pytest

from consumer.core.effects import ActionId
from consumer.core.outcomes import Unauthorized
from consumer.core.ownership import Assignment
from consumer.core.pacing import Pace
from consumer.engage.client import EngageClient
from consumer.relay.connections import Connection

ABOUT = ActionId(Assignment("orders", 0, 1), 7)


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, "Engage refuses its API key (401)"), (0, "its API key cannot be read")],
    ids=["refused", "never sent"],
)
def test_a_key_that_was_never_sent_is_not_called_refused(status: int, why: str) -> None:
    client = EngageClient(base_url="https://acme.voyado.com", api_key=lambda: "key", user_agent="test", timeout_s=1.0)
    connection = Connection(name="default", client=client, pace=Pace(50), api_key=lambda: "key", slots=8, ahead=8)

    connection.answered(Unauthorized(status), now=5.0, about=ABOUT)

    assert connection.halt is not None
    assert (connection.halt.why, connection.halt.suspended) == (why, True)
