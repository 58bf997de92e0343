"""Simulators that get a fact wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from consumer.simulator import api, world
from consumer.simulator.account import Account
from consumer.simulator.answer import Answer, read_object
from consumer.simulator.api import Api
from consumer.simulator.bodies import order_action
from consumer.simulator.world import World
from tests.conformance import test_client_facts as client
from tests.conformance import test_facts as facts
from tests.conformance.mutants import LISTED, Mutant, Patch, around, instead, of
from tests.conformance.target import JSON, PLAIN


def lenient(header: bytes, value: bytes, *, method: str | None = None) -> Callable[[Patch], None]:
    """Let a request pass as if it had the header."""

    def react(original: Any, self: Api, verb: str, target: bytes, headers: Any, body: bytes, now: float) -> Any:
        added = [(header, value)] if method in (None, verb) else []
        return original(self, verb, target, [*headers, *added], body, now)

    return around(Api, "react", react)


def answering(name: str, change: Callable[[Answer], Answer]) -> Callable[[Patch], None]:
    """Change what one of Engage's calls answers."""
    return around(World, name, lambda original, *arguments: change(original(*arguments)))


def with_fields(**fields: object) -> Callable[[Answer], Answer]:
    def change(answer: Answer) -> Answer:
        body = read_object(answer.body)
        return (
            answer if body is None or answer.status >= 400 else replace(answer, body=json.dumps(body | fields).encode())
        )

    return change


def status(was: int, now: int) -> Callable[[Patch], None]:
    """Answer with another status."""

    def react(original: Any, *arguments: Any) -> Any:
        reaction = original(*arguments)
        answer = reaction.answer
        return replace(reaction, answer=replace(answer, status=now)) if answer.status == was else reaction

    return around(Api, "react", react)


def more_errors(name: str, wrong: Callable[[dict[str, Any]], bool]) -> Callable[[Patch], None]:
    """Refuse more bodies than Engage does."""

    def errors(original: Any, *arguments: Any) -> Any:
        body = arguments[-1]
        return [*original(*arguments), *([("", "refused")] if body is not None and wrong(body) else [])]

    return around(world, name, errors)


def _literally(original: Any, self: Api, method: str, target: bytes, headers: Any, body: bytes, now: float) -> Any:
    kept = [(name, value) for name, value in headers if name != b"content-type" or value == JSON.encode()]
    return original(self, method, target, kept, body, now)


def _created_again(original: Any, self: World, body: bytes, now: float) -> Answer:
    answer: Answer = original(self, body, now)
    return self.replace_order(str((read_object(body) or {})["orderId"]), body, now) if answer.status == 409 else answer


def _any_tag(original: Any, self: World, order_id: str, tag: str, now: float) -> Any:
    order = self._order(order_id, now)
    return None if order is None or order.current is None else (order, order.current)


def _at_once(original: Any, self: World, order: Any, document: Any, body: bytes, now: float) -> Any:
    action = order_action(document)
    version = original(self, order, document | {"orderAction": None}, body, now)
    if action is not None:
        self._accept(order.order_id, version, action, now, with_document=True)
    return version


def _merged(original: Any, self: World, order: Any, document: Any, body: bytes, now: float) -> Any:
    former = {} if order.current is None else self._document(order.order_id, order.current)
    return original(self, order, document, json.dumps(former | document).encode(), now)


def _any_body(original: Any, self: World, order_id: str, change: Any, body: bytes, now: float) -> Answer:
    body = body if isinstance(read_object(body), dict) else b'{"status": "x", "method": "x"}'
    answer: Answer = original(self, order_id, change, body, now)
    return answer


def _without_data(
    original: Any, self: World, order_id: str, version: Any, action: Any, now: float, **named: Any
) -> None:
    original(self, order_id, version, replace(action, data=None), now, **named)


def _dated_by_engage(original: Any, self: World, *arguments: Any) -> dict[str, object]:
    return {"lastChangedAt": "2026-01-01T00:00:00Z", **original(self, *arguments)}


def _without_log(original: Any, self: Account) -> dict[str, object]:
    return {**original(self), "integrationLog": {}}


def _by_itself(original: Any, self: World, moods: Any) -> None:
    original(self, replace(moods, contact_link="itself"))


def _tags_of_the_order(original: Any, self: World, job_id: str, subject: Any, *arguments: Any, **named: Any) -> Any:
    version = original(self, job_id, subject, *arguments, **named)
    version.tag = f"tag of {subject[0]}"
    return version


def _to_ourselves(original: Any, self: Api, answer: Answer, headers: Any) -> Answer:
    written: Answer = original(self, answer, headers)
    return replace(written, location=answer.location)


def _location(path: str) -> Callable[[Answer], Answer]:
    return lambda answer: answer if answer.location is None else replace(answer, location=path)


SIMULATORS = [
    Mutant("takes any call without a key", [of(facts.test_fact_00_every_call_needs_the_key)], lenient(b"apikey", b"k")),
    Mutant(
        "names no job",
        [of(facts.test_fact_00_a_created_order_is_taken_with_a_job)],
        answering("create_order", with_fields(jobId=None)),
    ),
    Mutant(
        "creates an order twice",
        [of(facts.test_fact_00_an_order_is_created_once)],
        around(World, "create_order", _created_again),
    ),
    Mutant(
        "calls a wrong document a conflict",
        [of(facts.test_fact_00_a_document_that_is_wrong_is_refused_with_a_list_of_errors)],
        status(400, 409),
    ),
    Mutant(
        "makes up what nobody created",
        [of(facts.test_fact_00_an_unknown_order_is_not_found)],
        options=replace(PLAIN, unknown_orders="create"),
    ),
    Mutant(
        "hides the tag",
        [of(facts.test_fact_00_the_tag_comes_with_the_processing)],
        answering("order", with_fields(versionTag=None)),
    ),
    Mutant(
        "takes a stale tag",
        [
            of(facts.test_fact_00_a_stale_tag_is_not_found_and_the_newest_is_accepted),
            of(
                facts.test_fact_10_a_change_is_a_job_with_a_new_tag_and_leaves_the_other_fields,
                path="change-status",
                body={"status": "x"},
            ),
        ],
        around(World, "_current", _any_tag),
    ),
    Mutant(
        "never answers with a page",
        [of(facts.test_fact_00_errors_come_as_json_or_as_a_page_and_the_status_says_which)],
        instead(api, "error_page", lambda answer: answer),
    ),
    Mutant(
        "serves a GET without the content type, as ours did",
        [
            of(facts.test_fact_01_a_call_without_the_content_type_fails_even_a_get, call="GET order"),
            of(facts.test_fact_01_a_call_without_the_content_type_fails_even_a_get, call="GET job"),
            of(facts.test_fact_01_a_redirect_that_is_followed_needs_the_content_type_too),
        ],
        lenient(b"content-type", b"application/json", method="GET"),
    ),
    Mutant(
        "calls a missing content type what it is",
        [of(facts.test_fact_01_a_call_without_the_content_type_fails_even_a_get, call=call) for call in facts.CALLS],
        status(500, 415),
    ),
    Mutant(
        "compares the content type case by case",
        [
            of(facts.test_fact_01_the_content_type_may_be_written_as_http_allows, written="Application/JSON"),
            of(
                facts.test_fact_01_the_content_type_may_be_written_as_http_allows,
                written="application/json; charset=utf-8",
            ),
        ],
        around(Api, "react", _literally),
    ),
    Mutant(
        "serves whoever does not say who they are",
        [of(facts.test_fact_02_a_call_without_a_user_agent_is_refused, call=call) for call in facts.CALLS],
        lenient(b"user-agent", b"x"),
    ),
    Mutant(
        "takes the listed actions only, as ours did",
        [of(facts.test_fact_03_an_action_is_any_text, name=name) for name in facts.ANY_NAMES if name not in LISTED],
        more_errors("action_errors", lambda request: request.get("action") not in LISTED),
    ),
    Mutant(
        "takes an action without a name",
        [of(facts.test_fact_03_an_action_without_a_name_is_refused)],
        instead(world, "action_errors", lambda request: []),
    ),
    Mutant(
        "takes data of one type only",
        [
            of(facts.test_fact_04_data_is_any_json, data="a text"),
            of(facts.test_fact_04_data_is_any_json, data=[1, None]),
        ],
        more_errors("action_errors", lambda request: not isinstance(request.get("data"), dict)),
    ),
    Mutant(
        "loses data",
        [of(facts.test_fact_04_data_is_any_json, data={"rows": []})],
        around(World, "_accept", _without_data),
    ),
    Mutant(
        "takes an action upon an order without a contact",
        [
            of(facts.test_fact_05_an_action_upon_an_order_without_a_contact_is_422),
            of(facts.test_fact_05_an_order_whose_contact_is_unknown_is_accepted_all_the_same),
            of(facts.test_fact_05_a_contact_that_comes_late_ends_the_422),
            of(facts.test_fact_06_an_order_action_without_a_contact_is_lost_without_an_answer),
        ],
        instead(World, "_is_linked", lambda *_: True),
    ),
    Mutant(
        "calls an order without a contact a bad request",
        [of(facts.test_fact_05_an_action_upon_an_order_without_a_contact_is_422)],
        status(422, 400),
    ),
    Mutant(
        "refuses an order whose contact is unknown",
        [of(facts.test_fact_05_an_order_whose_contact_is_unknown_is_accepted_all_the_same)],
        more_errors("document_errors", lambda document: document["contact"]["matchKey"].startswith("nobody")),
    ),
    Mutant(
        "writes nothing into the integration log",
        [
            of(facts.test_fact_05_an_order_whose_contact_is_unknown_is_accepted_all_the_same),
            of(facts.test_fact_06_an_order_action_without_a_contact_is_lost_without_an_answer),
        ],
        around(Account, "summary", _without_log),
    ),
    Mutant(
        "never links a contact that comes late",
        [
            of(facts.test_fact_05_a_contact_that_comes_late_ends_the_422),
            of(facts.test_fact_05_an_order_that_is_put_again_after_its_contact_came_is_linked),
        ],
        instead(World, "register_contacts", lambda *_: None),
    ),
    Mutant(
        "links an order that was not put again",
        [of(facts.test_fact_05_an_order_that_is_put_again_after_its_contact_came_is_linked)],
        around(World, "set_moods", _by_itself),
    ),
    Mutant(
        "ignores an orderAction",
        [
            of(facts.test_fact_06_an_order_action_is_applied_when_its_version_is_processed, method="POST"),
            of(facts.test_fact_06_an_order_action_is_applied_when_its_version_is_processed, method="PUT"),
            of(facts.test_fact_06_an_order_action_and_an_action_of_ours_are_two),
            of(client.test_fact_06_an_order_action_in_a_document_of_our_client_is_applied_once),
        ],
        instead(world, "order_action", lambda document: None),
    ),
    Mutant(
        "carries an orderAction out before the version is processed",
        [
            of(facts.test_fact_06_an_order_action_is_applied_when_its_version_is_processed, method="POST"),
            of(facts.test_fact_06_an_order_action_is_applied_when_its_version_is_processed, method="PUT"),
        ],
        around(World, "_put", _at_once),
    ),
    Mutant(
        "shows a job another tag than its order",
        [of(facts.test_fact_07_a_job_that_is_done_leads_to_its_tag)],
        answering("job", with_fields(versionTag="another")),
    ),
    Mutant(
        "redirects to our own origin only",
        [
            of(facts.test_fact_07_a_redirects_path_is_the_orders_whatever_host_it_names, kind=kind)
            for kind in ("absolute", "other-scheme", "other-host")
        ],
        around(Api, "_written", _to_ourselves),
    ),
    Mutant(
        "redirects to another path",
        [
            of(facts.test_fact_07_a_redirects_path_is_the_orders_whatever_host_it_names, kind=kind)
            for kind in ("relative", "other-host")
        ],
        answering("job", _location("/orders")),
    ),
    Mutant(
        "has no words but its own",
        [
            of(facts.test_fact_07_a_redirects_path_is_the_orders_whatever_host_it_names, kind="relative"),
            of(facts.test_fact_08_a_job_in_another_word_has_its_tag_at_the_order, word="CompletedWithErrors"),
            of(facts.test_fact_08_a_job_may_be_under_way_in_another_word),
        ],
        instead(world, "pick", lambda *_: None),
    ),
    Mutant(
        "processes what it says has failed",
        [of(facts.test_fact_07_a_job_that_cannot_be_processed_answers_with_an_error)],
        instead(world, "FAILED_WORDS", ()),
    ),
    Mutant(
        "never says 201",
        [of(facts.test_fact_07_an_acceptance_is_201_or_202, created=1, status=201)],
        instead(World, "_acceptance", lambda *_: 202),
    ),
    Mutant(
        "always says 201",
        [of(facts.test_fact_07_an_acceptance_is_201_or_202, created=0, status=202)],
        instead(World, "_acceptance", lambda *_: 201),
    ),
    Mutant(
        "says that a job is done in a word of its own",
        [of(facts.test_fact_08_a_job_says_how_far_it_is)],
        instead(world, "COMPLETED", "Done"),
    ),
    Mutant(
        "gives every job its tag",
        [of(facts.test_fact_08_a_job_in_another_word_has_its_tag_at_the_order, word="Archived")],
        answering("job", with_fields(versionTag="tag")),
    ),
    Mutant(
        "dates orders itself, as ours did",
        [of(facts.test_fact_09_an_order_has_last_changed_at_only_where_the_merchant_says_it)],
        around(World, "_document", _dated_by_engage),
    ),
    Mutant(
        "keeps the tag through a change",
        [
            of(
                facts.test_fact_10_a_change_is_a_job_with_a_new_tag_and_leaves_the_other_fields,
                path="change-delivery",
                body=facts.CHANGED_DELIVERY,
            ),
            of(facts.test_fact_10_put_replaces_everything),
        ],
        around(World, "_version", _tags_of_the_order),
    ),
    Mutant(
        "forgets the other fields of an order that is changed",
        [
            of(
                facts.test_fact_10_a_change_is_a_job_with_a_new_tag_and_leaves_the_other_fields,
                path="change-status",
                body={"status": "x"},
            )
        ],
        around(
            world, "apply_change", lambda original, document, *others: (document.clear(), original(document, *others))
        ),
    ),
    Mutant(
        "takes any body for a change",
        [of(facts.test_fact_10_a_change_that_is_no_object_is_refused, path="change-status")],
        around(World, "change_order", _any_body),
    ),
    Mutant(
        "keeps what a PUT leaves out", [of(facts.test_fact_10_put_replaces_everything)], around(World, "_put", _merged)
    ),
    Mutant(
        "has no limit",
        [of(facts.test_fact_14_more_than_the_limit_in_a_second_is_429_with_when_to_come_back)],
        options=replace(PLAIN, requests_per_second=0),
    ),
]
