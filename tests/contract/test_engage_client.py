"""Each answer that Engage, or something in front of it, can give: what it comes to for each call.

The rows are the table of outcomes in the design; the sockets are real.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.core.effects import Document
from consumer.core.outcomes import (
    Accepted,
    AcceptedUndocumented,
    ActionOutcome,
    DocumentOutcome,
    DocumentTaken,
    Forbidden,
    InDoubt,
    JobFailed,
    NoContact,
    NotFound,
    NotReady,
    OrderExists,
    OrderKept,
    PollOutcome,
    Ready,
    Rejected,
    StaleTag,
    Throttled,
    Unauthorized,
    Unavailable,
    Undated,
    WithDocumentOutcome,
    Withdrawn,
)
from consumer.core.pacing import MAX_RETRY_AFTER_S
from consumer.engage.client import EngageClient, Permit
from consumer.events.identifiers import MAX_ID_CHARACTERS
from schemas.engage import ActionRequest, Change
from tests.support.scripted_server import Peer, Script, Server, answer, answering, refused_url, serving

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTION = ActionRequest(
    action="ConfirmShipment", version_tag="t-1", language="sv", data={"tracking": "1Z", "note": None}
)
KEY = "k3y"


@dataclass(frozen=True)
class Wired:
    """A client, and the server that it talks to."""

    engage: EngageClient
    server: Server


def client_of(
    base_url: str,
    *,
    api_key: Callable[[], str] = lambda: KEY,
    headers: dict[str, str] | None = None,
    timeout_s: float = 20.0,
    action_timeout_s: float | None = None,
) -> EngageClient:
    return EngageClient(
        base_url=base_url,
        api_key=api_key,
        user_agent="AcmePOS/1.5 engage-relay/1",
        headers=headers,
        timeout_s=timeout_s,
        action_timeout_s=action_timeout_s,
        now=NOW.timestamp,
    )


@asynccontextmanager
async def wired(
    script: Script, *, prefix: str = "", api_key: Callable[[], str] = lambda: KEY, timeout_s: float = 20.0
) -> AsyncIterator[Wired]:
    async with serving(script) as server:
        engage = client_of(server.url + prefix, api_key=api_key, timeout_s=timeout_s)
        yield Wired(engage, server)
        await engage.aclose()


def says(body: object, status: int = 200) -> bytes:
    return answer(status, json.dumps(body).encode(), {"content-type": "application/json"})


async def no_answer(peer: Peer) -> None:
    await peer.request()


async def silent(peer: Peer) -> None:
    await peer.client_left()


# Actions


async def outcome_of_action(*answers: bytes) -> ActionOutcome:
    async with wired(answering(*answers)) as w:
        outcome = await w.engage.send_action("o-1", ACTION)
        assert len(w.server.requests) == 1, "an action is sent once, and never to where a redirect points"
        return outcome


ERRORS = [{"field": "language", "message": "unknown"}]


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (answer(202, b'{"ok":true}'), Accepted()),
        (answer(202, b"<html>"), Accepted()),
        (answer(202, b"\x1f\x8b", {"content-encoding": "gzip"}), Accepted()),
        (says({"jobId": "j-1"}, 200), AcceptedUndocumented()),
        (says({}, 201), AcceptedUndocumented()),
        (answer(200, b"\xef\xbb\xbf{}"), AcceptedUndocumented()),
        (says({"errors": [], "error": None}, 200), AcceptedUndocumented()),
        (says({"Error": "no"}, 200), InDoubt("Engage answered 200 with an error")),
        (says({"errors": [1]}, 201), InDoubt("Engage answered 201 with an error")),
        (says({"errors": ["no"]}, 202), Accepted()),
        *((answer(s, b"<html>"), InDoubt(f"Engage answered {s} without JSON")) for s in (200, 201, 203)),
        *((answer(s), InDoubt(f"Engage answered {s} without JSON")) for s in (200, 204)),
        (b"HTTP/1.1 102 Processing\r\n\r\n" + answer(202), Accepted()),
        (answer(404), StaleTag()),
        (answer(404, b"<html>not here</html>"), StaleTag()),
        (says(ERRORS, 400), Rejected(400, "Engage answered 400", '[{"field":"language","message":"unknown"}]')),
        (answer(422, b"no contact"), NoContact()),
        (says(ERRORS, 422), NoContact('[{"field":"language","message":"unknown"}]')),
        *((answer(status), Rejected(status, f"Engage answered {status}")) for status in (405, 409, 410, 413, 418, 451)),
        (answer(401), Unauthorized(401)),
        (answer(403), Forbidden()),
        (answer(408), Throttled()),
        (answer(429, headers={"retry-after": "30"}), Throttled(30.0)),
        *((answer(status), Unavailable(f"Engage answered {status}")) for status in (421, 425)),
        (answer(503, headers={"retry-after": "5"}), InDoubt("Engage answered 503", 5.0)),
        *((answer(s, headers={"location": "/x"}), Unavailable(f"Engage answered {s}")) for s in (301, 307, 308)),
        *((answer(s, headers={"location": "/x"}), InDoubt(f"Engage answered {s}")) for s in (300, 302, 303, 305, 399)),
        *((answer(s), InDoubt(f"Engage answered {s}")) for s in (499, 500, 501, 502, 504, 505, 520, 522, 530, 599)),
        (answer(799), InDoubt("Engage answered 799")),
        (b"garbage\r\n\r\n", InDoubt("answer was not HTTP")),
    ],
    ids=lambda value: value.split(b"\r\n\r\n")[0][9:12].decode() if isinstance(value, bytes) else None,
)
async def test_what_an_answer_makes_of_an_action(raw: bytes, outcome: ActionOutcome) -> None:
    assert await outcome_of_action(raw) == outcome


async def test_an_action_without_an_answer_is_in_doubt() -> None:
    async with wired(no_answer) as w:
        outcome = await w.engage.send_action("o-1", ACTION)
        assert outcome == InDoubt("connection was closed before the answer")
    async with wired(silent, timeout_s=0.15) as w:
        assert await w.engage.send_action("o-1", ACTION) == InDoubt("time ran out before the answer")


def sending_then(*parts: bytes, and_reset: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
        if and_reset:
            peer.reset()

    return script


@pytest.mark.parametrize(
    "script",
    [
        sending_then(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\n"),
        sending_then(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\n{", and_reset=True),
        sending_then(b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n"),
        sending_then(b"HTTP/1.1 202 Accepted\r\ncontent-le"),
        sending_then(b"HTTP/1.1 202 Accepted\r\nno header\r\n\r\n"),
        sending_then(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 \r\n"),
        sending_then(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2000000\r\n\r\n", bytes(2_000_000)),
    ],
    ids=[
        "body missing",
        "body cut",
        "body unreadable",
        "head cut",
        "head unreadable",
        "behind an informational one",
        "body too long",
    ],
)
async def test_an_action_is_accepted_by_the_status_line_that_was_seen(script: Script) -> None:
    async with wired(script) as w:
        assert await w.engage.send_action("o-1", ACTION) == Accepted()


async def test_an_action_whose_answer_stops_behind_its_status_line_is_accepted() -> None:
    async def stops(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 202 Accepted\r\n")
        await peer.client_left()

    async with wired(stops, timeout_s=0.15) as w:
        assert await w.engage.send_action("o-1", ACTION) == Accepted()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(404, StaleTag()), (400, Rejected(400, "Engage answered 400")), (422, NoContact()), (429, Throttled()),
     (200, InDoubt("connection was closed in the midst of the answer")),
     (503, InDoubt("connection was closed in the midst of the answer"))],
)  # fmt: skip
async def test_a_refusal_is_reported_by_its_status_line_too(status: int, outcome: ActionOutcome) -> None:
    async with wired(sending_then(b"HTTP/1.1 %d Whatever\r\ncontent-length: 10\r\n\r\n{" % status)) as w:
        assert await w.engage.send_action("o-1", ACTION) == outcome


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 202 Acce", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n", b"HTTP/2 202 Accepted\r\n", b"202\r\n",
     b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 202 Accepted\r\n"],
)  # fmt: skip
async def test_what_is_no_status_line_of_202_accepts_nothing(said: bytes) -> None:
    async with wired(sending_then(said)) as w:
        assert isinstance(await w.engage.send_action("o-1", ACTION), InDoubt)


async def test_an_action_has_a_time_out_of_its_own() -> None:
    """Engage asks to wait for a late answer rather than to send again."""

    async def late(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.3)
            await peer.send(answer(202))

    async with serving(late) as server:
        patient = client_of(server.url, timeout_s=0.1, action_timeout_s=20.0)
        assert await patient.send_action("o-1", ACTION) == Accepted()
        assert isinstance(await patient.poll_order("o-1"), Unavailable)
        hasty = client_of(server.url, timeout_s=20.0, action_timeout_s=0.1)
        assert await hasty.send_action("o-1", ACTION) == InDoubt("time ran out before the answer")
        await patient.aclose()
        await hasty.aclose()


@pytest.mark.parametrize(
    ("begun", "outcome"),
    [
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 99999\r\n\r\n", Accepted()),
        (b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n", Accepted()),
        (b"HTTP/1.1 202 Accepted\r\nx-long: ", Accepted()),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 No contact\r\ncontent-length: 99999\r\n\r\n", NoContact()),
    ],
)
async def test_where_the_status_line_says_enough_the_rest_of_an_answer_is_not_waited_for_long(
    begun: bytes, outcome: ActionOutcome
) -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(begun)
        while not peer.reader.at_eof():
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    async with serving(endless) as server:
        engage = client_of(server.url, timeout_s=0.2, action_timeout_s=20.0)
        began = time.monotonic()
        assert await engage.send_action("o-1", ACTION) == outcome
        assert time.monotonic() - began < 10.0
        await engage.aclose()


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"])
async def test_an_answer_whose_status_line_does_not_say_enough_has_all_the_time_of_an_action(begun: bytes) -> None:
    async def late(peer: Peer) -> None:
        await peer.request()
        await peer.send(begun)
        await asyncio.sleep(0.3)
        await peer.send(b"{}" if b"200" in begun else answer(202))

    async with serving(late) as server:
        engage = client_of(server.url, timeout_s=0.1, action_timeout_s=20.0)
        assert isinstance(await engage.send_action("o-1", ACTION), Accepted)
        await engage.aclose()


async def test_an_action_that_could_not_be_sent_is_not_in_doubt() -> None:
    engage = client_of(refused_url())
    assert await engage.send_action("o-1", ACTION) == Unavailable("connection refused")


async def test_an_action_that_is_no_longer_ours_is_withdrawn() -> None:
    async with wired(answering(answer(202))) as w:
        assert await w.engage.send_action("o-1", ACTION, may_send=lambda: False) == Withdrawn()
        assert w.server.requests == []
        assert await w.engage.send_action("o-1", ACTION, may_send=lambda: True) == Accepted()


async def test_an_action_is_written_as_engage_reads_it() -> None:
    async with wired(answering(answer(202))) as w:
        await w.engage.send_action("o-1", ACTION)
        (request,) = w.server.requests
        assert request.line == b"POST /api/v3/orders/o-1/action HTTP/1.1"
        assert request.headers[b"content-type"] == b"application/json"
        assert json.loads(request.body) == {
            "action": "ConfirmShipment",
            "versionTag": "t-1",
            "language": "sv",
            "data": {"tracking": "1Z", "note": None},
        }


async def test_an_action_that_is_no_json_is_rejected_unsent() -> None:
    async with wired(answering(answer(202))) as w:
        lone_surrogate = ActionRequest(action="Custom", version_tag="t", data="\ud800")
        assert await w.engage.send_action("o-1", lone_surrogate) == Rejected(0, "action data is not JSON")
        assert w.server.requests == []


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("0", None),
        ("120", 120.0),
        ("1.5", 1.5),
        ("86400", MAX_RETRY_AFTER_S),
        ("9" * 500, MAX_RETRY_AFTER_S),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Fri, 01 Jan 2027 00:00:00 GMT", MAX_RETRY_AFTER_S),
        ("Wed, 31 Dec 2025 00:00:00 GMT", None),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("inf", None),
        ("1e9", None),
    ],
)
async def test_how_long_to_wait_is_read_from_retry_after(retry_after: str, seconds: float | None) -> None:
    assert await outcome_of_action(answer(429, headers={"retry-after": retry_after})) == Throttled(seconds)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:00:40 GMT", 20.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 120.0),
        ("Wed, 31 Dec 2025 01:00:00 GMT", MAX_RETRY_AFTER_S),
        ("Thu, 01 Jan 2026 01:00:00 GMT", None),
        ("today", 60.0),
    ],
)
async def test_a_date_to_wait_for_counts_from_the_answers_own_date_whatever_our_clock_says(
    date: str, seconds: float | None
) -> None:
    headers = {"date": date, "retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}
    assert await outcome_of_action(answer(429, headers=headers)) == Throttled(seconds)


async def test_engages_list_of_errors_is_cut() -> None:
    outcome = await outcome_of_action(says(["é" * 100_000], 400))
    assert isinstance(outcome, Rejected)
    assert outcome.errors is not None
    assert len(outcome.errors.encode()) <= 8 << 10


# Polls


JOB = "/api/v3/orders/jobs/j-1"
ORDER = "/api/v3/orders/o-1"


async def outcome_of_job(*answers: bytes) -> PollOutcome:
    async with wired(answering(*answers)) as w:
        outcome = await w.engage.poll_job("j-1")
        assert len(w.server.requests) == len(answers)
        return outcome


async def outcome_of_order(*answers: bytes) -> PollOutcome:
    async with wired(answering(*answers)) as w:
        outcome = await w.engage.poll_order("o-1")
        assert len(w.server.requests) == len(answers)
        return outcome


EITHER_POLL: list[tuple[bytes, PollOutcome]] = [
    (says({"versionTag": "t-1"}), Ready("t-1")),
    (says({"VersionTag": "t-1"}), Ready("t-1")),
    (answer(200, b'\xef\xbb\xbf{"versionTag":"t-1"}'), Ready("t-1")),
    (says({"versionTag": 17}), Ready("17")),
    (says({"versionTag": ""}), NotReady()),
    (says({"versionTag": None}), NotReady()),
    (says({"versionTag": None, "errors": []}), NotReady()),
    (says({"error": {"code": 5}}), Unavailable("Engage answered 200 with an error")),
    (says({"versionTag": "t-1", "errors": ["an old one"]}), Ready("t-1")),
    (says({"versionTag": "  "}), NotReady()),
    (answer(200, b'{"versionTag": 1.50, "total": 199.00}'), Ready("1.50")),
    (answer(200, b'{"versionTag": 1E3}'), Ready("1E3")),
    (says({"versionTag": 3.0}), Ready("3.0")),
    (says({"versionTag": 2**70}), Ready(str(2**70))),
    (says({}), NotReady()),
    (answer(202), NotReady()),
    (answer(200), Unavailable("answer was not a JSON object")),
    (answer(204), Unavailable("answer was not a JSON object")),
    (says({"status": "Queued"}, 202), NotReady()),
    (b"HTTP/1.1 103 Early Hints\r\n\r\n" + says({"versionTag": "t-1"}), Ready("t-1")),
    (answer(200, b"<html>We will be back</html>"), Unavailable("answer was not a JSON object")),
    (answer(200, b'{"versionTag":"t-'), Unavailable("answer was not a JSON object")),
    (answer(200, b'{"versionTag":"\xff"}'), Unavailable("answer was not a JSON object")),
    (answer(200, b'{"versionTag":' + b"9" * 5000 + b"}"), Unavailable("answer was not a JSON object")),
    (answer(200, b"[" * 100_000), Unavailable("answer was not a JSON object")),
    (says(["t-1"]), Unavailable("answer was not a JSON object")),
    (says("t-1"), Unavailable("answer was not a JSON object")),
    (answer(404), NotFound()),
    (says({"versionTag": "t-1"}, 404), NotFound()),
    (says(ERRORS, 400), Rejected(400, "Engage answered 400", '[{"field":"language","message":"unknown"}]')),
    (answer(410), Rejected(410, "Engage answered 410")),
    (answer(401), Unauthorized(401)),
    (answer(403), Forbidden()),
    (answer(408), Throttled()),
    (answer(429, headers={"retry-after": "3"}), Throttled(3.0)),
    *((answer(s), Unavailable(f"Engage answered {s}")) for s in (304, 421, 499, 500, 502, 504, 520, 599)),
    (answer(503, headers={"retry-after": "7"}), Unavailable("Engage answered 503", 7.0)),
    (answer(302), Unavailable("redirect without a Location")),
    (answer(302, headers={"location": "http://[::1/o-1"}), Unavailable("redirect to what is no path")),
    (answer(302, headers={"location": "mailto:a@b.example"}), Unavailable("redirect to what is no path")),
    (b"garbage\r\n\r\n", Unavailable("answer was not HTTP")),
    (answer(200, b"", {"content-encoding": "br"}), Unavailable("answer was compressed, though identity was asked for")),
]


@pytest.mark.parametrize(("raw", "outcome"), EITHER_POLL, ids=range(len(EITHER_POLL)))
async def test_what_an_answer_makes_of_a_poll(raw: bytes, outcome: PollOutcome) -> None:
    assert await outcome_of_job(raw) == outcome
    assert await outcome_of_order(raw) == outcome


@pytest.mark.parametrize(("tag", "kind"), [(True, "a boolean"), (["t-1"], "a list"), ({"value": "t-1"}, "an object")])
async def test_a_tag_that_no_action_could_carry_is_no_order_under_way(tag: object, kind: str) -> None:
    why = f"the order's versionTag is {kind}, neither a text nor a number"
    assert await outcome_of_order(says({"versionTag": tag})) == Unavailable(why)
    assert await outcome_of_job(says({"versionTag": tag})) == NotReady()
    completed = says({"versionTag": tag, "status": "Completed", "orderId": "o-1"})
    assert await outcome_of_job(completed, says({"versionTag": "t-1"})) == Ready("t-1")


async def test_a_poll_without_an_answer_is_asked_again_later() -> None:
    refused = client_of(refused_url())
    assert await refused.poll_job("j-1") == Unavailable("connection refused")
    assert await refused.poll_order("o-1") == Unavailable("connection refused")
    async with wired(no_answer) as w:
        assert await w.engage.poll_job("j-1") == Unavailable("connection was closed before the answer")


@pytest.mark.parametrize(
    "status", ["Processing", "PROCESSING", "Queued", "", "New mood", "Not completed", 3, None, True, {}, ["Failed"]]
)
async def test_a_job_that_is_neither_completed_nor_failed_is_not_ready(status: object) -> None:
    assert await outcome_of_job(says({"jobId": "j-1", "status": status, "orderId": "o-1"})) == NotReady()


@pytest.mark.parametrize(
    ("status", "word"),
    [("Processing", "processing"), ("IN_PROGRESS", "in_progress"), ("New mood", "other"), ("x" * 33, "other"),
     ('a"}\n', "other"), ("", None), (None, None), ("Completed", None), (3, "3"), (True, "true"), ({}, "other")],
)  # fmt: skip
async def test_a_status_that_is_not_known_is_reported_as_one_plain_word(status: object, word: str | None) -> None:
    outcome = await outcome_of_job(says({"status": status}))
    assert isinstance(outcome, NotReady)
    assert outcome.status == word


@pytest.mark.parametrize(
    "status", ["Failed", "FAILED", " error ", "ErrorInContact", "Failure", "Cancelled", "Rejected"]
)
async def test_a_job_that_failed_will_never_be_ready(status: str) -> None:
    outcome = await outcome_of_job(says({"Status": status, "versionTag": "t-0", "errors": ["no contact"]}))
    assert isinstance(outcome, JobFailed)
    assert outcome.why == f"job status is {status.strip().lower()}"
    assert outcome.errors is not None
    assert "no contact" in outcome.errors


async def test_a_job_that_failed_may_say_so_with_an_error_status() -> None:
    failed = await outcome_of_job(says({"status": "Failed", "errors": ["no contact"]}, status=422))
    assert isinstance(failed, JobFailed)
    refused = await outcome_of_job(says({"errors": ["not a job id"]}, status=422))
    assert isinstance(refused, Rejected)


@pytest.mark.parametrize(
    "status", ["Completed", "completed", "COMPLETED ", "CompletedWithErrors", "completed_with_warnings", "Succeeded"]
)
async def test_a_completed_job_without_a_tag_leads_to_its_order(status: str) -> None:
    async with wired(answering(says({"status": status, "orderId": "a/b"}), says({"versionTag": "t-2"}))) as w:
        assert await w.engage.poll_job("j-1") == Ready("t-2")
        assert [r.target for r in w.server.requests] == [JOB.encode(), b"/api/v3/orders/a%2Fb"]


@pytest.mark.parametrize("named", [{}, {"orderId": None}, {"orderId": " "}, {"orderId": {}}])
async def test_a_completed_job_that_names_no_order_leads_to_the_events_order(named: dict[str, object]) -> None:
    async with wired(answering(says({"status": "Completed", **named}), says({"versionTag": "t-2"}))) as w:
        assert await w.engage.poll_job("j-1", order_id="a/b") == Ready("t-2")
        assert [r.target for r in w.server.requests] == [JOB.encode(), b"/api/v3/orders/a%2Fb"]


async def test_a_completed_job_that_names_neither_tag_nor_order_is_not_ready() -> None:
    assert await outcome_of_job(says({"status": "Completed"})) == NotReady()
    assert await outcome_of_job(says({"status": "Completed", "orderId": {}})) == NotReady()


async def test_a_completed_job_whose_order_has_no_tag_yet_is_not_ready() -> None:
    completed = says({"status": "Completed", "orderId": 1})
    assert await outcome_of_job(completed, says({"status": "Completed"})) == NotReady()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_job_may_redirect_to_its_order_whose_status_is_no_jobs_status(status: int) -> None:
    redirect = answer(status, headers={"location": ORDER})
    assert await outcome_of_job(redirect, says({"status": "Cancelled", "versionTag": "t-3"})) == Ready("t-3")
    assert await outcome_of_job(redirect, says({"status": "Completed", "orderId": "o-1"})) == NotReady()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/api/v3/orders/A 1?a=b c", b"/api/v3/orders/A%201?a=b%20c"),
        ("/api/v3/orders/\u00c5-1".encode().decode("latin-1"), b"/api/v3/orders/%C3%85-1"),
        ("/api/v3/orders/A%201/50%", b"/api/v3/orders/A%201/50%"),
    ],
)
async def test_a_redirect_is_followed_whose_path_is_not_encoded(location: str, target: bytes) -> None:
    raw = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: %b\r\n\r\n" % location.encode("latin-1")
    async with wired(answering(raw, says({"versionTag": "t-1"}))) as w:
        assert await w.engage.poll_job("j-1") == Ready("t-1")
        assert w.server.requests[-1].target == target


@pytest.mark.parametrize(
    ("prefix", "location", "target"),
    [
        ("/gw", "https://inner.example/api/v3/orders/o-1", b"/gw/api/v3/orders/o-1"),
        ("/gw", "/gw/api/v3/orders/o-1", b"/gw/api/v3/orders/o-1"),
        ("/gw", "../o-1", b"/gw/api/v3/orders/o-1"),
        ("/gw", "/login", b"/login"),
        ("/api/v3/orders", "/api/v3/orders/o-1", b"/api/v3/orders/api/v3/orders/o-1"),
    ],
)
async def test_a_redirect_is_followed_behind_a_gateway_that_takes_its_own_path_off(
    prefix: str, location: str, target: bytes
) -> None:
    redirect = answer(302, headers={"location": location})
    async with wired(answering(redirect, says({"versionTag": "t-1"})), prefix=prefix) as w:
        assert await w.engage.poll_job("j-1") == Ready("t-1")
        assert w.server.requests[-1].target == target


async def test_a_job_may_redirect_to_another_job() -> None:
    redirect = answer(302, headers={"location": "j-2"})
    assert isinstance(await outcome_of_job(redirect, says({"status": "Failed"})), JobFailed)


async def test_redirects_are_followed_a_few_times_only() -> None:
    async with wired(answering(answer(302, headers={"location": JOB}))) as w:
        assert await w.engage.poll_job("j-1") == Unavailable("more than 5 redirects")
        assert len(w.server.requests) == 6


@pytest.mark.parametrize(
    ("changed_at", "outcome"),
    [
        ("2026-01-01T00:00:00Z", Ready("t-1")),
        ("2026-01-01T00:00:00.1234567Z", Ready("t-1")),
        ("2026-01-01T01:00:00+01:00", Ready("t-1")),
        ("2026-01-01T00:00:00", Ready("t-1")),
        ("2026-01-01 01:00:00 +0100", Ready("t-1")),
        ("Thu, 01 Jan 2026 00:00:00 GMT", Ready("t-1")),
        ("/Date(1767225600000)/", Ready("t-1")),
        ("2025-12-31T23:59:59Z", NotReady()),
        ("yesterday", Undated()),
        ("0001-01-01T00:00:00+23:59", Undated()),
        (1767225600, Undated()),
        (None, Undated()),
    ],
)
async def test_an_order_older_than_asked_for_is_not_ready(changed_at: object, outcome: PollOutcome) -> None:
    async with wired(answering(says({"versionTag": "t-1", "lastChangedAt": changed_at}))) as w:
        assert await w.engage.poll_order("o-1", newer_than=NOW) == outcome
        assert await w.engage.poll_order("o-1", newer_than=NOW.replace(tzinfo=None)) == outcome


@pytest.mark.parametrize(
    ("changed_at", "outcome", "why"),
    [
        ("2026-01-01T00:00:00.123Z", Ready("t-1"), None),
        ("2026-01-01T00:00:00.123456Z", Ready("t-1"), None),
        (
            "2026-01-01T00:00:00Z",
            NotReady(),
            "its lastChangedAt is before newer_than by less than a second: are both written as finely?",
        ),
        ("2025-12-31T23:00:00Z", NotReady(), "its lastChangedAt is before newer_than"),
    ],
)
async def test_times_are_compared_in_milliseconds(changed_at: str, outcome: PollOutcome, why: str | None) -> None:
    async with wired(answering(says({"versionTag": "t-1", "lastChangedAt": changed_at}))) as w:
        found = await w.engage.poll_order("o-1", newer_than=NOW.replace(microsecond=123456))
        assert found == outcome
        assert getattr(found, "why", None) == why


# Further requests of one call


def not_now() -> Permit:
    async def permit() -> bool:
        return False

    return permit


REDIRECTED = answer(302, headers={"location": ORDER})
COMPLETED = says({"status": "Completed", "orderId": "o-1"})


@pytest.mark.parametrize("first", [REDIRECTED, COMPLETED], ids=["redirected", "completed without a tag"])
async def test_a_poll_that_may_not_continue_is_not_ready_and_asks_nothing_more(first: bytes) -> None:
    async with wired(answering(first, says({"versionTag": "t-1"}))) as w:
        assert await w.engage.poll_job("j-1", not_now()) == NotReady()
        assert len(w.server.requests) == 1


async def test_an_order_that_may_not_be_replaced_yet_is_not_put() -> None:
    async with wired(answering(answer(409), says({"jobId": "j-1"}, 202))) as w:
        outcome = await w.engage.send_document("o-1", {"orderId": "o-1"}, not_now())
        assert isinstance(outcome, Unavailable)
        assert len(w.server.requests) == 1


async def test_each_further_request_waits_for_a_permit_of_its_own() -> None:
    permits = 0

    async def permit() -> bool:
        nonlocal permits
        permits += 1
        return True

    async with wired(answering(REDIRECTED, REDIRECTED, says({"versionTag": "t-1"}))) as w:
        assert await w.engage.poll_job("j-1", permit) == Ready("t-1")
        assert permits == 2


# Documents


async def outcome_of_document(*answers: bytes) -> DocumentOutcome:
    async with wired(answering(*answers)) as w:
        outcome = await w.engage.send_document("o-1", {"orderId": "o-1"})
        asked = [(r.line, json.loads(r.body)) for r in w.server.requests]
        assert (
            asked
            == [
                (b"POST /api/v3/orders HTTP/1.1", {"orderId": "o-1"}),
                (b"PUT /api/v3/orders/o-1 HTTP/1.1", {"orderId": "o-1"}),
            ][: len(answers)]
        )
        return outcome


EXISTS = answer(409)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([says({"jobId": "j-1"}, 202)], DocumentTaken("j-1")),
        ([says({"JobId": 7}, 201)], DocumentTaken("7")),
        ([answer(202)], DocumentTaken(None)),
        ([answer(202, b"<html>")], DocumentTaken(None)),
        ([answer(200, b"<html>")], Unavailable("answer was not a JSON object")),
        ([says({"error": "no"}, 200)], Unavailable("Engage answered 200 with an error")),
        ([answer(204)], Unavailable("answer was not a JSON object")),
        (
            [says({"jobId": "j-1", "status": "Failed"}, 202)],
            JobFailed("job status is failed", '{"jobId":"j-1","status":"Failed"}'),
        ),
        ([EXISTS, says({"jobId": "j-1"}, 202)], DocumentTaken("j-1")),
        ([EXISTS, answer(409)], Unavailable("order exists already, but to replace it was answered 409")),
        ([EXISTS, answer(404)], Unavailable("order exists already, but to replace it was answered 404")),
        ([EXISTS, answer(400)], Rejected(400, "Engage answered 400")),
        ([answer(400)], Rejected(400, "Engage answered 400")),
        ([answer(413)], Rejected(413, "Engage answered 413")),
        ([answer(401)], Unauthorized(401)),
        ([answer(403)], Forbidden()),
        ([answer(422)], Rejected(422, "Engage answered 422")),
        ([answer(429, headers={"retry-after": "1"})], Throttled(1.0)),
        ([answer(307, headers={"location": "/x"})], Unavailable("Engage answered 307")),
        ([answer(499)], Unavailable("Engage answered 499")),
        ([answer(500)], Unavailable("Engage answered 500")),
        ([answer(503, headers={"retry-after": "1"})], Unavailable("Engage answered 503", 1.0)),
        ([b"garbage\r\n\r\n"], Unavailable("answer was not HTTP")),
    ],
)
async def test_what_an_answer_makes_of_a_document(answers: list[bytes], outcome: DocumentOutcome) -> None:
    assert await outcome_of_document(*answers) == outcome


async def test_a_document_that_is_no_longer_ours_is_withdrawn() -> None:
    async with wired(answering(says({"jobId": "j-1"}, 202))) as w:
        assert await w.engage.send_document("o-1", {}, may_send=lambda: False) == Withdrawn()
        assert w.server.requests == []
        assert await w.engage.send_document("o-1", {}, may_send=lambda: True) == DocumentTaken("j-1")


async def test_an_order_is_not_replaced_by_a_document_that_is_no_longer_ours() -> None:
    may_send = iter([True, False])
    async with wired(answering(EXISTS, says({"jobId": "j-1"}, 202))) as w:
        assert await w.engage.send_document("o-1", {}, may_send=lambda: next(may_send)) == OrderExists()
        assert [r.line for r in w.server.requests] == [b"POST /api/v3/orders HTTP/1.1"]


async def test_an_order_that_is_known_to_exist_is_replaced_at_once_while_it_is_ours() -> None:
    known = Document(exists=True)
    async with wired(answering(says({"jobId": "j-1"}, 202))) as w:
        assert await w.engage.send_document("o-1", {}, may_send=lambda: False, how=known) == Withdrawn()
        assert w.server.requests == []
        assert await w.engage.send_document("o-1", {}, may_send=lambda: True, how=known) == DocumentTaken("j-1")
        assert [r.line for r in w.server.requests] == [b"PUT /api/v3/orders/o-1 HTTP/1.1"]


async def test_a_redriven_document_replaces_no_order() -> None:
    async with wired(answering(EXISTS)) as w:
        assert await w.engage.send_document("o-1", {}, how=Document(replaces=False)) == OrderKept()
        assert [r.line for r in w.server.requests] == [b"POST /api/v3/orders HTTP/1.1"]


async def test_a_document_without_an_answer_may_be_sent_again() -> None:
    refused = client_of(refused_url())
    assert await refused.send_document("o-1", {}) == Unavailable("connection refused")
    async with wired(no_answer) as w:
        assert await w.engage.send_document("o-1", {}) == Unavailable("connection was closed before the answer")


CUT = "content-length: 99"
COMPRESSED = "content-encoding: gzip\r\ncontent-length: 1"


def unreadable(status: int, header: str) -> bytes:
    return f"HTTP/1.1 {status} Whatever\r\n{header}\r\n\r\n.".encode()


@pytest.mark.parametrize("header", [CUT, COMPRESSED], ids=["cut", "compressed"])
@pytest.mark.parametrize(
    ("status", "poll", "document"),
    [
        (400, Rejected(400, "Engage answered 400"), Rejected(400, "Engage answered 400")),
        (401, Unauthorized(401), Unauthorized(401)),
        (403, Forbidden(), Forbidden()),
        (404, NotFound(), Rejected(404, "Engage answered 404")),
        (429, Throttled(), Throttled()),
    ],
)
async def test_a_refusal_whose_body_is_lost_is_one_all_the_same(
    status: int, header: str, poll: PollOutcome, document: DocumentOutcome
) -> None:
    async with wired(sending_then(unreadable(status, header))) as w:
        assert await w.engage.poll_job("j-1") == poll
        assert await w.engage.poll_order("o-1") == poll
        assert await w.engage.send_document("o-1", {}) == document


@pytest.mark.parametrize("header", [CUT, COMPRESSED], ids=["cut", "compressed"])
async def test_an_order_that_exists_is_replaced_though_the_answers_body_is_lost(header: str) -> None:
    async def exists(peer: Peer) -> None:
        posted = (await peer.request()).line.startswith(b"POST")
        await peer.send(unreadable(409, header) if posted else says({"jobId": "j-1"}, 202))

    async with wired(exists) as w:
        assert await w.engage.send_document("o-1", {}) == DocumentTaken("j-1")


# Documents with an action in them


async def outcome_with_document(*answers: bytes) -> WithDocumentOutcome:
    async with wired(answering(*answers)) as w:
        outcome = await w.engage.send_with_document("o-1", {"orderId": "o-1"})
        assert len(w.server.requests) == len(answers)
        return outcome


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([says({"jobId": "j-1"}, 202)], DocumentTaken("j-1")),
        ([says({"JobId": 7}, 201)], DocumentTaken("7")),
        ([answer(202, b"<html>")], DocumentTaken(None)),
        ([answer(200, b"<html>")], InDoubt("Engage answered 200 without JSON")),
        ([says({"error": "no"}, 200)], InDoubt("Engage answered 200 with an error")),
        (
            [says({"jobId": "j-1", "status": "Failed"}, 202)],
            JobFailed("job status is failed", '{"jobId":"j-1","status":"Failed"}'),
        ),
        ([EXISTS, says({"jobId": "j-1"}, 202)], DocumentTaken("j-1")),
        ([EXISTS, answer(500)], InDoubt("Engage answered 500")),
        ([EXISTS, answer(409)], Unavailable("order exists already, but to replace it was answered 409")),
        ([EXISTS, answer(404)], Unavailable("order exists already, but to replace it was answered 404")),
        ([says(ERRORS, 400)], Rejected(400, "Engage answered 400", '[{"field":"language","message":"unknown"}]')),
        ([answer(404)], Rejected(404, "Engage answered 404")),
        ([answer(422)], NoContact()),
        ([answer(401)], Unauthorized(401)),
        ([answer(403)], Forbidden()),
        ([answer(429, headers={"retry-after": "1"})], Throttled(1.0)),
        ([answer(307, headers={"location": "/x"})], Unavailable("Engage answered 307")),
        *(([answer(status)], InDoubt(f"Engage answered {status}")) for status in (302, 303, 499, 500, 502, 503, 504)),
        ([b"garbage\r\n\r\n"], InDoubt("answer was not HTTP")),
    ],
)
async def test_what_an_answer_makes_of_a_document_with_an_action(
    answers: list[bytes], outcome: WithDocumentOutcome
) -> None:
    assert await outcome_with_document(*answers) == outcome


async def test_a_document_with_an_action_is_taken_though_its_answer_is_cut() -> None:
    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\ncut")

    async with wired(cut) as w:
        assert await w.engage.send_with_document("o-1", {}) == DocumentTaken(None)


async def test_a_document_with_an_action_is_in_doubt_without_an_answer() -> None:
    refused = client_of(refused_url())
    assert await refused.send_with_document("o-1", {}) == Unavailable("connection refused")
    async with wired(no_answer) as w:
        outcome = await w.engage.send_with_document("o-1", {})
        assert outcome == InDoubt("connection was closed before the answer")


async def test_a_document_with_an_action_leaves_only_while_it_is_ours() -> None:
    may_send = iter([False, True, False])
    async with wired(answering(EXISTS)) as w:
        assert await w.engage.send_with_document("o-1", {}, may_send=lambda: next(may_send)) == Withdrawn()
        assert w.server.requests == []
        assert await w.engage.send_with_document("o-1", {}, may_send=lambda: next(may_send)) == OrderExists()
        assert len(w.server.requests) == 1


async def test_a_redriven_document_with_an_action_replaces_no_order() -> None:
    async with wired(answering(EXISTS)) as w:
        assert await w.engage.send_with_document("o-1", {}, how=Document(replaces=False)) == OrderKept()
        assert [r.line for r in w.server.requests] == [b"POST /api/v3/orders HTTP/1.1"]


# Changes


CHANGES: list[Change] = ["change-delivery", "change-status"]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_posted_to_its_order_as_it_is(change: Change) -> None:
    async with wired(answering(says({"jobId": "j-1"}, 202))) as w:
        assert await w.engage.send_change("a/b", change, {"status": None, "x": [1]}) == DocumentTaken("j-1")
        (request,) = w.server.requests
        assert request.line == f"POST /api/v3/orders/a%2Fb/{change} HTTP/1.1".encode()
        assert json.loads(request.body) == {"status": None, "x": [1]}
        assert request.headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (says({"jobId": "j-1"}, 201), DocumentTaken("j-1")),
        (answer(202), DocumentTaken(None)),
        (says({"status": "Failed"}, 202), JobFailed("job status is failed", '{"status":"Failed"}')),
        (answer(400), Rejected(400, "Engage answered 400")),
        (answer(404), NotFound()),
        (answer(409, headers={"retry-after": "3"}), Unavailable("Engage answered 409", 3.0)),
        (answer(422), Rejected(422, "Engage answered 422")),
        (answer(401), Unauthorized(401)),
        (answer(403), Forbidden()),
        (answer(429), Throttled()),
        (answer(500), Unavailable("Engage answered 500")),
        (answer(307, headers={"location": "/x"}), Unavailable("Engage answered 307")),
        (b"garbage\r\n\r\n", Unavailable("answer was not HTTP")),
    ],
)
async def test_what_an_answer_makes_of_a_change(raw: bytes, outcome: DocumentOutcome) -> None:
    async with wired(answering(raw)) as w:
        assert await w.engage.send_change("o-1", "change-status", {"status": "Shipped"}) == outcome
        assert len(w.server.requests) == 1


async def test_a_change_that_is_no_longer_ours_is_withdrawn() -> None:
    async with wired(answering(says({"jobId": "j-1"}, 202))) as w:
        assert await w.engage.send_change("o-1", "change-status", {}, may_send=lambda: False) == Withdrawn()
        assert w.server.requests == []


# Ids


SAFE_IDS = [
    "o-1",
    "a/b",
    "a..b",
    "...",
    "a%2Fb",
    "a?b#c",
    "é 中 😀",
    "o" * MAX_ID_CHARACTERS,
]
UNSAFE_IDS = [
    "",
    ".",
    "..",
    "../jobs/1",
    "a/../b",
    "a/.",
    "/",
    "a//b",
    "a\\..\\b",
    "%2e%2e",
    "%252e%252E",
    "a%2f%2e%2e%2fb",
    "%2e",
    "\ud800",
    "new\nline",
    "\r\nx: y",
    "nul\0",
    "o" * 10_000,
]


@pytest.mark.parametrize("raw_id", SAFE_IDS, ids=lambda raw_id: ascii(raw_id[:20]))
async def test_an_id_is_exactly_one_path_segment(raw_id: str) -> None:
    async with wired(answering(says({"versionTag": "t-1"}))) as w:
        assert await w.engage.send_action(raw_id, ACTION) == AcceptedUndocumented()
        assert await w.engage.poll_order(raw_id) == Ready("t-1")
        assert await w.engage.poll_job(raw_id) == Ready("t-1")
        for request, before, after in zip(
            w.server.requests,
            (b"POST /api/v3/orders/", b"GET /api/v3/orders/", b"GET /api/v3/orders/jobs/"),
            (b"/action HTTP/1.1", b" HTTP/1.1", b" HTTP/1.1"),
            strict=True,
        ):
            segment = request.line.removeprefix(before).removesuffix(after)
            assert not set(segment) & set(b"/\\?#; \r\n")
            assert unquote_to_bytes(segment) == raw_id.encode()


@pytest.mark.parametrize("raw_id", UNSAFE_IDS, ids=lambda raw_id: ascii(raw_id[:20]))
async def test_an_id_that_is_no_single_segment_is_never_sent(raw_id: str) -> None:
    async with wired(answering(says({"versionTag": "t-1"}))) as w:
        order, job = (
            Rejected(0, "order id cannot be a path segment"),
            Rejected(0, "job id cannot be a path segment"),
        )
        assert await w.engage.send_action(raw_id, ACTION) == order
        assert await w.engage.poll_order(raw_id) == order
        assert await w.engage.send_document(raw_id, {}) == order
        assert await w.engage.send_with_document(raw_id, {}) == order
        assert await w.engage.send_change(raw_id, "change-status", {}) == order
        assert await w.engage.poll_job(raw_id) == job
        assert w.server.requests == []


@settings(max_examples=settings().max_examples * 2 // 5, deadline=None)
@given(st.text(max_size=40) | st.text("./\\%2eEfF5cC", max_size=12))
async def test_whatever_the_id_it_is_one_segment_or_is_not_sent(raw_id: str) -> None:
    async with wired(answering(answer(202))) as w:
        outcome = await w.engage.send_action(raw_id, ACTION)
        targets = [request.target for request in w.server.requests]
        if outcome == Accepted():
            (target,) = targets
            root, api, version, orders, segment, action = target.split(b"/")
            assert (root, api, version, orders, action) == (b"", b"api", b"v3", b"orders", b"action")
            assert unquote_to_bytes(segment) == raw_id.encode()
        else:
            assert (targets, outcome) == ([], Rejected(0, "order id cannot be a path segment"))


@pytest.mark.timeout(10)
async def test_an_id_encoded_over_and_over_is_looked_at_in_no_time() -> None:
    async with wired(answering(answer(202))) as w:
        assert await w.engage.send_action("%" + "25" * 500, ACTION) == Accepted()


# Key and origin


async def test_each_request_carries_the_key_and_names_the_integration() -> None:
    script = answering(
        answer(409), says({"jobId": "j"}, 202), answer(302, headers={"location": ORDER}), says({"versionTag": "t"})
    )
    async with wired(script) as w:
        await w.engage.send_document("o-1", {})
        await w.engage.poll_job("j-1")
        await w.engage.poll_order("o-1")
        await w.engage.send_action("o-1", ACTION)
        assert len(w.server.requests) == 6
        for request in w.server.requests:
            assert request.headers[b"apikey"] == KEY.encode()
            assert request.headers[b"user-agent"] == b"AcmePOS/1.5 engage-relay/1"
            assert request.headers[b"host"] == f"127.0.0.1:{w.server.port}".encode()
            assert request.headers[b"accept-encoding"] == b"identity"
            assert request.headers[b"content-type"] == b"application/json"  # a GET's, too, and after a redirect


@pytest.mark.parametrize(
    "location",
    [
        "{elsewhere}{path}",
        "//{netloc}{path}",
        "https://internal.example{path}",
        "http://user:password@{netloc}{path}",
        "{path}",
        "o-2?expand=all",
        "//engage.internal:8443{path}",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_of_a_redirect_the_path_is_asked_at_our_own_origin(status: int, location: str) -> None:
    """A server behind a gateway may write its inner name; the key goes to nobody but the connection's origin."""

    path = "/api/v3/orders/o-2?expand=all"
    async with serving(answering(says({"versionTag": "stolen"}))) as elsewhere:
        netloc = f"127.0.0.1:{elsewhere.port}"
        url = location.format(elsewhere=elsewhere.url, netloc=netloc, path=path)
        async with wired(answering(answer(status, headers={"location": url}), says({"versionTag": "t-1"}))) as w:
            assert await w.engage.poll_order("o-1") == Ready("t-1")
            first, second = w.server.requests
            assert second.target == path.encode()
            assert second.headers == first.headers
        assert elsewhere.connections == 0


async def test_what_a_redirect_points_to_is_never_sent_to() -> None:
    async with serving(answering(says({"versionTag": "stolen"}))) as elsewhere:
        for status in (301, 302, 307, 308):
            async with wired(answering(answer(status, headers={"location": elsewhere.url + JOB}))) as w:
                await w.engage.send_document("o-1", {})
                await w.engage.send_action("o-1", ACTION)
                assert [request.target for request in w.server.requests] == [
                    b"/api/v3/orders",
                    b"/api/v3/orders/o-1/action",
                ]
        assert elsewhere.connections == 0


async def test_headers_of_the_connection_go_along_with_each_request() -> None:
    script = answering(answer(302, headers={"location": ORDER}), says({"versionTag": "t"}), answer(202))
    async with serving(script) as server:
        engage = client_of(server.url, headers={"X-Gateway-Tenant": "acme se"})
        assert await engage.poll_job("j-1") == Ready("t")
        assert await engage.send_action("o-1", ACTION) == Accepted()
        assert [request.headers[b"x-gateway-tenant"] for request in server.requests] == [b"acme se"] * 3
        await engage.aclose()


async def test_environment_variables_lead_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, refused_url())

    assert await outcome_of_action(answer(202)) == Accepted()


def keys(*each: str | Exception) -> Callable[[], str]:
    left: Iterator[str | Exception] = iter(each)

    def api_key() -> str:
        key = next(left)
        if isinstance(key, Exception):
            raise key
        return key

    return api_key


@pytest.mark.parametrize("key", ["", "a b", "key\n", "key\r\nx: y", "né", "\0", FileNotFoundError(), ValueError()])
async def test_a_key_that_no_header_can_carry_is_as_wrong_as_one_that_is_refused(key: str | Exception) -> None:
    async with wired(answering(answer(202)), api_key=keys(key, key, key, key)) as w:
        assert await w.engage.send_action("o-1", ACTION) == Unauthorized(0)
        assert await w.engage.send_document("o-1", {}) == Unauthorized(0)
        assert await w.engage.poll_job("j-1") == Unauthorized(0)
        assert await w.engage.poll_order("o-1") == Unauthorized(0)
        assert w.server.requests == []


async def test_the_key_is_read_again_for_each_request() -> None:
    async with wired(answering(answer(401), answer(202)), api_key=keys("old", "new")) as w:
        assert await w.engage.send_action("o-1", ACTION) == Unauthorized(401)
        assert await w.engage.send_action("o-1", ACTION) == Accepted()
        assert [request.headers[b"apikey"] for request in w.server.requests] == [b"old", b"new"]


async def test_a_key_file_that_cannot_be_read_is_unauthorized(tmp_path: Path) -> None:
    path = tmp_path / "key"
    async with wired(answering(answer(202)), api_key=path.read_text) as w:
        assert await w.engage.send_action("o-1", ACTION) == Unauthorized(0)
        path.write_bytes(b"\xff\xfe")
        assert await w.engage.send_action("o-1", ACTION) == Unauthorized(0)
        path.write_text("k")
        assert await w.engage.send_action("o-1", ACTION) == Accepted()


async def test_a_base_urls_path_stays_in_front() -> None:
    async with wired(answering(answer(202)), prefix="/tenant/") as w:
        await w.engage.send_action("o-1", ACTION)
        assert w.server.requests[0].target == b"/tenant/api/v3/orders/o-1/action"


@pytest.mark.parametrize(
    ("header", "agent"), [("", "a"), ("api key", "a"), ("a:", "a"), ("clé", "a"), ("apikey", ""), ("apikey", "a\nb: c")]
)
def test_headers_that_http_cannot_carry_are_refused_at_once(header: str, agent: str) -> None:
    with pytest.raises(ValueError, match="api_key_header"):
        EngageClient(
            base_url="https://engage.example", api_key=str, api_key_header=header, user_agent=agent, timeout_s=1
        )


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"x": ""}, {"x": "a\r\nb: c"}, {"x": "é"}, {"x": " a"}])
def test_extra_headers_that_http_cannot_carry_are_refused_at_once(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="headers"):
        client_of("https://engage.example", headers=headers)
