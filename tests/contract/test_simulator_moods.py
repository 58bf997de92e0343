"""The simulator's moods: contacts, redirects, words of jobs, 201, HTML errors, `lastChangedAt`, `orderAction`."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest

from consumer.simulator import Moods, SimulatorOptions
from consumer.simulator.account import AcceptedAction
from consumer.simulator.answer import read_object
from consumer.simulator.moods import read_moods
from consumer.simulator.world import World
from tests.contract.test_simulator import DOCUMENT, ORDERS, Simulated, simulating

ACTION = {"action": "ConfirmShipment", "language": "sv", "data": {"parcel": 1}}


def moody(moods: Moods, processing: str = "fixed:2s", **options: object) -> SimulatorOptions:
    return SimulatorOptions(processing=processing, moods=moods, **options)  # type: ignore[arg-type]


def world_in(moods: Moods) -> World:
    return World(seed=0, processing=SimulatorOptions(processing="instant").version_processing(), moods=moods)


def put_again(simulated: Simulated, **more: object) -> None:
    assert simulated.client.put(f"{ORDERS}/A-1", json=DOCUMENT | more).status_code == 202
    simulated.pass_seconds(2)


def log_of(simulated: Simulated) -> object:
    return simulated.account("?summary=1")["integrationLog"]


# Contacts


def test_a_late_contact_links_its_order_by_itself() -> None:
    with simulating(moody(Moods(late_contacts=1, contact_delay="fixed:30s"))) as simulated:
        simulated.create()
        simulated.pass_seconds(29)
        assert simulated.act(simulated.tag()).status_code == 422
        simulated.pass_seconds(1)
        assert simulated.act(simulated.tag()).status_code == 202
        assert log_of(simulated) == {"the contact is unknown": 1}


def test_a_late_contact_links_only_the_order_that_is_put_again_where_so_chosen() -> None:
    with simulating(moody(Moods(late_contacts=1, contact_delay="fixed:30s", contact_link="again"))) as simulated:
        simulated.create()
        simulated.pass_seconds(20)
        put_again(simulated)
        simulated.pass_seconds(20)
        assert simulated.act(simulated.tag()).status_code == 422, "it was put again before the contact came"
        simulated.client.post(f"{ORDERS}/A-1/change-status", json={"status": "Shipped"})
        simulated.pass_seconds(2)
        assert simulated.act(simulated.tag()).status_code == 422, "a change does not say whose order it is"
        put_again(simulated)
        assert simulated.act(simulated.tag()).status_code == 202


@pytest.mark.parametrize("link", ["itself", "again"])
def test_a_missing_contact_comes_when_somebody_registers_it(link: str) -> None:
    with simulating(moody(read_moods({"missingContacts": 1, "contactLink": link}))) as simulated:
        simulated.create()
        simulated.pass_seconds(1e7)
        put_again(simulated)
        assert simulated.act(simulated.tag()).status_code == 422
        simulated.pass_seconds(1)
        registered = httpx.post(f"{simulated.simulator.url}/simulator/contacts", json={"orderIds": ["A-1", "B-1"]})
        assert registered.status_code == 200
        assert simulated.act(simulated.tag()).status_code == (202 if link == "itself" else 422)
        put_again(simulated)
        assert simulated.act(simulated.tag()).status_code == 202
        simulated.create("B-1")
        simulated.pass_seconds(2)
        assert simulated.act(simulated.tag("B-1"), order_id="B-1").status_code == 202, "registered before its order"


def test_a_change_upon_a_version_that_never_completes_finds_no_contact_before_it_came() -> None:
    world = world_in(Moods(late_contacts=1, contact_delay="fixed:10s", contact_link="again"))
    world.submit_order("A", 0.0, fate="never")
    world.change_order("A", "change-status", b'{"status": "Shipped"}', 1.0)
    tag = world.current_tag("A", 2.0)
    assert world.act("A", f'{{"action": "Custom", "versionTag": "{tag}"}}'.encode(), 2.0).status == 422


def test_an_order_that_names_no_contact_has_none_whoever_is_registered() -> None:
    with simulating(moody(Moods())) as simulated:
        simulated.client.post(ORDERS, json={"orderId": "A-1"})
        httpx.post(f"{simulated.simulator.url}/simulator/contacts", json={"orderIds": ["A-1"]})
        simulated.pass_seconds(2)
        assert simulated.act(simulated.tag()).status_code == 422
        assert log_of(simulated) == {}


def test_the_share_of_orders_whose_contact_is_late_or_missing() -> None:
    world = world_in(Moods(late_contacts=0.1, missing_contacts=0.05, contact_delay="fixed:10s"))
    orders = [f"A-{n}" for n in range(3000)]
    for order_id in orders:
        world.submit_order(order_id, 0.0)

    def refused(now: float) -> int:
        bodies = ((o, f'{{"action": "Custom", "versionTag": "{world.current_tag(o, now)}"}}') for o in orders)
        return sum(world.act(order_id, body.encode(), now).status == 422 for order_id, body in bodies)

    assert refused(9) == pytest.approx(450, rel=0.15)
    assert refused(10) == pytest.approx(150, rel=0.2)


# Actions that come with a document


def test_an_order_action_is_applied_once_its_version_is_processed() -> None:
    with simulating(moody(Moods())) as simulated:
        simulated.client.post(ORDERS, json=DOCUMENT | {"orderAction": ACTION})
        simulated.pass_seconds(1.9)
        assert simulated.account()["accepted"] == 0
        simulated.pass_seconds(5)
        (action,) = simulated.simulator.world.account.accepted
        tag = simulated.tag()
        assert tag is not None
        assert action == AcceptedAction(
            sequence=1,
            order_id="A-1",
            action="ConfirmShipment",
            version_tag=tag,
            language="sv",
            data={"parcel": 1},
            tag_ready_at=simulated.clock() - 4.9,
            accepted_at=simulated.clock() - 4.9,
            with_document=True,
        )
        assert "orderAction" not in simulated.client.get(f"{ORDERS}/A-1").json()


def test_an_order_action_that_is_put_again_is_applied_again_and_a_change_carries_none() -> None:
    with simulating(moody(Moods())) as simulated:
        simulated.client.post(ORDERS, json=DOCUMENT | {"orderAction": ACTION})
        simulated.pass_seconds(2)
        simulated.client.post(f"{ORDERS}/A-1/change-delivery", json={"method": "Pickup"})
        simulated.pass_seconds(2)
        assert simulated.account()["accepted"] == 1
        put_again(simulated, orderAction=ACTION)
        account = simulated.account("?summary=1")
        assert (account["accepted"], account["acceptedWithDocument"], account["repeated"]) == (2, 2, 1)


def test_an_order_action_without_a_contact_is_dropped_and_only_the_log_says_so() -> None:
    with simulating(moody(Moods(late_contacts=1, contact_delay="fixed:10s"))) as simulated:
        simulated.client.post(ORDERS, json=DOCUMENT | {"orderAction": ACTION})
        simulated.pass_seconds(60)
        assert simulated.account()["accepted"] == 0
        assert log_of(simulated) == {"the contact is unknown": 1, "an orderAction found no contact": 1}


def test_the_order_action_of_a_job_that_fails_is_not_run() -> None:
    with simulating(moody(Moods(), failing=1)) as simulated:
        simulated.client.post(ORDERS, json=DOCUMENT | {"orderAction": ACTION})
        simulated.pass_seconds(60)
        assert simulated.account()["accepted"] == 0


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (7, "orderAction"),
        ({}, "orderAction.action"),
        ({"action": ""}, "orderAction.action"),
        ({"action": "Any", "language": 1}, "orderAction.language"),
    ],
)
def test_an_order_action_that_is_wrong_is_refused_with_its_document(action: object, field: str) -> None:
    with simulating(moody(Moods())) as simulated:
        answer = simulated.client.post(ORDERS, json=DOCUMENT | {"orderAction": action})
        assert (answer.status_code, answer.json()[0]["field"]) == (400, field)


# Jobs


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("relative", ""),
        ("absolute", "http://{host}"),
        ("other-scheme", "https://{host}"),
        ("other-host", "http://orders-7.engage.internal:8080"),
    ],
)
def test_a_completed_job_redirects_by_every_kind_of_location(kind: str, begins: str) -> None:
    with simulating(moody(Moods(redirects=(f"{kind}=1",)), "instant")) as simulated:
        answer = simulated.client.get(f"{ORDERS}/jobs/{simulated.create()}")
        host = f"{answer.request.url.host}:{answer.request.url.port}"
        assert (answer.status_code, answer.headers["location"]) == (302, f"{begins.format(host=host)}{ORDERS}/A-1")


def test_the_shares_of_redirects_are_dealt_by_job() -> None:
    world = world_in(Moods(redirects=("relative=0.2", "other-host=0.3")))
    jobs = [world.submit_order(f"A-{n}", 0.0) for n in range(1000)]
    kinds = Counter(answer.redirect for job in jobs if (answer := world.job(job, 0.0)).status == 302)
    assert kinds["relative"] == pytest.approx(200, rel=0.2)
    assert kinds["other-host"] == pytest.approx(300, rel=0.2)
    assert [world.job(job, 0.0) for job in jobs] == [world.job(job, 9.0) for job in jobs]


@pytest.mark.parametrize("word", ["CompletedWithErrors", "COMPLETED", "Archived"])
def test_a_job_that_is_done_in_other_words_leaves_the_tag_to_its_order(word: str) -> None:
    with simulating(moody(Moods(job_words=(f"{word}=1",)))) as simulated:
        job = f"{ORDERS}/jobs/{simulated.create()}"
        assert simulated.client.get(job).json()["status"] == "Processing"
        simulated.pass_seconds(2)
        done = simulated.client.get(job)
        assert (done.status_code, done.json()["status"], "versionTag" in done.json()) == (200, word, False)
        assert simulated.tag() is not None


@pytest.mark.parametrize("word", ["Failed", "ErrorInPayload"])
def test_a_job_may_say_with_a_200_that_it_failed(word: str) -> None:
    with simulating(moody(Moods(job_words=(f"{word}=1",)), "instant")) as simulated:
        answer = simulated.client.get(f"{ORDERS}/jobs/{simulated.create()}")
        assert (answer.status_code, answer.json()["status"]) == (200, word)
        assert answer.json()["errors"]
        assert simulated.client.get(f"{ORDERS}/A-1").status_code == 404


def test_a_job_may_be_under_way_in_other_words() -> None:
    with simulating(moody(Moods(waiting_words=("Queued=1",)))) as simulated:
        job = f"{ORDERS}/jobs/{simulated.create()}"
        assert simulated.client.get(job).json()["status"] == "Queued"
        simulated.pass_seconds(2)
        assert simulated.client.get(job).json()["status"] == "Completed"


# How answers are written


def test_acceptances_may_say_201() -> None:
    with simulating(moody(Moods(created=1), "instant")) as simulated:
        assert simulated.client.post(ORDERS, json=DOCUMENT).status_code == 201
        assert simulated.client.put(f"{ORDERS}/A-1", json=DOCUMENT).status_code == 201
        assert simulated.client.post(f"{ORDERS}/A-1/change-status", json={"status": "x"}).status_code == 201
        assert simulated.act(simulated.tag()).status_code == 201
        assert simulated.client.delete(f"{ORDERS}/A-1").status_code == 201


def test_every_error_may_be_a_page_whoever_says_it() -> None:
    faults = ("unavailable=1,calls=job",)
    with simulating(moody(Moods(html_errors=1), faults=faults, requests_per_second=4)) as simulated:
        url = f"{simulated.simulator.url}{ORDERS}/A-1"
        answers = [
            httpx.get(url, headers={"apikey": ""}),
            httpx.get(url, headers={"apikey": "k", "Content-Type": ""}),
            simulated.client.post(ORDERS, content=b"nonsense"),
            simulated.client.get(f"{ORDERS}/A-1"),
            simulated.client.get(f"{ORDERS}/jobs/J"),
            simulated.client.get(ORDERS),
            simulated.client.get(f"{ORDERS}/A-1"),
            simulated.client.get(f"{ORDERS}/A-1"),
        ]
        assert [answer.status_code for answer in answers] == [401, 500, 400, 404, 503, 405, 404, 429]
        assert {answer.headers["content-type"] for answer in answers} == {"text/html; charset=utf-8"}
        assert all(answer.text.startswith("<!DOCTYPE html>") for answer in answers)
        assert answers[-1].headers["retry-after"] == "1"


def test_half_of_the_errors_are_pages() -> None:
    with simulating(moody(Moods(html_errors=0.5), requests_per_second=0)) as simulated:
        types = Counter(simulated.client.get(f"{ORDERS}/A-1").headers["content-type"] for _ in range(200))
        assert sorted(types.values()) == [pytest.approx(100, abs=25), pytest.approx(100, abs=25)]


# lastChangedAt


def test_an_order_has_last_changed_at_only_where_its_document_has_it() -> None:
    with simulating(moody(Moods(), "instant")) as simulated:
        simulated.create()
        assert "lastChangedAt" not in simulated.client.get(f"{ORDERS}/A-1").json()
        put_again(simulated, lastChangedAt="2025-11-03T13:00:00+01:00")
        simulated.client.post(f"{ORDERS}/A-1/change-status", json={"status": "Shipped"})
        order = simulated.client.get(f"{ORDERS}/A-1").json()
        assert (order["status"], order["lastChangedAt"]) == ("Shipped", "2025-11-03T13:00:00+01:00")


@pytest.mark.parametrize("has", [True, False])
def test_the_simulators_own_orders_have_it_where_so_chosen(has: bool) -> None:
    world = world_in(Moods(last_changed_at=has))
    world.submit_order("A", 0.0)
    order = read_object(world.order("A", 0.0).body)
    assert order is not None
    assert order.get("lastChangedAt") == ("1970-01-01T00:00:00+00:00" if has else None)


# Changes


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("change-status", b"[]", [""]),
        ("change-status", b"{}", [""]),
        ("change-status", b'{"state": "Shipped"}', [""]),
        ("change-status", b'{"status": "", "externalStatus": 7}', ["status", "externalStatus"]),
        ("change-delivery", b"nonsense", [""]),
        ("change-delivery", b'{"delivery": {}}', [""]),
        ("change-delivery", b'{"trackingNumber": 7}', ["trackingNumber"]),
    ],
)
def test_a_change_that_is_wrong_is_refused_with_every_error(path: str, body: bytes, fields: list[str]) -> None:
    with simulating(moody(Moods())) as simulated:
        simulated.create()
        answer = simulated.client.post(f"{ORDERS}/A-1/{path}", content=body)
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()] == fields


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_changed_delivery_may_stand_in_an_object_of_that_name(wrapped: bool) -> None:
    delivery = {"method": "Home", "trackingNumber": "1Z", "trackingUri": "https://x", "deliveryDate": "2026-01-01"}
    with simulating(moody(Moods(), "instant")) as simulated:
        simulated.create()
        simulated.client.post(f"{ORDERS}/A-1/change-delivery", json={"delivery": delivery} if wrapped else delivery)
        order = simulated.client.get(f"{ORDERS}/A-1").json()
        assert order["delivery"] == delivery
        assert order["status"] == DOCUMENT["status"]


# While it runs


def test_moods_are_changed_while_it_runs() -> None:
    with simulating(moody(Moods(created=1), "instant")) as simulated:
        changed = httpx.put(f"{simulated.simulator.url}/simulator/moods", json={"redirects": ["absolute=1"]})
        assert changed.status_code == 200
        answer = simulated.client.post(ORDERS, json=DOCUMENT)
        assert answer.status_code == 202, "what is not named is as by default"
        assert simulated.client.get(answer.json()["href"]).status_code == 302


WRONG: list[tuple[dict[str, object], str]] = [
    ({"lateContact": 1}, "lateContact: unknown; there are lateContacts, "),
    ({"lateContacts": "1"}, "lateContacts: expected a number"),
    ({"created": True}, "created: expected a number"),
    ({"lastChangedAt": 1}, "lastChangedAt: expected true or false"),
    ({"redirects": "relative=1"}, "redirects: expected a list of texts"),
    ({"contactLink": 1}, "contactLink: expected a text"),
    ({"created": 1.1}, r"created 1\.1: expected a share"),
    ({"lateContacts": 0.6, "missingContacts": 0.6}, "add up to more than 1"),
    ({"contactLink": "never"}, "expected itself or again"),
    ({"contactDelay": "2s"}, "durations '2s'"),
    ({"redirects": ["elsewhere=1"]}, "expected one of relative, absolute, other-scheme, other-host"),
    ({"redirects": ["relative=1", "absolute=0.1"]}, r"the shares add up to 1\.1"),
    ({"jobWords": ["Archived"]}, "expected name=share"),
    ({"waitingWords": ["Queued=often"]}, "'often' is no probability"),
]


@pytest.mark.parametrize(("asked", "why"), WRONG)
def test_moods_that_are_wrong_say_so(asked: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_moods(asked)


def test_a_wrong_mood_changes_nothing_and_is_answered_with_400() -> None:
    with simulating(moody(Moods(created=1))) as simulated:
        answer = httpx.put(f"{simulated.simulator.url}/simulator/moods", json={"created": 2})
        assert (answer.status_code, "created" in answer.text) == (400, True)
        assert simulated.client.post(ORDERS, json=DOCUMENT).status_code == 201
