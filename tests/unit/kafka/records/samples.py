"""An event, its action and their records, for the tests of the records."""

from __future__ import annotations

from hypothesis import strategies as st

from consumer.core.effects import (
    ActionId,
    GiveUp,
    Job,
    LiveAction,
    NewAction,
    Save,
    Times,
)
from consumer.core.ownership import Assignment
from consumer.core.places import place_of
from consumer.events.routing.results import Routed
from consumer.kafka.records.keys import action_key
from consumer.kafka.records.pending import live_action, pending_value
from consumer.kafka.records.source_events import SourceEvent
from schemas.dead_letter import Reason
from schemas.pending_action import (
    FromJob,
)

HERE = Assignment("orders", 0, epoch=1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def routed(data: object = None, order_id: str = "A-1", language: str | None = None) -> Routed:
    return Routed(
        route="shipped",
        connection="default",
        order_id=order_id,
        action="ConfirmShipment",
        language=language,
        data=data,
        tag_source=FromJob(job_id="job-7"),
        on_unknown="resend",
        event_time_ms=1_762_162_200_000,
        trace_context=None,
    )


def event(value: bytes = b"{}", headers: list[tuple[str, bytes | None]] | None = None) -> SourceEvent:
    return SourceEvent(
        topic="orders",
        partition=0,
        offset=17,
        timestamp_ms=1_762_162_200_000,
        key=b"A-1",
        value=value,
        headers=headers or [],
    )


def saved(
    action: NewAction,
    *,
    sending: bool = False,
    offset: int = 17,
    tag: str | None = None,
    document_sent: bool = False,
) -> bytes:
    return pending_value(
        Save(
            action_id=ActionId(HERE, offset),
            route=action.route,
            payload=action.payload,
            sending=sending,
            first_seen=1.0,
            due=2.5,
            attempts=3,
            sends=1,
            version_tag=tag,
            job_id=action.target.job_id if isinstance(action.target, Job) else None,
            document_sent=document_sent,
        )
    )


def given_up(action: NewAction, errors: str | None = None) -> GiveUp:
    return GiveUp(
        action_id=ActionId(HERE, 17),
        route="shipped",
        payload=action.payload,
        reason=Reason.REJECTED,
        detail="why",
        errors=errors,
        attempts=3,
        sends=1,
        times=Times(0.5),
    )


def read(offset: int, value: bytes) -> LiveAction:
    restored = live_action(action_key(place_of(0, offset), "shipped"), value)
    assert isinstance(restored, LiveAction)
    return restored
