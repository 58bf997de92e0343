"""Every row of the table of outcomes, end to end: what was accepted, what was dead-lettered, that nothing is left.

"Settled" means for each of them: the source is read to its end, and the delay topic holds nothing live.
Rows that differ in one answer only run side by side: a connection and an Engage for each, all in one relay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

import pytest

from consumer.core.ledger.answers import MIN_TRIES
from consumer.core.pacing import BACKOFF_S
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Asked, Engage, Reply, ScriptedEngage, tagged_order
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_thread import QUICK, RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

AT_MOST_ONCE = {name: rule.model_copy(update={"on_unknown": "dead_letter"}) for name, rule in BUILT_IN_ROUTES.items()}
ORDER = order_id("outcome")


class Answers:
    """A script that answers polls, or actions, with these one after another; the last one for ever."""

    def __init__(self, *, polls: tuple[Reply, ...] = (), actions: tuple[Reply, ...] = ()) -> None:
        self._polls = self._lasting(*polls, Reply(200, {"status": "Completed", "versionTag": "tag-1"}))
        self._actions = self._lasting(*actions, Reply(202))

    @staticmethod
    def _lasting(*replies: Reply) -> Iterator[Reply]:
        return chain(replies, repeat(replies[-1]))

    def __call__(self, asked: Asked) -> Reply:
        return next(self._actions if asked.path.endswith("/action") else self._polls)


E = TypeVar("E", Engage, ScriptedEngage)
K = TypeVar("K", str, int)
G = TypeVar("G")


@contextmanager
def one_for_each(given: Mapping[K, G], make: Callable[[G], E]) -> Iterator[dict[K, E]]:
    """Run an Engage for each of these."""
    with ExitStack() as running:
        yield {name: running.enter_context(make(what)) for name, what in given.items()}


def urls(engages: Mapping[K, Engage] | Mapping[K, ScriptedEngage]) -> dict[str, str]:
    """Return connections of these names."""
    return {str(name): engage.url for name, engage in engages.items()}


def on(
    connection: str | int, order: str, number: int = 1, /, engage: Mapping[str, str] | None = None
) -> tuple[str, bytes]:
    """Return an event for one of the connections."""
    return order, event(order, number, engage={"connection": str(connection), **(engage or {})})


# Polls


def test_a_job_that_failed_ends_as_a_dead_letter_with_engage_s_own_errors(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(ORDER, event(ORDER, engage={"jobId": engage.submit(ORDER, fate="fails")}))])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason in (Reason.JOB_FAILED, Reason.POLL_REJECTED)
        assert "the order could not be processed" in (dead_letter.why.errors or "")
        assert engage.accepted == []


def test_a_poll_that_engage_refuses_ends_as_a_dead_letter_with_its_errors(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    errors = [{"field": "jobId", "message": "is no job's"}]
    scripts = {status: Answers(polls=(Reply(status, errors),)) for status in (400, 422, 410)}
    with one_for_each(scripts, ScriptedEngage) as engages, Books(sandbox) as books:
        with RelayThread(sandbox, urls(engages)):
            publish(sandbox, [on(status, ORDER, engage={"jobId": "j"}) for status in scripts])
            books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.POLL_REJECTED] * len(scripts)
        assert {each.why.connection: json.loads(each.why.errors or "") for each in books.dead_letters} == {
            str(status): errors for status in scripts
        }
        assert {status: engage.actions() for status, engage in engages.items()} == {key: [] for key in scripts}


def test_what_engage_does_not_know_is_polled_for_the_grace_time_then_dead_lettered(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(ORDER, event(ORDER)), (ORDER, event(ORDER, 2, engage={"jobId": "nobody-s"}))])
        books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.NOT_FOUND, Reason.NOT_FOUND]
        assert engage.requests["order", "404"] >= 3
        assert engage.accepted == []


def test_an_order_that_appears_within_the_grace_time_is_no_dead_letter(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    patient = replace(QUICK, not_found_grace_s=60)
    with Engage() as engage, RelayThread(sandbox, engage.url, policy=patient), Books(sandbox) as books:
        publish(sandbox, [(ORDER, event(ORDER))])
        until(lambda: engage.requests["order", "404"], "the order is asked for")
        engage.submit(ORDER)
        books.wait_until_settled()
        assert (engage.events_of(ORDER), books.dead_letters) == ([1], [])


def test_a_job_that_never_completes_ends_at_the_deadline(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    hasty = replace(QUICK, deadline_s=1.0)
    with Engage() as engage, RelayThread(sandbox, engage.url, policy=hasty), Books(sandbox) as books:
        publish(sandbox, [(ORDER, event(ORDER, engage={"jobId": engage.submit(ORDER, fate="never")}))])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.DEADLINE
        assert engage.actions_asked() == 0


def test_a_poll_that_came_to_nothing_is_asked_again_and_nothing_is_in_doubt(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    faults = [
        "error", "unavailable", "throttle", "reset-before", "reset-after", "close-after", "cut-body", "garbage", "html",
        "hang", "lost-answer", "slow",
    ]  # fmt: skip
    with one_for_each({each: each for each in faults}, _slow_engage) as engages, Books(sandbox) as books:
        events = []
        for fault, engage in engages.items():
            engage.set_faults(f"{fault}=1,calls=job|order")
            events.append(on(fault, order_id(fault), engage={"jobId": engage.submit(order_id(fault))}))
        with RelayThread(sandbox, urls(engages), timeout_s=0.5, rules=AT_MOST_ONCE):
            publish(sandbox, events)
            for fault, engage in engages.items():
                until(lambda: engage.faults[fault] >= 2, f"after {fault} the poll is asked again")  # noqa: B023
                engage.set_faults()
            books.wait_until_settled()
        assert [engage.events_of(order_id(fault)) for fault, engage in engages.items()] == [[1]] * len(faults)
        assert books.dead_letters == []


def _slow_engage(_: str) -> Engage:
    return Engage(slow="fixed:1500ms")


# Actions


def test_an_action_that_engage_refuses_ends_as_a_dead_letter_and_the_order_s_next_is_free(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes()
    errors = [{"field": "data", "message": "is too long"}]
    scripts = {status: Answers(actions=(Reply(status, errors), Reply(202))) for status in (400, 409, 410)}
    with one_for_each(scripts, ScriptedEngage) as engages, Books(sandbox) as books:
        with RelayThread(sandbox, urls(engages)):
            publish(sandbox, [on(status, ORDER, number) for status in scripts for number in (1, 2)])
            books.wait_until_settled()
        assert {(each.why.connection, each.reason, each.why.sends) for each in books.dead_letters} == {
            (str(status), Reason.REJECTED, 1) for status in scripts
        }
        assert [json.loads(each.why.errors or "") for each in books.dead_letters] == [errors] * len(scripts)
        assert {status: _numbers(engage) for status, engage in engages.items()} == {key: [1, 2] for key in scripts}


def _numbers(engage: ScriptedEngage) -> list[object]:
    return [json.loads(each.body)["data"]["event"] for each in engage.actions()]


def test_an_order_without_a_contact_is_tried_for_the_grace_time_then_dead_lettered(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(ORDER, contact=False)
        publish(sandbox, [(ORDER, event(ORDER))])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.NO_CONTACT
        assert "no contact" in (dead_letter.why.errors or "")
        assert engage.requests["action", "422"] == 2


def test_a_contact_that_comes_within_the_grace_is_in_time_and_the_document_goes_again(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes()
    late = Answers(actions=(Reply(422, [{"message": "no contact"}]), Reply(202)))
    document = {"orderId": ORDER, "contact": {"matchKey": "a@b.example"}}
    asked: list[str] = []

    def script(request: Asked) -> Reply:
        asked.append(f"{request.method} {request.path}")
        return late(request)

    with ScriptedEngage(script) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(ORDER, event(ORDER, order=document))])
        books.wait_until_settled()
        assert books.dead_letters == []
    once = ["POST /api/v3/orders", "GET", f"POST /api/v3/orders/{ORDER}/action"]
    assert [line if line.startswith("POST") else "GET" for line in asked] == [*once, *once]


def test_an_action_is_accepted_by_its_status_line_whatever_becomes_of_the_body(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with (
        Engage(faults=("cut-body=1,calls=action",)) as engage,
        RelayThread(sandbox, engage.url, rules=AT_MOST_ONCE),
        Books(sandbox) as books,
    ):
        engage.submit(ORDER)
        publish(sandbox, [(ORDER, event(ORDER))])
        books.wait_until_settled()
        assert (engage.events_of(ORDER), books.dead_letters) == ([1], [])


def test_one_action_that_is_forbidden_stops_no_other_and_ends_at_the_deadline(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    sandbox = sandboxes()
    poison, orders = order_id("poison"), [order_id(number) for number in range(60)]
    replies = Answers(actions=(Reply(202),))

    def firewall(asked: Asked) -> Reply:
        return Reply(403) if asked.path == f"/api/v3/orders/{poison}/action" else replies(asked)

    hasty = replace(QUICK, deadline_s=1.0)
    with ScriptedEngage(firewall) as engage, Books(sandbox) as books:
        with RelayThread(sandbox, engage.url, policy=hasty) as relay:
            publish(sandbox, [(order, event(order)) for order in (poison, *orders)])
            books.wait_until_settled()
            assert relay.metric("connection_suspended", connection="default") == 0
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.FORBIDDEN
        assert dead_letter.why.sends >= MIN_TRIES
        assert len(engage.actions()) == len(orders) + dead_letter.why.sends
        figures(refused=1, sent_times=dead_letter.why.sends, accepted_beside_it=len(orders), connection_suspended=0)


def test_one_action_that_is_answered_401_for_ever_stops_no_other_and_ends_at_the_deadline(
    sandboxes: SandboxFactory, figures: Figures
) -> None:
    sandbox = sandboxes()
    poison, orders = order_id("poison"), [order_id(number) for number in range(20)]
    replies = Answers(actions=(Reply(202),))

    def gateway(asked: Asked) -> Reply:
        return Reply(401) if asked.path == f"/api/v3/orders/{poison}/action" else replies(asked)

    def accepted(engage: ScriptedEngage, order: str) -> Callable[[], bool]:
        return lambda: any(each.path == f"/api/v3/orders/{order}/action" for each in engage.actions())

    hasty = replace(QUICK, deadline_s=1.0)
    with ScriptedEngage(gateway) as engage, Books(sandbox) as books:
        with RelayThread(sandbox, engage.url, policy=hasty) as relay:
            publish(sandbox, [(poison, event(poison))])
            until(engage.actions, "it is refused for the first time")
            for order in orders:
                publish(sandbox, [(order, event(order))])
                until(accepted(engage, order), "another one is accepted")
            books.wait_until_settled()
            assert relay.metric("connection_suspended", connection="default") == 0
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.FORBIDDEN
        assert dead_letter.why.detail.endswith("Engage answered 401")
        figures(sent_times=dead_letter.why.sends, accepted_beside_it=len(orders), connection_suspended=0)


@pytest.mark.parametrize(("status", "retry_after"), [(429, "0"), (429, "1"), (408, "0")])
def test_one_action_that_is_told_to_come_back_soon_for_ever_stops_no_other(
    sandboxes: SandboxFactory, figures: Figures, status: int, retry_after: str
) -> None:
    sandbox = sandboxes()
    poison, orders = order_id("poison"), [order_id(number) for number in range(20)]
    replies = Answers(actions=(Reply(202),))

    def soon(asked: Asked) -> Reply:
        is_its_action = asked.path == f"/api/v3/orders/{poison}/action"
        return Reply(status, headers={"retry-after": retry_after}) if is_its_action else replies(asked)

    paths = {f"/api/v3/orders/{order}/action" for order in orders}
    patient = replace(QUICK, schedule=replace(QUICK.schedule, backoff_s=BACKOFF_S))
    with ScriptedEngage(soon) as engage, RelayThread(sandbox, engage.url, policy=patient, requests_per_second=50):
        publish(sandbox, [(poison, event(poison))])
        until(engage.actions, "it is told so for the first time")
        publish(sandbox, [(order, event(order)) for order in orders])
        until(lambda: {each.path for each in engage.actions()} >= paths, "the others are accepted")
        sent = len(engage.actions()) - len(orders)
        assert sent <= 4
        figures(sent_times=sent, accepted_beside_it=len(orders))


def test_a_stale_tag_is_replaced_by_the_newest_and_the_action_accepted_once(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(ORDER)
        old = engage.tag(ORDER)
        engage.submit(ORDER)
        publish(sandbox, [(ORDER, event(ORDER, engage={"versionTag": old}))])
        books.wait_until_settled()
        (accepted,) = engage.accepted
        assert accepted.version_tag == engage.tag(ORDER) != old
        assert engage.requests["action", "404"] == 1


def test_a_tag_that_is_stale_again_and_again_ends_as_a_dead_letter(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage(faults=("stale=1",)) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        engage.submit(ORDER)
        publish(sandbox, [(ORDER, event(ORDER))])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.STALE_TAG
        assert engage.accepted == []


def test_an_action_that_was_surely_not_processed_is_sent_again_and_is_never_in_doubt(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    replies = {
        "429": Reply(429),
        "429-told": Reply(429, headers={"Retry-After": "1"}),
        "408": Reply(408),
        "421": Reply(421),
        "307": Reply(307, headers={"Location": "https://elsewhere.example.com/"}),
    }
    scripts = {name: Answers(actions=(reply, reply, Reply(202))) for name, reply in replies.items()}
    with one_for_each(scripts, ScriptedEngage) as engages, Books(sandbox) as books:
        # Were one in doubt, on_unknown: dead_letter would make it a dead letter at once.
        with RelayThread(sandbox, urls(engages), rules=AT_MOST_ONCE):
            publish(sandbox, [on(name, order_id(name)) for name in replies])
            books.wait_until_settled()
        assert {name: len(engage.actions()) for name, engage in engages.items()} == dict.fromkeys(replies, 3)
        assert books.dead_letters == []


def test_retry_after_is_obeyed(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    asked_at: list[float] = []
    replies = Answers(actions=(Reply(429, headers={"Retry-After": "2"}), Reply(202)))

    def script(asked: Asked) -> Reply:
        asked_at.append(time.monotonic())
        return replies(asked)

    with ScriptedEngage(script) as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(ORDER, event(ORDER))])
        books.wait_until_settled()
        assert len(engage.actions()) == 2
        assert asked_at[-1] - asked_at[-2] >= 2


def test_an_action_answered_503_is_in_doubt(sandboxes: SandboxFactory) -> None:
    """A gateway may answer it after Engage got the request."""
    sandbox = sandboxes()
    orders = [order_id(number) for number in range(20)]
    with (
        Engage(seed=3, faults=("unavailable=0.4",)) as engage,
        RelayThread(sandbox, engage.url, rules=AT_MOST_ONCE),
        Books(sandbox) as books,
    ):
        for order in orders:
            engage.submit(order)
        publish(sandbox, [(order, event(order)) for order in orders])
        books.wait_until_settled()
        unknown = engage.requests["action", "503"]
        assert [each.reason for each in books.dead_letters] == [Reason.OUTCOME_UNKNOWN] * unknown
        assert 0 < unknown < len(orders)
        assert len(engage.accepted) == len(orders) - unknown


IN_DOUBT = [
    "error",
    "hang",
    "lost-answer",
    "reset-before",
    "reset-after",
    "close-after",
    "garbage",
    "html",
    "unavailable",
]
PROCESSED = {"lost-answer", "reset-after", "close-after", "garbage"}  # which nobody can know from outside


def _faulty_engage(fault: str) -> Engage:
    engage = Engage(faults=(f"{fault}=1,calls=action",))
    engage.submit(order_id(fault))
    return engage


def test_an_action_in_doubt_is_sent_again_and_the_order_s_next_comes_after_it(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    with one_for_each({each: each for each in IN_DOUBT}, _faulty_engage) as engages, Books(sandbox) as books:
        with RelayThread(sandbox, urls(engages), timeout_s=0.5):
            publish(sandbox, [on(fault, order_id(fault), number) for fault in IN_DOUBT for number in (1, 2)])
            for fault, engage in engages.items():
                until(lambda: engage.faults[fault], f"the action meets {fault}")  # noqa: B023
                engage.set_faults()
            books.wait_until_settled()
        assert books.dead_letters == []
        assert {(order_id(fault), 1) for fault in IN_DOUBT} <= books.resent
        for fault, engage in engages.items():
            numbers = engage.events_of(order_id(fault))
            assert (set(numbers[:-1]), numbers[-1]) == ({1}, 2), fault
            assert len(numbers) > 2 or fault not in PROCESSED, fault


def test_an_action_in_doubt_is_dead_lettered_where_its_route_says_so(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    with one_for_each({each: each for each in IN_DOUBT}, _faulty_engage) as engages, Books(sandbox) as books:
        with RelayThread(sandbox, urls(engages), timeout_s=0.5, rules=AT_MOST_ONCE):
            publish(sandbox, [on(fault, order_id(fault)) for fault in IN_DOUBT])
            books.wait_until_settled()
        assert {(each.why.connection, each.reason, each.why.sends) for each in books.dead_letters} == {
            (fault, Reason.OUTCOME_UNKNOWN, 1) for fault in IN_DOUBT
        }
        assert {fault: engage.actions_asked() for fault, engage in engages.items()} == dict.fromkeys(IN_DOUBT, 1)


def test_a_refused_connection_leaves_nothing_in_doubt(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url, rules=AT_MOST_ONCE) as relay, Books(sandbox) as books:
        engage.submit(ORDER)
        tag = engage.tag(ORDER)
        engage.down()
        publish(sandbox, [(ORDER, event(ORDER)), (order_id("b"), event(order_id("b"), engage={"versionTag": tag}))])
        until(lambda: relay.metric("requests_total", connection="default", call="action", status="connect") >= 2,
              "the action meets a refused connection again and again")  # fmt: skip
        until(lambda: not any(each.state == "sending" and each.sends > 1 for each in books.read().live.values()),
              "no refused connection counts as a send")  # fmt: skip
        engage.submit(order_id("b"))
        engage.up()
        books.wait_until_settled()
        assert {each.order_id for each in engage.accepted} == {ORDER, order_id("b")}
        assert len(engage.accepted) == 2
        assert books.dead_letters == []


# A key that Engage refuses


def test_a_refused_key_suspends_the_connection_until_its_file_changes(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes()
    file = tmp_path / "key"
    file.write_text("an-old-key")
    orders = [order_id(number) for number in range(5)]
    with Engage() as unauthorized, Engage() as forbidden, Books(sandbox) as books:
        unauthorized.set_keys("a-new-key")
        forbidden.set_keys(forbidden=["an-old-key"])
        engages = {"401": unauthorized, "403": forbidden}
        with RelayThread(sandbox, urls(engages), api_key=file.read_text, rules=AT_MOST_ONCE) as relay:
            for engage in engages.values():
                for order in orders:
                    engage.submit(order)
            publish(sandbox, [on(name, order) for order in orders for name in engages])
            for name in engages:
                until(
                    lambda: relay.metric("connection_suspended", connection=name),  # noqa: B023
                    f"the connection is suspended after {name}",
                )
            until(lambda: len(books.read().live) == 2 * len(orders), "all actions stay open")
            assert books.dead_letters == []
            file.write_text("a-new-key")
            books.wait_until_settled()
        for engage in engages.values():
            assert sorted(each.order_id for each in engage.accepted) == sorted(orders)
        assert books.dead_letters == []


def test_a_suspended_connection_does_not_stop_another(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage(valid_keys=frozenset({"another"})) as refusing, Engage() as taking, Books(sandbox) as books:
        refused, taken = order_id("refused"), order_id("taken")
        with RelayThread(sandbox, {"default": refusing.url, "finland": taking.url}):
            taking.submit(taken)
            publish(sandbox, [(refused, event(refused)), (taken, event(taken, engage={"connection": "finland"}))])
            until(lambda: taking.events_of(taken) == [1], "the other connection's action is accepted")
            until(lambda: len(books.read().live) == 1, "the suspended one's stays open")
            assert books.dead_letters == []


# The API key goes nowhere else


def test_a_redirect_to_another_origin_is_asked_at_our_own(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with ScriptedEngage(tagged_order) as elsewhere, Books(sandbox) as books:
        script = Answers(
            polls=(
                Reply(302, headers={"Location": f"{elsewhere.url}/api/v3/orders/x"}),
                Reply(200, {"versionTag": "t"}),
            )
        )
        with ScriptedEngage(script) as engage, RelayThread(sandbox, engage.url):
            publish(sandbox, [(ORDER, event(ORDER))])
            books.wait_until_settled()
            assert (len(engage.actions()), elsewhere.asked) == (1, [])
