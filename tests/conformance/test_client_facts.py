"""Each documented fact of Engage as our client sends and reads it, against the Engage under test.

Client and simulator were once written from the same notes, and were wrong alike: so what the client sends is looked
at on the wire, and what it reads comes from an Engage for which test_facts.py is green.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from consumer.core.outcomes import (
    Accepted,
    DocumentTaken,
    JobFailed,
    NotFound,
    NotReady,
    PollOutcome,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
)
from schemas.engage import ActionRequest, Change
from tests.conformance.target import JSON, ORDERS, Target
from tests.conformance.test_facts import all_at_once
from tests.conformance.wire import USER_AGENT, Wired, wired
from tests.support.scripted_server import Request

T = TypeVar("T")

NOT_YET = NotReady | NotFound
Talk = Callable[[Wired], Coroutine[None, None, T]]


def talk(engage: Target, conversation: Talk[T]) -> tuple[T, list[Request]]:
    """Let our client talk to Engage; return what the conversation found, and every request as it was sent."""

    async def connected() -> tuple[T, list[Request]]:
        async with wired(engage) as w:
            return await conversation(w), list(w.sent)

    return asyncio.run(connected())


def polled_job(engage: Target) -> tuple[str, PollOutcome, list[Request]]:
    """Create an order, wait until it is processed, and poll its job with our client."""
    order_id, job_id = engage.create()
    engage.finished(job_id)
    return order_id, *talk(engage, lambda w: w.client.poll_job(job_id))


def every_call(engage: Target) -> list[Request]:
    """Let our client make each of its calls; return the requests."""
    document = engage.document()
    order_id = document["orderId"]

    async def calls(w: Wired) -> None:
        taken = await w.client.send_document(order_id, document)
        if isinstance(taken, DocumentTaken) and taken.job_id is not None:
            await w.client.poll_job(taken.job_id)
        await w.client.send_document(order_id, document)  # 409, then a PUT
        await w.client.send_with_document(order_id, document)
        await w.client.send_change(order_id, "change-status", {"status": "Shipped"})
        await w.client.poll_order(order_id)
        await w.client.send_action(order_id, ActionRequest(action="Custom", version_tag="none"))

    _, sent = talk(engage, calls)
    assert {request.line.split()[0] for request in sent} == {b"GET", b"POST", b"PUT"}
    assert len(sent) >= 6
    return sent


def acted(engage: Target, order_id: str, request: ActionRequest) -> tuple[object, Request]:
    async def act(w: Wired) -> object:
        return await w.client.send_action(order_id, request)

    outcome, sent = talk(engage, act)
    assert len(sent) == 1
    return outcome, sent[0]


# Facts 1 and 2: headers


def test_fact_01_every_request_of_our_client_has_the_content_type(engage: Target) -> None:
    """API v3, headers: mandatory in every request."""
    for request in every_call(engage):
        assert request.headers.get(b"content-type") == JSON.encode(), request.line


def test_fact_01_our_client_keeps_the_content_type_when_it_follows_a_redirect(engage: Target) -> None:
    """API v3, headers and GET job."""
    engage.moods(redirects=["relative=1"])
    order_id, outcome, sent = polled_job(engage)
    assert outcome == Ready(engage.tag(order_id))
    assert sent[-1].target == f"{ORDERS}/{order_id}".encode()
    assert all(request.headers.get(b"content-type") == JSON.encode() for request in sent)


def test_fact_01_our_clients_poll_of_a_job_brings_the_tag(engage: Target) -> None:
    """API v3, headers and GET job: the fault that everything stood still for."""
    order_id, outcome, _ = polled_job(engage)
    assert outcome == Ready(engage.tag(order_id))


def test_fact_02_every_request_of_our_client_names_the_merchants_system(engage: Target) -> None:
    """API v3, headers: `User-Agent` names the client's system and its version."""
    for request in every_call(engage):
        assert request.headers.get(b"user-agent") == USER_AGENT.encode(), request.line


# Facts 3 to 6: actions, contacts, documents


def test_fact_03_our_client_sends_any_text_as_an_action(engage: Target) -> None:
    """API v3, POST action."""
    engage.needs_known_contact()
    order_id, tag = engage.processed()
    request = ActionRequest(action="Försenad leverans", version_tag=tag)
    assert acted(engage, order_id, request)[0] == Accepted()


def test_fact_04_our_client_sends_data_unchanged(engage: Target) -> None:
    """API v3, POST action. Open, so everything goes through."""
    engage.needs_known_contact()
    data = {"text": "å\u2028", "big": 2**70, "none": None, "rows": [{"price": 199.5, "empty": {}}, []], "null": {}}
    order_id, tag = engage.processed()
    outcome, sent = acted(engage, order_id, ActionRequest(action="Custom", version_tag=tag, language="sv", data=data))
    assert outcome == Accepted()
    assert json.loads(sent.body) == {"action": "Custom", "versionTag": tag, "language": "sv", "data": data}


def test_fact_05_our_client_does_not_give_up_an_action_for_a_contact_that_is_late(engage: Target) -> None:
    """API v3, POST action, 422. Documentation of orders: contacts are synchronised apart from orders."""
    document = engage.document()
    del document["contact"]
    order_id, tag = engage.processed(document)
    outcome, _ = acted(engage, order_id, ActionRequest(action="Custom", version_tag=tag))
    assert not isinstance(outcome, Accepted | Rejected)


def test_fact_06_an_order_action_in_a_document_of_our_client_is_applied_once(engage: Target) -> None:
    """API v3, POST and PUT orders."""
    engage.needs_control()
    document = engage.document(orderAction={"action": "ConfirmOrder", "data": {"n": 1}})
    order_id = document["orderId"]

    async def send(w: Wired) -> object:
        return await w.client.send_document(order_id, document)

    outcome, _ = talk(engage, send)
    assert isinstance(outcome, DocumentTaken)
    engage.tag(order_id)
    accepted = engage.accepted_once(order_id)
    assert (accepted["action"], accepted["data"], accepted["withDocument"]) == ("ConfirmOrder", {"n": 1}, True)


def send_twice(engage: Target, document: dict[str, object]) -> tuple[list[object], list[Request]]:
    order_id = str(document["orderId"])

    async def send(w: Wired) -> list[object]:
        return [await w.client.send_with_document(order_id, document) for _ in range(2)]

    return talk(engage, send)


def test_fact_06_our_client_replaces_an_order_that_exists_by_the_document_with_its_action(engage: Target) -> None:
    """API v3, POST and PUT orders: a 409 says that the order exists, and not that an action was carried out."""
    document = engage.document(orderAction={"action": "ConfirmOrder"})
    outcomes, sent = send_twice(engage, document)
    assert all(isinstance(outcome, DocumentTaken) and outcome.job_id for outcome in outcomes)
    assert [request.line.split()[0] for request in sent] == [b"POST", b"POST", b"PUT"]
    assert all(json.loads(request.body)["orderAction"] == {"action": "ConfirmOrder"} for request in sent)


def test_fact_06_our_client_learns_of_a_document_whose_action_was_not_carried_out(engage: Target) -> None:
    """API v3, POST orders and GET job: a version that failed carries nothing out."""
    engage.moods(jobWords=["Failed=1"])
    document = engage.document(orderAction={"action": "ConfirmOrder"})
    order_id = str(document["orderId"])

    async def send(w: Wired) -> object:
        taken = await w.client.send_with_document(order_id, document)
        assert isinstance(taken, DocumentTaken)
        assert taken.job_id is not None
        await asyncio.to_thread(engage.finished, taken.job_id)
        return await w.client.poll_job(taken.job_id)

    outcome, _ = talk(engage, send)
    assert isinstance(outcome, JobFailed)


# Fact 7: jobs, redirects, 201


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_fact_07_our_client_follows_a_redirect_to_our_own_origin(engage: Target, kind: str) -> None:
    """API v3, GET job: a 302 to the order."""
    follow_redirect(engage, kind)


@pytest.mark.parametrize("kind", ["other-scheme", "other-host"])
def test_fact_07_our_client_asks_a_redirects_path_at_our_own_origin(engage: Target, kind: str) -> None:
    """API v3, GET job. The key goes nowhere else, and a poll ends well all the same."""
    follow_redirect(engage, kind)


def follow_redirect(engage: Target, kind: str) -> None:
    engage.moods(redirects=[f"{kind}=1"])
    order_id, outcome, sent = polled_job(engage)
    assert outcome == Ready(engage.tag(order_id))
    assert sent[-1].target == f"{ORDERS}/{order_id}".encode()


def test_fact_07_our_client_takes_201_as_202(engage: Target) -> None:
    """API v3: one page says "201 Accepted"."""
    engage.moods(created=1)
    document = engage.document()
    order_id = document["orderId"]

    async def send(w: Wired) -> tuple[object, object]:
        taken = await w.client.send_document(order_id, document)
        tag = await asyncio.to_thread(engage.tag, order_id)
        return taken, await w.client.send_action(order_id, ActionRequest(action="Custom", version_tag=tag))

    (taken, acceptance), _ = talk(engage, send)
    assert isinstance(taken, DocumentTaken)
    assert taken.job_id is not None
    assert isinstance(acceptance, Accepted)


# Fact 8: a job's words


@pytest.mark.parametrize("word", ["Completed", "COMPLETED"])
def test_fact_08_our_client_finds_the_tag_of_a_completed_job(engage: Target, word: str) -> None:
    """Public clients. Likely."""
    find_tag(engage, word)


def test_fact_08_our_client_finds_the_tag_of_a_job_that_completed_with_errors(engage: Target) -> None:
    """Public clients. Likely."""
    find_tag(engage, "CompletedWithErrors")


def find_tag(engage: Target, word: str) -> None:
    engage.moods(jobWords=[f"{word}=1"])
    order_id, outcome, _ = polled_job(engage)
    assert outcome == Ready(engage.tag(order_id))


@pytest.mark.parametrize("word", ["Failed", "FAILED", "Error"])
def test_fact_08_our_client_knows_a_job_that_failed(engage: Target, word: str) -> None:
    """Public clients. Likely."""
    engage.moods(jobWords=[f"{word}=1"])
    _, outcome, _ = polled_job(engage)
    assert isinstance(outcome, JobFailed)
    assert outcome.errors


@pytest.mark.parametrize("moods", [{"jobWords": ["Archived=1"]}, {"waitingWords": ["Queued=1"]}])
def test_fact_08_our_client_waits_where_it_does_not_know_the_word(engage: Target, moods: dict[str, object]) -> None:
    """The words are documented nowhere. Open: neither ready nor failed."""
    engage.moods(**moods)
    order_id, job_id = engage.create()
    if "jobWords" in moods:
        engage.tag(order_id)

    async def poll(w: Wired) -> PollOutcome:
        return await w.client.poll_job(job_id)

    outcome, _ = talk(engage, poll)
    expected = NotReady() if "jobWords" in moods else (NotReady(), Ready(engage.tag(order_id)))  # it may be done
    assert outcome in expected if isinstance(expected, tuple) else outcome == expected


# Fact 9: lastChangedAt


def newer(engage: Target, **more: str) -> PollOutcome:
    order_id, _ = engage.processed(engage.document(None, **more))

    async def poll(w: Wired) -> PollOutcome:
        return await w.client.poll_order(order_id, newer_than=datetime(2026, 1, 1, tzinfo=UTC))

    return talk(engage, poll)[0]


def test_fact_09_our_client_waits_for_a_newer_version_by_the_merchants_time(engage: Target) -> None:
    """API v3, POST orders: `lastChangedAt` is a field of the payload."""
    assert isinstance(newer(engage, lastChangedAt="2026-01-01T00:00:00Z"), Ready)
    assert newer(engage, lastChangedAt="2025-12-31T23:59:59Z") == NotReady()


def test_fact_09_our_client_says_at_once_that_an_order_has_no_time(engage: Target) -> None:
    """API v3, POST orders: where the merchant gave none, `newer_than` cannot be answered, however long one waits."""
    assert not isinstance(newer(engage), Ready | NOT_YET)


# Fact 10: changes


@pytest.mark.parametrize(
    ("change", "body"),
    [("change-status", {"status": "Shipped"}), ("change-delivery", {"trackingNumber": "JJ1", "method": "Box"})],
)
def test_fact_10_our_client_changes_an_order_and_polls_the_changes_job(
    engage: Target, change: Change, body: dict[str, object]
) -> None:
    """API v3, POST change-status and change-delivery."""
    order_id, before = engage.processed()

    async def make(w: Wired) -> PollOutcome:
        taken = await w.client.send_change(order_id, change, body)
        assert isinstance(taken, DocumentTaken)
        assert taken.job_id is not None
        await asyncio.to_thread(engage.finished, taken.job_id)
        return await w.client.poll_job(taken.job_id)

    outcome, sent = talk(engage, make)
    assert outcome == Ready(engage.tag(order_id))
    assert outcome != Ready(before)
    assert sent[0].line.split()[:2] == [b"POST", f"{ORDERS}/{order_id}/{change}".encode()]
    assert json.loads(sent[0].body) == body


def test_fact_10_our_client_waits_for_an_order_that_is_to_be_changed(engage: Target) -> None:
    """API v3, POST change-status: 404 where there is no such order."""
    order_id = str(engage.document()["orderId"])

    async def make(w: Wired) -> object:
        return await w.client.send_change(order_id, "change-status", {"status": "Shipped"})

    outcome, _ = talk(engage, make)
    assert outcome == NotFound()


# What is refused, in whatever form


@pytest.mark.parametrize("html_errors", [0, 1])
def test_fact_00_our_client_reads_a_refusal_by_its_status_in_json_and_html_alike(
    engage: Target, html_errors: float
) -> None:
    """Seen in the wild: an error page instead of JSON."""
    if html_errors or engage.controllable:
        engage.moods(htmlErrors=html_errors)
    order_id, _ = engage.processed()

    async def be_refused(w: Wired) -> tuple[object, object, object]:
        wrong = await w.client.send_document(order_id, {"contact": "nobody"})
        stale = await w.client.send_action(order_id, ActionRequest(action="Custom", version_tag="stale"))
        return wrong, stale, await w.client.poll_order(f"{order_id}-none")

    (wrong, stale, missing), _ = talk(engage, be_refused)
    assert isinstance(wrong, Rejected)
    assert wrong.status == 400
    assert (wrong.errors is None) == bool(html_errors)
    assert (stale, missing) == (StaleTag(), NotFound())


def test_fact_14_our_client_comes_back_when_it_is_told_to(engage: Target) -> None:
    """Non-functional requirements: 429 above 200 requests/s."""
    engage.needs_control()
    crowded = engage.with_key("crowded")

    async def poll(w: Wired) -> list[PollOutcome]:
        outcomes = []
        for _ in range(5):  # on a slow machine the second may be over before our client asks
            await asyncio.to_thread(all_at_once, crowded, 400)
            outcomes.append(await w.client.poll_order("none"))
        return outcomes

    assert Throttled(1.0) in talk(crowded, poll)[0]
