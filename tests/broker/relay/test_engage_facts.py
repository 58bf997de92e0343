"""The relay against an Engage that does all that its documentation allows (docs/engage.md)."""

from __future__ import annotations

from dataclasses import replace

from consumer.simulator import Moods
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_thread import QUICK, RelayThread
from tests.support.sandbox import SandboxFactory

CONTACT_GRACE_S = 4.0
IN_A_HURRY = replace(QUICK, contact_grace_s=CONTACT_GRACE_S)


def test_nothing_is_lost_or_doubled_in_any_of_engages_moods(sandboxes: SandboxFactory) -> None:
    moods = Moods(
        late_contacts=0.1,
        contact_delay="uniform:1s..3s",
        redirects=("other-host=0.2", "other-scheme=0.1", "absolute=0.1", "relative=0.1"),
        job_words=("CompletedWithErrors=0.1", "COMPLETED=0.1"),
        waiting_words=("Queued=0.5",),
        created=0.2,
        html_errors=0.5,
    )
    sandbox, orders = sandboxes(partitions=3), [order_id(str(n)) for n in range(80)]
    with (
        Engage(processing="uniform:50ms..500ms", moods=moods) as engage,
        RelayThread(sandbox, engage.url, policy=IN_A_HURRY),
        Books(sandbox) as books,
    ):
        # The contacts are late by their orders' age, so the orders come once the relay has its partitions.
        for each in ([order_id("first")], orders):
            publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)})) for order in each])
            books.wait_until_settled()
        assert books.dead_letters == []
        assert [len(engage.accepted_of(order)) for order in orders] == [1] * len(orders)
        requests = engage.requests
        assert requests["action", "422"] > 0
        assert requests["action", "201"] > 0
        assert requests["job", "302"] > 0


def test_a_contact_that_never_comes_ends_as_a_dead_letter_of_its_own_reason(sandboxes: SandboxFactory) -> None:
    sandbox, order = sandboxes(), order_id("missing")
    with (
        Engage(moods=Moods(missing_contacts=1)) as engage,
        RelayThread(sandbox, engage.url, policy=IN_A_HURRY),
        Books(sandbox) as books,
    ):
        publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)}))])
        books.wait_until_settled()
        (dead_letter,) = books.dead_letters
        assert dead_letter.reason is Reason.NO_CONTACT
        assert engage.requests["action", "422"] >= 2


def test_an_order_that_must_be_put_again_for_its_contact_is_where_the_event_has_it(sandboxes: SandboxFactory) -> None:
    moods = Moods(late_contacts=1, contact_delay="fixed:1s", contact_link="again")
    sandbox, order = sandboxes(), order_id("again")
    document = {"orderId": order, "contact": {"matchKey": "customer@example.com", "matchKeyType": "Email"}}
    with (
        Engage(moods=moods) as engage,
        RelayThread(sandbox, engage.url, policy=IN_A_HURRY),
        Books(sandbox) as books,
    ):
        publish(sandbox, [(order, event(order, order=document))])
        books.wait_until_settled()
        assert books.dead_letters == []
        assert len(engage.accepted_of(order)) == 1
        assert engage.requests["document", "202"] == 2
