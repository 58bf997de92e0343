"""The ledger counts the ages of what is pending as if it looked at every action."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.effects import ActionId, LiveAction, NewAction, Poll, Send
from consumer.core.ledger.book import AGE_SLOT_S
from consumer.core.ledger.ledger import Ledger
from consumer.core.ledger.waits import Policy
from consumer.core.outcomes import Accepted, NotReady, Ready
from consumer.core.ownership import Assignment

NOW = 1_795_608_000.0  # seconds since 1970
STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "restore", "drop", "work"]), st.integers(0, 3), st.floats(0, 400)),
    max_size=40,
)


@given(STEPS)
def test_the_ledger_counts_ages_as_if_it_looked_at_every_action(steps: list[tuple[str, int, float]]) -> None:
    ledger, now = Ledger(Policy(), lambda: 0.5), NOW
    seen: dict[ActionId, float] = {}
    for offset, (what, partition, passes_s) in enumerate(steps):
        now += passes_s
        assignment = Assignment("orders", partition, 1)
        action = NewAction(
            route="r",
            connection="acme",
            order_id=f"order-{offset % 3}",
            payload=b"",
            version_tag="tag" if offset % 2 else None,
        )
        if what == "accept" and ledger.accept(assignment, offset, action, now):
            seen[ActionId(assignment, offset)] = now
        elif what == "restore" and ledger.open_of(assignment) is None:
            first_seen = now - passes_s
            live = LiveAction(
                offset=offset, action=action, sending=False, first_seen=first_seen, due=now, attempts=0, sends=0
            )
            ledger.assign(assignment, [live], now)
            seen[ActionId(assignment, offset)] = first_seen
        elif what == "drop":
            ledger.drop(assignment)
            seen = {each: at for each, at in seen.items() if each.assignment != assignment}
        elif what == "work":
            for ended in _worked(ledger, now):
                del seen[ended]
        assert ledger.first_seen() == _counted(seen)
        assert ledger.open_of(assignment) in (None, sum(each.assignment == assignment for each in seen))


def _worked(ledger: Ledger, now: float) -> list[ActionId]:
    """Do all that is due; returns what was accepted."""
    ended = []
    ledger.wake(now)
    for effect in ledger.save_intents("acme", 2):
        ledger.intent_saved(effect.action_id, getattr(effect, "sends", 0), now)
    while (request := ledger.take("acme")) is not None:
        match request:
            case Send(action_id=action_id):
                ledger.action_answered(action_id, Accepted(), now)
                ended.append(action_id)
            case Poll(action_id=action_id):
                ledger.poll_answered(action_id, Ready("tag") if action_id.offset % 3 else NotReady(), now)
    return ended


def _counted(seen: dict[ActionId, float]) -> dict[int, int]:
    slots = [int(at // AGE_SLOT_S) for at in seen.values()]
    return {slot: slots.count(slot) for slot in set(slots)}
