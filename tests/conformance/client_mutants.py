"""Clients that get a fact wrong: on the wire, or in what they read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from consumer.core.outcomes import (
    Accepted,
    DocumentTaken,
    InDoubt,
    JobFailed,
    NotFound,
    NotReady,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
)
from consumer.engage.client import EngageClient
from tests.conformance import test_client_facts as client
from tests.conformance.mutants import LISTED, Mutant, Patch, around, of
from tests.conformance.wire import without


def reading(name: str, was: type, becomes: object) -> Callable[[Patch], None]:
    """Let our client take one outcome of a call for another."""
    original = getattr(EngageClient, name)

    async def call(self: EngageClient, *arguments: Any, **named: Any) -> object:
        outcome = await original(self, *arguments, **named)
        return becomes if isinstance(outcome, was) else outcome

    return lambda patch: patch.setattr(EngageClient, name, call)


async def _data_as_text(
    original: Any, self: EngageClient, order_id: str, request: Any, *others: Any, **named: Any
) -> Any:
    return await original(
        self, order_id, request.model_copy(update={"data": json.dumps(request.data)}), *others, **named
    )


async def _only_listed(
    original: Any, self: EngageClient, order_id: str, request: Any, *others: Any, **named: Any
) -> Any:
    action = request.action if request.action in LISTED else "Custom"
    outcome = await original(self, order_id, request.model_copy(update={"action": action}), *others, **named)
    return outcome if action == request.action else Rejected(0, "unknown action")


async def _without_order_action(
    original: Any, self: EngageClient, order_id: str, document: Any, *others: Any, **named: Any
) -> Any:
    kept = {name: value for name, value in document.items() if name != "orderAction"}
    return await original(self, order_id, kept, *others, **named)


async def _kept_order(
    original: Any, self: EngageClient, order_id: str, document: Any, permit: Any, may_send: Any, how: Any, **named: Any
) -> Any:
    return await original(self, order_id, document, permit, may_send, replace(how, replaces=False), **named)


async def _as_document(original: Any, self: EngageClient, order_id: str, change: Any, body: Any, *_: Any) -> Any:
    return await self.send_document(order_id, {"orderId": order_id, **body})


async def _whenever(original: Any, self: EngageClient, order_id: str, *_: Any, **named: Any) -> Any:
    return await original(self, order_id)


CLIENTS = [
    Mutant(
        "polls without the content type, as ours did",
        [
            of(client.test_fact_01_every_request_of_our_client_has_the_content_type),
            of(client.test_fact_01_our_clients_poll_of_a_job_brings_the_tag),
        ],
        tamper=without(b"content-type", method=b"GET"),
    ),
    Mutant(
        "follows a redirect without the content type",
        [of(client.test_fact_01_our_client_keeps_the_content_type_when_it_follows_a_redirect)],
        tamper=without(b"content-type", path=b"/api/v3/orders/conformance"),
    ),
    Mutant(
        "does not say who it is",
        [of(client.test_fact_02_every_request_of_our_client_names_the_merchants_system)],
        tamper=without(b"user-agent", method=b"PUT"),
    ),
    Mutant(
        "knows the listed actions only",
        [of(client.test_fact_03_our_client_sends_any_text_as_an_action)],
        around(EngageClient, "send_action", _only_listed),
    ),
    Mutant(
        "sends data as text",
        [of(client.test_fact_04_our_client_sends_data_unchanged)],
        around(EngageClient, "send_action", _data_as_text),
    ),
    Mutant(
        "gives up an order that has no contact yet",
        [of(client.test_fact_05_our_client_does_not_give_up_an_action_for_a_contact_that_is_late)],
        reading("send_action", object, Rejected(422, "no contact")),
    ),
    Mutant(
        "drops the orderAction of a document",
        [of(client.test_fact_06_an_order_action_in_a_document_of_our_client_is_applied_once)],
        around(EngageClient, "send_document", _without_order_action),
    ),
    Mutant(
        "takes a 409 for the word that the document's action was carried out",
        [of(client.test_fact_06_our_client_replaces_an_order_that_exists_by_the_document_with_its_action)],
        around(EngageClient, "_post_or_put", _kept_order),
    ),
    Mutant(
        "drops the orderAction of a document that it sends for its action",
        [of(client.test_fact_06_our_client_replaces_an_order_that_exists_by_the_document_with_its_action)],
        around(EngageClient, "send_with_document", _without_order_action),
    ),
    Mutant(
        "does not learn of a document's job, so that its failure is never known",
        [of(client.test_fact_06_our_client_learns_of_a_document_whose_action_was_not_carried_out)],
        reading("send_with_document", DocumentTaken, DocumentTaken(None)),
    ),
    Mutant(
        "puts the whole order where a part of it changes",
        [
            of(
                client.test_fact_10_our_client_changes_an_order_and_polls_the_changes_job,
                change="change-status",
                body={"status": "Shipped"},
            )
        ],
        around(EngageClient, "send_change", _as_document),
    ),
    Mutant(
        "does not learn of a change's job, and would take the order's old tag",
        [
            of(
                client.test_fact_10_our_client_changes_an_order_and_polls_the_changes_job,
                change="change-delivery",
                body={"trackingNumber": "JJ1"},
            )
        ],
        reading("send_change", DocumentTaken, DocumentTaken(None)),
    ),
    Mutant(
        "gives up a change whose order is not there yet",
        [of(client.test_fact_10_our_client_waits_for_an_order_that_is_to_be_changed)],
        reading("send_change", NotFound, Rejected(404, "no such order")),
    ),
    Mutant(
        "does not follow a redirect",
        [
            *(
                of(client.test_fact_07_our_client_follows_a_redirect_to_our_own_origin, kind=kind)
                for kind in ("relative", "absolute")
            ),
            *(
                of(client.test_fact_07_our_client_asks_a_redirects_path_at_our_own_origin, kind=kind)
                for kind in ("other-scheme", "other-host")
            ),
        ],
        reading("poll_job", Ready, NotReady()),
    ),
    Mutant(
        "takes a 201 to an action for no acceptance",
        [of(client.test_fact_07_our_client_takes_201_as_202)],
        reading("send_action", Accepted, InDoubt("201")),
    ),
    Mutant(
        "takes a 201 to a document for no job",
        [of(client.test_fact_07_our_client_takes_201_as_202)],
        reading("send_document", DocumentTaken, DocumentTaken(None)),
    ),
    Mutant(
        "does not find the tag of a job that is done",
        [
            of(client.test_fact_08_our_client_finds_the_tag_of_a_completed_job, word="COMPLETED"),
            of(client.test_fact_08_our_client_finds_the_tag_of_a_job_that_completed_with_errors),
        ],
        reading("poll_job", Ready, NotReady()),
    ),
    Mutant(
        "polls a job for ever that has failed",
        [of(client.test_fact_08_our_client_knows_a_job_that_failed, word="Failed")],
        reading("poll_job", JobFailed, NotReady()),
    ),
    Mutant(
        "takes a word that it does not know for a failure",
        [of(client.test_fact_08_our_client_waits_where_it_does_not_know_the_word, moods={"jobWords": ["Archived=1"]})],
        reading("poll_job", NotReady, JobFailed("Archived")),
    ),
    Mutant(
        "takes any version for a newer one",
        [of(client.test_fact_09_our_client_waits_for_a_newer_version_by_the_merchants_time)],
        around(EngageClient, "poll_order", _whenever),
    ),
    Mutant(
        "waits for a time that no order will have",
        [of(client.test_fact_09_our_client_says_at_once_that_an_order_has_no_time)],
        reading("poll_order", object, NotReady()),
    ),
    Mutant(
        "takes a stale tag for a refusal",
        [
            of(client.test_fact_00_our_client_reads_a_refusal_by_its_status_in_json_and_html_alike, html_errors=html)
            for html in (0, 1)
        ],
        reading("send_action", StaleTag, Rejected(404, "stale")),
    ),
    Mutant(
        "does not hear when to come back",
        [of(client.test_fact_14_our_client_comes_back_when_it_is_told_to)],
        reading("poll_order", Throttled, Throttled()),
    ),
]
