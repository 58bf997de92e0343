"""The demo's story: the same for the same seed, with all that a source topic holds, each order in its natural order."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from consumer.demo.story import ACTIONS, EVENT_NUMBER, ROUTES, Event, tell
from consumer.events.decoding import Undecodable, decode
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.results import Misrouted, Routed, Several, Unrouted
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule
from consumer.kafka.records import SourceEvent
from schemas.dead_letter import Reason
from schemas.pending_action import WithDocument

STORY = tell(300, 1, "order", orders_per_second=14)
OWN_ROUTES = {name: RouteRule.model_validate(rule) for name, rule in ROUTES.items()}
ROUTER = Router(compile_routes(OWN_ROUTES | BUILT_IN_ROUTES), ["default"])


def routed(event: Event) -> Routed | Several | Unrouted | Misrouted | Undecodable:
    value = event.value("job-1")
    assert value is not None
    decoded = decode(value)
    if isinstance(decoded, Undecodable):
        return decoded
    return ROUTER.route(
        decoded, SourceEvent(topic="orders", partition=0, offset=0, timestamp_ms=1, key=b"key", value=value, headers=[])
    )


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_the_same_seed_tells_the_same_story(seed: int, orders: int) -> None:
    assert tell(orders, seed, "a", orders_per_second=10) == tell(orders, seed, "a", orders_per_second=10)


@given(st.integers(0, 2**32))
def test_events_are_numbered_in_the_order_of_time_and_an_order_s_life_in_its_natural_order(seed: int) -> None:
    story = tell(20, seed, "a", orders_per_second=10)
    assert [event.number for event in story] == list(range(len(story)))
    assert [event.at_s for event in story] == sorted(event.at_s for event in story)
    lives = defaultdict(list)
    for event in story:
        if event.type is not None:
            lives[event.order_id].append(event.type)
    natural = list(ACTIONS)
    for life in lives.values():
        assert life[0] == "order.confirmed"
        plain = [natural.index(type_) for type_ in life if type_ != "order.custom"]
        assert plain == sorted(plain)


def test_the_demo_s_own_story_holds_a_bit_of_everything() -> None:
    assert {event.action for event in STORY if event.action} == set(ACTIONS.values())
    assert {event.kind for event in STORY} == {"action", "unusable", "unrouted", "tombstone"}
    assert {event.tag_from for event in STORY} == {"job", "order", "document", "no tag"}
    assert not all(event.contact for event in STORY)


def test_every_event_is_what_its_kind_says_to_the_relay_s_own_routes() -> None:
    reasons: Counter[Reason] = Counter()
    for event in STORY:
        match event.kind:
            case "tombstone":
                assert event.value(None) is None
            case "unrouted":
                assert isinstance(routed(event), Unrouted)
            case "unusable":
                result = routed(event)
                assert isinstance(result, Misrouted | Undecodable)
                reasons[result.reason if isinstance(result, Misrouted) else Reason.UNDECODABLE] += 1
            case "action":
                result = routed(event)
                assert isinstance(result, Routed)
                assert (result.order_id, result.action) == (event.order_id, event.action)
                assert isinstance(result.data, dict)
                assert result.data[EVENT_NUMBER] == event.number
                assert isinstance(result.tag_source, WithDocument) == (event.tag_from == "no tag")
    assert set(reasons) == {Reason.UNDECODABLE, Reason.INVALID_EVENT, Reason.UNKNOWN_CONNECTION}


def test_an_action_travels_only_in_the_document_of_an_order_with_a_contact() -> None:
    """Engage would ignore it without a word, and the tally could not add up."""
    travelling = [event for event in STORY if event.tag_from == "no tag"]
    assert travelling
    assert all(event.contact and event.registers_contact and not event.submits for event in travelling)
