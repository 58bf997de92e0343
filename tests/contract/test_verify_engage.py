"""What `verify-engage` sees of an Engage: as documented by the simulator, otherwise by its moods or a script."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from consumer.engage import verification
from consumer.engage.verification import Fact, Finding, Plan, report, verify
from consumer.simulator import Moods, Simulator, SimulatorOptions
from consumer.simulator.moods import read_moods
from tests.support.scripted_server import Peer, Request, Script, answer, refused_url, serving

pytestmark = pytest.mark.anyio

ORDER = "secret-order-77"
MAIL = "anna.secret@example.com"
KEY = "k3y-that-nobody-may-see"
DOCUMENT: dict[str, object] = {"orderId": ORDER, "contact": {"matchKey": MAIL, "matchKeyType": "Email"}}
PATH = f"/api/v3/orders/{ORDER}"


def plan_for(url: str, **more: object) -> Plan:
    plan = Plan(base_url=url, api_key=KEY, order_id=ORDER, document=DOCUMENT, poll_interval_s=0.02, patience_s=5)
    return replace(plan, **more)  # type: ignore[arg-type]


async def findings_of(moods: Moods, processing: str = "fixed:50ms", **more: object) -> dict[Fact, Finding]:
    options = SimulatorOptions(listen="127.0.0.1:0", processing=processing, moods=moods)
    async with Simulator(options) as simulator:
        return {each.fact: each for each in await verify(plan_for(simulator.url, **more))}


async def test_the_simulator_answers_every_question_as_documented() -> None:
    found = await findings_of(read_moods({"redirects": []}), send_action=True, repeat=3)
    differing = {fact.name: each.seen for fact, each in found.items() if each.verdict != "as documented"}
    assert differing == {verification.REDIRECT.name: "no job answered with a redirect"}
    assert found[verification.WORDS].seen.startswith("Processing at ")
    assert "p50 " in found[verification.TIME].seen
    assert "of 4" in found[verification.TIME].seen


@pytest.mark.parametrize(
    ("moods", "fact", "verdict", "seen"),
    [
        ({"redirects": ["relative=1"]}, verification.REDIRECT, "as documented", "same host"),
        ({"redirects": ["other-host=1"]}, verification.REDIRECT, "differs", "another host"),
        ({"jobWords": ["CompletedWithErrors=1"]}, verification.WORDS, "differs", "CompletedWithErrors at"),
        ({"jobWords": ["Failed=1"]}, verification.ORDER_ACTION, "differs", "job failed"),
        ({"htmlErrors": 1}, verification.ERRORS, "differs", "404 HTML"),
        ({"created": 1}, verification.ACCEPTANCE, "as documented", "201 JSON"),
        ({"missingContacts": 1}, verification.NO_CONTACT, "as documented", "422 JSON"),
    ],
)
async def test_what_a_mood_changes_is_seen(moods: dict[str, object], fact: Fact, verdict: str, seen: str) -> None:
    found = (await findings_of(read_moods(moods), send_action=True))[fact]
    assert found.verdict == verdict
    assert seen in found.seen


async def test_a_job_that_never_ends_differs_and_names_the_deadline() -> None:
    found = (await findings_of(Moods(), "fixed:60m", patience_s=0.1))[verification.TIME]
    assert (found.verdict, found.fact.setting) == ("differs", "polling.deadline")


# An Engage that differs everywhere

Deviation = Callable[[Request], bytes | None]


def deviating(deviation: Deviation) -> Script:
    """Answer as Engage, except where the deviation has an answer of its own."""

    def documented(request: Request) -> bytes:
        target, method = request.target.decode(), request.line.split()[0]
        if b"content-type" not in request.headers:
            return as_json(500)
        if b"user-agent" not in request.headers:
            return as_json(400)
        if target.endswith("/action"):
            return as_json(202 if json.loads(request.body)["versionTag"] == "t-1" else 404)
        if target.endswith("/jobs/j-1"):
            return as_json(200, {"status": "Completed", "versionTag": "t-1"})
        if method == b"GET":
            return as_json(200, {**DOCUMENT, "versionTag": "t-1"}) if target == PATH else as_json(404)
        return as_json(202, {"jobId": "j-1", "orderId": ORDER})

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(deviation(request) or documented(request))

    return script


def as_json(status: int, body: object = None) -> bytes:
    return answer(status, json.dumps(body or [{"message": MAIL}]).encode(), {"content-type": "application/json"})


def where(path: str, method: bytes, said: bytes) -> Deviation:
    def deviation(request: Request) -> bytes | None:
        return said if request.target.decode().endswith(path) and request.line.startswith(method) else None

    return deviation


def lenient(header: bytes) -> Deviation:
    return lambda request: None if header in request.headers else as_json(200, DOCUMENT)


@pytest.mark.parametrize(
    ("deviation", "fact", "seen"),
    [
        (where(PATH, b"GET", as_json(401)), verification.KEY, "401"),
        (lenient(b"content-type"), verification.NO_CONTENT_TYPE, "200"),
        (lenient(b"user-agent"), verification.NO_USER_AGENT, "200"),
        (where("/action", b"POST", as_json(202)), verification.STALE_TAG, "202"),
        (where("/action", b"POST", as_json(403)), verification.NO_CONTACT, "403"),
        (where("/orders", b"POST", as_json(200, {"id": 1})), verification.ACCEPTANCE, "200 JSON {id: number}"),
        (where(PATH, b"GET", as_json(200, {"lastChangedAt": "x"})), verification.CHANGED_AT, "there, not sent"),
        (where("/j-1", b"GET", as_json(200, {"status": MAIL})), verification.WORDS, "(another text)"),
    ],
)
async def test_what_differs_is_said_so(deviation: Deviation, fact: Fact, seen: str) -> None:
    async with serving(deviating(deviation)) as server:
        found = {each.fact: each for each in await verify(plan_for(server.url, send_action=True, patience_s=0.1))}
    assert found[fact].verdict == "differs"
    assert seen in found[fact].seen


async def test_the_script_itself_differs_nowhere() -> None:
    async with serving(deviating(lambda _: None)) as server:
        found = await verify(plan_for(server.url, send_action=True))
    assert [each.fact.name for each in found if each.verdict == "differs"] == []


async def test_no_action_is_sent_unasked_and_an_order_that_exists_is_only_read() -> None:
    async with serving(deviating(lambda _: None)) as server:
        found = await verify(plan_for(server.url, repeat=3))
        assert not [each for each in server.requests if each.target.endswith(b"/action")]
        assert not [each for each in server.requests if b"orderAction" in each.body]
        assert {each.fact: each.seen for each in found}[verification.STALE_TAG] == "needs --send-action"
        server.requests.clear()
        await verify(plan_for(server.url, document=None))
        assert {each.line.split()[0] for each in server.requests} == {b"GET"}


async def test_an_order_action_in_the_users_document_is_refused_before_anything_is_sent() -> None:
    async with serving(deviating(lambda _: None)) as server:
        plan = plan_for(server.url, document={**DOCUMENT, "orderAction": {"action": "Custom"}})
        with pytest.raises(ValueError, match="--send-action"):
            await verify(plan)
        assert not server.requests


async def test_an_order_action_is_sent_once_however_often_the_document_is_put() -> None:
    async with serving(deviating(lambda _: None)) as server:
        await verify(plan_for(server.url, send_action=True, repeat=3))
        assert sum(b"orderAction" in each.body for each in server.requests) == 1


async def test_neither_key_nor_id_nor_value_is_in_the_report() -> None:
    leaking = where("/j-1", b"GET", answer(302, b"", {"location": f"http://inner{PATH}?mail={MAIL}"}))
    async with serving(deviating(leaking)) as server:
        found = await verify(plan_for(server.url, send_action=True))
    text = json.dumps(report(found, version="1", date="2026-01-01")).lower()
    assert "{orderid}" in text
    assert not [secret for secret in (KEY, ORDER, MAIL, "j-1", "inner") if secret in text]


async def test_an_engage_that_does_not_answer_is_said_so() -> None:
    found = await verify(plan_for(refused_url()))
    assert (found[7].fact, found[7].verdict) == (verification.ACCEPTANCE, "no answer")
    assert {each.seen for each in found if each.verdict == "no answer"} == {"connection refused"}
    assert {each.verdict for each in found} == {"no answer", "not asked"}


async def test_an_engage_behind_an_authority_of_ones_own_is_asked_where_that_is_trusted(
    authority: trustme.CA, ca_file: Path
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    async with serving(deviating(lambda _: None), tls) as server:
        for trusted, verdict in ((ca_file, "as documented"), (None, "no answer")):
            plan = replace(plan_for(server.url), document=None, ca_file=trusted)
            assert next(each for each in await verify(plan) if each.fact is verification.KEY).verdict == verdict
