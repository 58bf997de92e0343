"""Changes that come before the action, actions that travel in the document, and Engage's moods all at once."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.rules import RouteRule
from consumer.simulator import Moods
from schemas.dead_letter import Reason
from schemas.pending_action import OnUnknown
from tests.support.books import Books
from tests.support.engage import Asked, Engage, Reply, ScriptedEngage, tagged_order
from tests.support.events import event, order_id, publish
from tests.support.relay_thread import QUICK, RelayThread
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import until

ORDER = order_id("changed")
CONTACT = {"contact": {"matchKey": "customer@example.com", "matchKeyType": "Email"}}
CHANGES = {
    "delivery": RouteRule(
        when="type == 'parcel.sent'", action="ConfirmShipment", change_delivery="delivery", data="data"
    ),
    "status": RouteRule(
        when="type == 'order.closed'", action="ConfirmCompletion", change_status="{status: state}", data="data"
    ),
}


def in_the_document(on_unknown: OnUnknown = "resend") -> dict[str, RouteRule]:
    return {
        "paid": RouteRule(
            when="type == 'order.paid'",
            action="ConfirmOrder",
            order="order",
            send="with_document",
            language="'sv'",
            data="data",
            on_unknown=on_unknown,
        )
    }


def parcel_sent(order: str, number: int = 1, **delivery: object) -> tuple[str, bytes]:
    return order, event(order, number, kind="parcel.sent", delivery={"trackingNumber": "JJ1", **delivery})


def paid(order: str, number: int = 1, **more: object) -> tuple[str, bytes]:
    return order, event(order, number, kind="order.paid", order={"orderId": order, **CONTACT, **more})


# Changes


def test_a_change_is_made_first_and_its_action_has_the_new_tag(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with (
        Engage(processing="fixed:200ms") as engage,
        RelayThread(sandbox, engage.url, rules=CHANGES),
        Books(sandbox) as books,
    ):
        engage.submit(ORDER, takes_s=0.0)
        before = engage.tag(ORDER)
        closed = event(ORDER, 2, kind="order.closed", state="Completed")
        publish(sandbox, [parcel_sent(ORDER, method="Box"), (ORDER, closed)])
        books.wait_until_settled()
        assert books.dead_letters == []
        assert engage.events_of(ORDER) == [1, 2]
        first, second = engage.accepted_of(ORDER)
        assert len({before, first.version_tag, second.version_tag}) == 3
        order = engage.document(ORDER)
        assert (order["delivery"], order["status"]) == ({"trackingNumber": "JJ1", "method": "Box"}, "Completed")


def test_a_change_waits_for_its_order(sandboxes: SandboxFactory) -> None:
    sandbox, policy = sandboxes(), replace(QUICK, not_found_grace_s=60.0)
    with Engage() as engage, RelayThread(sandbox, engage.url, rules=CHANGES, policy=policy), Books(sandbox) as books:
        publish(sandbox, [parcel_sent(ORDER)])
        until(lambda: engage.requests["document", "404"] >= 2, "the change is tried before its order is there")
        engage.submit(ORDER)
        books.wait_until_settled()
        assert books.dead_letters == []
        assert len(engage.accepted_of(ORDER)) == 1


def test_a_change_that_cannot_be_made_is_a_dead_letter_that_says_why(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url, rules=CHANGES), Books(sandbox) as books:
        engage.submit(ORDER)
        never = order_id("never")
        no_object = event(ORDER, 1, kind="parcel.sent", delivery="by post")
        refused = event(ORDER, 2, kind="order.closed", state="")
        publish(sandbox, [(ORDER, no_object), (ORDER, refused), parcel_sent(never)])
        books.wait_until_settled()
        reasons = {json.loads(each.value or b"")["type"]: each.reason for each in books.dead_letters[:2]}
        assert reasons == {"parcel.sent": Reason.INVALID_EVENT, "order.closed": Reason.POLL_REJECTED}
        assert [each.reason for each in books.dead_letters[2:]] == [Reason.NOT_FOUND]
        assert "change_delivery" in books.dead_letters[0].why.detail
        assert engage.accepted == []


# Actions that travel in the document


def test_an_action_in_its_document_costs_one_request_and_is_accepted_once(sandboxes: SandboxFactory) -> None:
    sandbox, orders = sandboxes(), [order_id(str(n)) for n in range(20)]
    with (
        Engage(processing="fixed:50ms") as engage,
        RelayThread(sandbox, engage.url, rules=in_the_document()) as relay,
        Books(sandbox) as books,
    ):
        publish(sandbox, [paid(order) for order in orders])
        books.wait_until_settled()
        assert books.dead_letters == []
        assert [[each.with_document for each in engage.accepted_of(order)] for order in orders] == [[True]] * 20
        first = engage.accepted_of(orders[0])[0]
        assert (first.action, first.language) == ("ConfirmOrder", "sv")
        assert engage.requests["document", "202"] == 20
        assert engage.actions_asked() == 0
        outcome = {"connection": "default", "action": "ConfirmOrder", "outcome": "accepted"}
        assert relay.metric("actions_answered_total", **outcome) == 20


def test_an_order_that_exists_is_replaced_by_the_document_with_the_action(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage() as engage, RelayThread(sandbox, engage.url, rules=in_the_document()), Books(sandbox) as books:
        engage.submit(ORDER)
        publish(sandbox, [paid(ORDER, 1, status="new"), paid(ORDER, 2, status="newer")])
        books.wait_until_settled()
        assert books.dead_letters == []
        assert engage.events_of(ORDER) == [1, 2]
        assert engage.document(ORDER)["status"] == "newer"


def test_a_job_that_fails_is_a_dead_letter_and_its_action_was_not_run(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with (
        Engage(processing="fixed:200ms", failing=1.0) as engage,
        RelayThread(sandbox, engage.url, rules=in_the_document()),
        Books(sandbox) as books,
    ):
        publish(sandbox, [paid(ORDER)])
        books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.JOB_FAILED]
        assert engage.accepted == []


def test_in_doubt_it_is_sent_again_although_its_order_is_there(sandboxes: SandboxFactory) -> None:
    """The 409 says that the document came, not that its action was run."""
    sandbox, lost = sandboxes(), 0

    def script(asked: Asked) -> Reply:
        nonlocal lost
        if asked.method == "POST":
            lost += 1
            return Reply(504) if lost == 1 else Reply(409)
        return Reply(202, {"jobId": "j-1"}) if asked.method == "PUT" else tagged_order(asked)

    with (
        ScriptedEngage(script) as engage,
        RelayThread(sandbox, engage.url, rules=in_the_document()),
        Books(sandbox) as books,
    ):
        publish(sandbox, [paid(ORDER)])
        books.wait_until_settled()
        assert books.dead_letters == []
        sent = [each for each in engage.asked if each.method in ("POST", "PUT")]
        assert [each.method for each in sent] == ["POST", "POST", "PUT"]
        assert all(json.loads(each.body)["orderAction"]["action"] == "ConfirmOrder" for each in sent)


def test_in_doubt_it_is_left_to_a_person_where_the_route_says_so(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with (
        Engage(faults=("lost-answer=1,calls=document",)) as engage,
        RelayThread(sandbox, engage.url, rules=in_the_document("dead_letter")),
        Books(sandbox) as books,
    ):
        publish(sandbox, [paid(ORDER)])
        books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.OUTCOME_UNKNOWN]
        assert engage.requests.total() == 1


def test_after_a_restart_a_taken_document_is_polled_and_not_sent_again(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    with Engage(processing="fixed:2s") as engage, Books(sandbox) as books:
        with RelayThread(sandbox, engage.url, rules=in_the_document()):
            publish(sandbox, [paid(ORDER)])
            until(lambda: any(each.job_id for each in books.read().live.values()), "the job is known")
        with RelayThread(sandbox, engage.url, rules=in_the_document()):
            books.wait_until_settled()
        assert books.dead_letters == []
        assert len(engage.accepted_of(ORDER)) == 1
        assert engage.requests["document", "202"] == 1


def test_a_document_with_an_action_of_its_own_is_no_e_mail_but_a_dead_letter(sandboxes: SandboxFactory) -> None:
    sandbox, rules = sandboxes(), {**in_the_document(), **BUILT_IN_ROUTES}
    with Engage() as engage, RelayThread(sandbox, engage.url, rules=rules), Books(sandbox) as books:
        own = {"orderAction": {"action": "ConfirmOrder"}}
        by_itself = event(ORDER, 2, order={"orderId": ORDER, **CONTACT, **own})
        publish(sandbox, [paid(ORDER, 1, **own), (ORDER, by_itself)])
        books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.INVALID_EVENT] * 2
        assert engage.requests.total() == 0


# Over a restart


def test_over_a_restart_a_contact_has_the_rest_of_its_grace_and_no_more(sandboxes: SandboxFactory) -> None:
    sandbox, policy = sandboxes(), replace(QUICK, contact_grace_s=4.0)
    with Engage(moods=Moods(missing_contacts=1)) as engage, Books(sandbox) as books:
        published = event(ORDER, engage={"jobId": engage.submit(ORDER)})
        with RelayThread(sandbox, engage.url, policy=policy):
            publish(sandbox, [(ORDER, published)])
            until(lambda: any(each.contact_until_ms for each in books.read().live.values()), "it has no contact")
        over_at_ms = max(each.contact_until_ms or 0 for each in books.live.values())
        until(lambda: time.time() * 1000 > over_at_ms, "its grace is over")
        with RelayThread(sandbox, engage.url, policy=policy):
            books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.NO_CONTACT
        assert engage.requests["action", "422"] == 2


def test_over_a_restart_the_next_action_waits_for_one_in_doubt_that_is_not_sent_again(
    sandboxes: SandboxFactory,
) -> None:
    """Engage may still be at work on the confirmation, and would carry the shipment out before it."""
    sandbox, policy = sandboxes(), replace(QUICK, processing_s=3.0)
    rules = {name: rule.model_copy(update={"on_unknown": "dead_letter"}) for name, rule in BUILT_IN_ROUTES.items()}
    asked_at: list[float] = []

    def script(asked: Asked) -> Reply:
        if not asked.path.endswith("/action"):
            return tagged_order(asked)
        asked_at.append(time.monotonic())
        return Reply(504 if len(asked_at) == 1 else 202)

    with ScriptedEngage(script) as engage, Books(sandbox) as books:
        with RelayThread(sandbox, engage.url, rules=rules, policy=policy) as relay:
            publish(sandbox, [(ORDER, event(ORDER, 1))])
            outcome = {"connection": "default", "action": "ConfirmOrder", "outcome": "in_doubt"}
            until(lambda: relay.metric("actions_answered_total", **outcome), "the confirmation is in doubt")
        restarted_at = time.monotonic()
        publish(sandbox, [(ORDER, event(ORDER, 2))])
        with RelayThread(sandbox, engage.url, rules=rules, policy=policy):
            books.wait_until_settled()
        assert [each.reason for each in books.dead_letters] == [Reason.OUTCOME_UNKNOWN]
        assert len(asked_at) == 2
        assert asked_at[1] - restarted_at >= 3.0


# All of it at once


def test_nothing_is_lost_with_a_contact_in_time_in_an_engage_as_it_is_documented(sandboxes: SandboxFactory) -> None:
    """5 % late contacts, 20 % redirects to an internal host, 10 % jobs that completed with errors.

    The content type is always demanded. Tags come from jobs, orders, documents and changes, and some actions need none.
    """
    moods = Moods(
        late_contacts=0.05,
        contact_delay="uniform:500ms..3s",
        redirects=("other-host=0.2",),
        job_words=("CompletedWithErrors=0.1",),
    )
    kinds = ("job", "order", "document", "change", "with document")
    orders = {order_id(f"{kind[0]}{n}"): kind for n in range(60) for kind in kinds}
    sandbox, policy = sandboxes(partitions=3), replace(QUICK, contact_grace_s=6.0)
    rules = {**CHANGES, **in_the_document(), **BUILT_IN_ROUTES}
    with (
        Engage(processing="uniform:50ms..500ms", moods=moods) as engage,
        RelayThread(sandbox, engage.url, rules=rules, policy=policy),
        Books(sandbox) as books,
    ):
        # Engage says nothing of an action in a document that found no contact: so it must be known before.
        engage.register_contacts([order for order, kind in orders.items() if kind == "with document"])
        # The contacts are late by their orders' age: the orders come, a few at once, when the relay has its partitions.
        publish(sandbox, [_event_of(order_id("first"), "job", engage)])
        books.wait_until_settled()
        for kind in kinds:
            publish(sandbox, [_event_of(order, kind, engage) for order, of in orders.items() if of == kind])
        books.wait_until_settled()
        assert books.dead_letters == []
        assert {order: len(engage.accepted_of(order)) for order in orders} == dict.fromkeys(orders, 1)
        requests = engage.requests
        assert requests["action", "422"] > 0
        assert requests["job", "302"] > 20
        assert not any(status == "500" for _, status in requests)


def _event_of(order: str, kind: str, engage: Engage) -> tuple[str, bytes]:
    """Publish after the platform has submitted the order, where the event does not carry it."""
    if kind == "document":
        return order, event(order, order={"orderId": order, **CONTACT})
    if kind == "with document":
        return paid(order)
    job_id = engage.submit(order)
    if kind == "change":
        return parcel_sent(order)
    return order, event(order, 1, engage={"jobId": job_id} if kind == "job" else {})
