"""Each documented fact of Engage's order API, by plain HTTP. docs/engage.md lists them with how sure each one is.

The docstring names the fact and the page of Voyado's documentation that says so. "API v3" is the reference of the
order endpoints, "Documentation of orders" the pages around it. What is only likely is of examples or public clients.
"""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conformance.target import JSON, NOBODY, ORDERS, Target, plain_client

ANY_NAMES = ["ConfirmOrder", "ConfirmCompletion", "Custom", "ReturnReceived", "Försenad leverans"]
CHANGED_DELIVERY = {
    "method": "Home",
    "trackingNumber": "JJSE0001",
    "trackingUri": "https://track.example.com/JJSE0001",
    "deliveryDate": "2026-12-01T00:00:00Z",
}
CALLS = ["GET order", "GET job", "POST order", "PUT order", "POST action", "POST change-status"]


def bare(engage: Target, call: str, headers: dict[str, str], order: tuple[str, str] | None = None) -> httpx.Response:
    """Send the call with these headers only."""
    order_id, job_id = order or engage.create()
    path, method, body = {
        "GET order": (f"{ORDERS}/{order_id}", "GET", None),
        "GET job": (f"{ORDERS}/jobs/{job_id}", "GET", None),
        "POST order": (ORDERS, "POST", engage.document()),
        "PUT order": (f"{ORDERS}/{order_id}", "PUT", engage.document(order_id)),
        "POST action": (f"{ORDERS}/{order_id}/action", "POST", {"action": "Custom", "versionTag": "none"}),
        "POST change-status": (f"{ORDERS}/{order_id}/change-status", "POST", {"status": "Shipped"}),
    }[call]
    content = None if body is None else json.dumps(body).encode()
    with plain_client(engage.base_url) as client:
        return client.request(method, path, headers=headers, content=content)


def correct(engage: Target) -> dict[str, str]:
    return {"apikey": engage.api_key, "User-Agent": "AcmePOS/1.5", "Content-Type": JSON}


# Fact 0: what every call and every order is about


def test_fact_00_every_call_needs_the_key(engage: Target) -> None:
    """API v3, authentication: a call without `apikey` is refused, and says 401."""
    headers = correct(engage)
    del headers["apikey"]
    assert bare(engage, "GET order", headers).status_code == 401


def test_fact_00_a_created_order_is_taken_with_a_job(engage: Target) -> None:
    """API v3, POST orders: {jobId, status, orderId, href of the job}."""
    document = engage.document()
    answer = engage.http.post(ORDERS, json=document)
    job = answer.json()
    assert answer.status_code in (201, 202)
    assert job["orderId"] == document["orderId"]
    assert job["jobId"]
    assert urlsplit(job["href"]).path.lower() == f"{ORDERS}/jobs/{job['jobId']}".lower()


def test_fact_00_an_order_is_created_once(engage: Target) -> None:
    """API v3, POST orders: 409, the order already exists. Fact 13: so a repeated POST of an order does no harm."""
    document = engage.document()
    engage.processed(document)
    assert engage.http.post(ORDERS, json=document).status_code == 409


def test_fact_00_a_document_that_is_wrong_is_refused_with_a_list_of_errors(engage: Target) -> None:
    """API v3, POST orders: 400 with a list of errors."""
    answer = engage.http.post(ORDERS, json={"contact": "nobody"})
    assert answer.status_code == 400
    assert answer.text


def test_fact_00_an_unknown_order_is_not_found(engage: Target) -> None:
    """API v3, GET, PUT orders/{orderId} and POST action: 404."""
    document = engage.document()
    path = f"{ORDERS}/{document['orderId']}"
    assert engage.http.get(path).status_code == 404
    assert engage.http.put(path, json=document).status_code == 404
    assert engage.act(document["orderId"], "none").status_code == 404


def test_fact_00_the_tag_comes_with_the_processing(engage: Target) -> None:
    """API v3, GET orders/{orderId}: versionTag is there once the latest update was processed."""
    order_id, tag = engage.processed()
    assert isinstance(tag, str)
    assert engage.order(order_id)["orderId"] == order_id


def test_fact_00_a_stale_tag_is_not_found_and_the_newest_is_accepted(engage: Target) -> None:
    """API v3, POST action: 404, order not found or versionTag did not match; 202, accepted."""
    engage.needs_known_contact()
    document = engage.document()
    order_id, old = engage.processed(document)
    assert engage.http.put(f"{ORDERS}/{order_id}", json=document | {"status": "Shipped"}).is_success
    new = engage.tag(order_id, other_than=old)
    assert engage.act(order_id, old).status_code == 404
    assert engage.act(order_id, new).status_code in (201, 202)


def test_fact_00_errors_come_as_json_or_as_a_page_and_the_status_says_which(engage: Target) -> None:
    """Seen in the wild: a gateway or the web server answers with HTML, whatever `Accept` says."""
    engage.moods(htmlErrors=1)
    answer = engage.http.post(ORDERS, json={})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (400, "text/html")
    engage.moods()
    answer = engage.http.post(ORDERS, json={})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (400, "application/json")
    assert answer.json()[0]["message"]


# Fact 1: Content-Type


@pytest.mark.parametrize("call", CALLS)
def test_fact_01_a_call_without_the_content_type_fails_even_a_get(engage: Target, call: str) -> None:
    """API v3, headers: `Content-Type: application/json` is mandatory in every request; without it 500."""
    headers = correct(engage)
    order = engage.create()
    assert bare(engage, call, headers, order).status_code < 500
    del headers["Content-Type"]
    assert bare(engage, call, headers, order).status_code == 500


@pytest.mark.parametrize("written", ["application/json; charset=utf-8", "Application/JSON"])
def test_fact_01_the_content_type_may_be_written_as_http_allows(engage: Target, written: str) -> None:
    """RFC 9110, 8.3.1: a media type is case-insensitive, and may have parameters."""
    assert bare(engage, "GET order", correct(engage) | {"Content-Type": written}).is_success


def test_fact_01_a_redirect_that_is_followed_needs_the_content_type_too(engage: Target) -> None:
    """API v3, headers and GET job: the redirect leads to a request like every other."""
    engage.moods(redirects=["relative=1"])
    _, job_id = engage.create()
    location = engage.finished(job_id).headers["location"]
    headers = correct(engage)
    with plain_client(engage.base_url) as client:
        assert client.get(location, headers=headers).is_success
        del headers["Content-Type"]
        assert client.get(location, headers=headers).status_code == 500


# Fact 2: User-Agent


@pytest.mark.parametrize("call", CALLS)
def test_fact_02_a_call_without_a_user_agent_is_refused(engage: Target, call: str) -> None:
    """API v3, headers: `User-Agent` is mandatory and names the client's system and its version."""
    headers = correct(engage)
    del headers["User-Agent"]
    assert bare(engage, call, headers).status_code == 400


# Facts 3, 4 and 15: actions


@pytest.mark.parametrize("name", ANY_NAMES)
def test_fact_03_an_action_is_any_text(engage: Target, name: str) -> None:
    """API v3, POST action: a text that the merchant determines. Fact 15: a return has no action of its own."""
    engage.needs_known_contact()
    order_id, tag = engage.processed()
    assert engage.act(order_id, tag, name).status_code in (201, 202)
    if engage.controllable:
        assert [each["action"] for each in engage.accepted(order_id)] == [name]


def test_fact_03_an_action_without_a_name_is_refused(engage: Target) -> None:
    """API v3, POST action: 400 for a bad request."""
    order_id, tag = engage.processed()
    assert engage.act(order_id, tag, "").status_code == 400


@pytest.mark.parametrize("data", ["a text", {"rows": [{"sku": "1", "price": 199.5}]}, [1, None, True], None])
def test_fact_04_data_is_any_json(engage: Target, data: object) -> None:
    """API v3, POST action: typed as text in the list of fields, an object with a list in the example. Open."""
    engage.needs_known_contact()
    order_id, tag = engage.processed()
    assert engage.act(order_id, tag, data=data).status_code in (201, 202)
    if engage.controllable:
        assert [each["data"] for each in engage.accepted(order_id)] == [data]


# Fact 5: contacts


def test_fact_05_an_action_upon_an_order_without_a_contact_is_422(engage: Target) -> None:
    """API v3, POST action: 422, the order has no contact."""
    document = engage.document()
    del document["contact"]
    order_id, tag = engage.processed(document)
    assert engage.act(order_id, tag).status_code == 422


def test_fact_05_an_order_whose_contact_is_unknown_is_accepted_all_the_same(engage: Target) -> None:
    """Documentation of orders: it is accepted, with a line in the integration log; its actions are 422. Fact 11."""
    if engage.controllable:
        engage.moods(missingContacts=1)
    document = engage.document(contact={"matchKey": NOBODY, "matchKeyType": "Email"})
    order_id, tag = engage.processed(document)
    assert engage.act(order_id, tag).status_code == 422
    if engage.controllable:
        assert engage.account("?summary=1")["integrationLog"]["the contact is unknown"] >= 1


def test_fact_05_a_contact_that_comes_late_ends_the_422(engage: Target) -> None:
    """Documentation of orders: contacts are synchronised apart from orders."""
    engage.moods(missingContacts=1)
    order_id, tag = engage.processed()
    assert engage.act(order_id, tag).status_code == 422
    engage.control("POST", "contacts", orderIds=[order_id])
    assert engage.act(order_id, tag).status_code == 202
    assert len(engage.accepted(order_id)) == 1


def test_fact_05_an_order_that_is_put_again_after_its_contact_came_is_linked(engage: Target) -> None:
    """Documentation of orders: register the contact, and send the order again."""
    engage.moods(missingContacts=1, contactLink="again")
    document = engage.document()
    order_id, old = engage.processed(document)
    engage.control("POST", "contacts", orderIds=[order_id])
    assert engage.act(order_id, old).status_code == 422
    assert engage.http.put(f"{ORDERS}/{order_id}", json=document).is_success
    assert engage.act(order_id, engage.tag(order_id, other_than=old)).status_code == 202


# Fact 6: actions that come with a document


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_fact_06_an_order_action_is_applied_when_its_version_is_processed(engage: Target, method: str) -> None:
    """API v3, POST and PUT orders: `orderAction` {action, language, data}; Engage carries it out then, and once."""
    engage.needs_control()
    action = {"action": "ConfirmShipment", "language": "sv", "data": {"parcel": "1Z"}}
    document = engage.document(orderAction=action)
    order_id = document["orderId"]
    old = None
    if method == "POST":
        engage.create(document)
    else:
        _, old = engage.processed(document | {"orderAction": None})
        assert engage.http.put(f"{ORDERS}/{order_id}", json=document).is_success
    tag = engage.tag(order_id, other_than=old)
    accepted = engage.accepted_once(order_id)
    assert {name: accepted[name] for name in action} == action
    assert (accepted["versionTag"], accepted["withDocument"]) == (tag, True)
    assert accepted["acceptedAt"] == accepted["tagReadyAt"], "not before it is processed"


def test_fact_06_an_order_action_and_an_action_of_ours_are_two(engage: Target) -> None:
    """API v3: whoever sends both has the customer mailed twice."""
    engage.needs_control()
    order_id, tag = engage.processed(engage.document(orderAction={"action": "ConfirmOrder"}))
    assert engage.act(order_id, tag, "ConfirmOrder").status_code == 202
    assert [each["withDocument"] for each in engage.accepted(order_id)] == [True, False]


def test_fact_06_an_order_action_without_a_contact_is_lost_without_an_answer(engage: Target) -> None:
    """API v3 and fact 11: a 202 is no mail; what is missing shows up in the integration log only."""
    engage.moods(missingContacts=1)
    order_id, _ = engage.processed(engage.document(orderAction={"action": "ConfirmOrder"}))
    assert engage.accepted(order_id) == []
    assert engage.account("?summary=1")["integrationLog"]["an orderAction found no contact"] >= 1


# Fact 7: jobs


def test_fact_07_a_job_that_is_done_leads_to_its_tag(engage: Target) -> None:
    """API v3, GET job: done, it shows the tag, redirects to the order, or says so and leaves the tag to the order."""
    order_id, job_id = engage.create()
    answer = engage.finished(job_id)
    tag = engage.tag(order_id)
    if answer.is_redirect:
        assert urlsplit(answer.headers["location"]).path.endswith(f"{ORDERS}/{order_id}")
    else:
        assert answer.is_success
        assert answer.json().get("versionTag") in (tag, None)


@pytest.mark.parametrize("kind", ["relative", "absolute", "other-scheme", "other-host"])
def test_fact_07_a_redirects_path_is_the_orders_whatever_host_it_names(engage: Target, kind: str) -> None:
    """API v3, GET job: a 302 to the order. Behind a gateway a server may name itself by another scheme or host."""
    engage.moods(redirects=[f"{kind}=1"])
    order_id, job_id = engage.create()
    answer = engage.finished(job_id)
    location, base = urlsplit(answer.headers["location"]), urlsplit(engage.base_url)
    assert (answer.status_code, location.path) == (302, f"{ORDERS}/{order_id}")
    named = {
        "relative": ("", ""),
        "absolute": (base.scheme, base.netloc),
        "other-scheme": ("https" if base.scheme == "http" else "http", base.netloc),
    }
    if kind in named:
        assert (location.scheme, location.netloc) == named[kind]
    else:
        assert location.netloc not in ("", base.netloc)


def test_fact_07_a_job_that_cannot_be_processed_answers_with_an_error(engage: Target) -> None:
    """API v3, GET job: an error when the order cannot be processed."""
    engage.moods(jobWords=["Failed=1"])
    order_id, job_id = engage.create()
    answer = engage.finished(job_id)
    assert answer.json()["status"] == "Failed"
    assert answer.json()["errors"]
    assert engage.http.get(f"{ORDERS}/{order_id}").status_code == 404


@pytest.mark.parametrize(("created", "status"), [(1, 201), (0, 202)])
def test_fact_07_an_acceptance_is_201_or_202(engage: Target, created: float, status: int) -> None:
    """API v3: one page says "201 Accepted" where the others say 202."""
    engage.moods(created=created)
    order_id, tag = engage.processed()
    answers = [
        engage.http.post(ORDERS, json=engage.document()),
        engage.act(order_id, tag),  # before the change, whose version would make the tag stale
        engage.http.post(f"{ORDERS}/{order_id}/change-status", json={"status": "Shipped"}),
    ]
    assert [answer.status_code for answer in answers] == [status] * 3


# Fact 8: a job's words


def test_fact_08_a_job_says_how_far_it_is(engage: Target) -> None:
    """Public clients: Completed, CompletedWithErrors, Failed; the words are documented nowhere. Likely."""
    _, job_id = engage.create()
    answer = engage.finished(job_id)
    if not answer.is_redirect:
        assert answer.json()["status"].lower().startswith("completed")


@pytest.mark.parametrize("word", ["CompletedWithErrors", "completed", "Archived"])
def test_fact_08_a_job_in_another_word_has_its_tag_at_the_order(engage: Target, word: str) -> None:
    """Public clients: CompletedWithErrors. Where the job has no tag, the order has it. Likely."""
    engage.moods(jobWords=[f"{word}=1"])
    order_id, job_id = engage.create()
    job = engage.finished(job_id).json()
    assert (job["status"], job["orderId"], job.get("versionTag")) == (word, order_id, None)
    assert engage.tag(order_id)


def test_fact_08_a_job_may_be_under_way_in_another_word(engage: Target) -> None:
    """The words are documented nowhere. Open."""
    engage.moods(waitingWords=["Queued=1"])

    def find() -> dict[str, object] | None:  # a job may be done before a slow machine asks for it
        job: dict[str, object] = engage.http.get(f"{ORDERS}/jobs/{engage.create()[1]}").json()
        return None if job["status"] == "Completed" else job

    job = engage.until(find)
    assert (job["status"], job.get("versionTag")) == ("Queued", None)


# Fact 9: lastChangedAt


def test_fact_09_an_order_has_last_changed_at_only_where_the_merchant_says_it(engage: Target) -> None:
    """API v3, POST orders: `lastChangedAt` is a field of the payload, and is not set by Engage."""
    silent, _ = engage.processed()
    assert engage.order(silent).get("lastChangedAt") is None
    telling, _ = engage.processed(engage.document(lastChangedAt="2026-01-02T03:04:05Z"))
    assert engage.order(telling)["lastChangedAt"].startswith("2026-01-02T03:04:05")


# Fact 10: changes


@pytest.mark.parametrize(
    ("path", "body"), [("change-status", {"status": "Shipped"}), ("change-delivery", CHANGED_DELIVERY)]
)
def test_fact_10_a_change_is_a_job_with_a_new_tag_and_leaves_the_other_fields(
    engage: Target, path: str, body: dict[str, str]
) -> None:
    """API v3, POST change-status and change-delivery: asynchronous, without the whole document."""
    document = engage.document()
    order_id, old = engage.processed(document)
    answer = engage.http.post(f"{ORDERS}/{order_id}/{path}", json=body)
    assert answer.status_code in (201, 202)
    assert answer.json()["jobId"]
    new = engage.tag(order_id, other_than=old)
    order = engage.order(order_id)
    changed = order if path == "change-status" else order["delivery"]
    assert changed | body == changed
    assert order["currencyCode"] == document["currencyCode"]
    assert engage.act(order_id, old).status_code == 404
    if engage.contact is not None:
        assert engage.act(order_id, new).status_code in (201, 202)


@pytest.mark.parametrize("path", ["change-status", "change-delivery"])
def test_fact_10_a_change_that_is_no_object_is_refused(engage: Target, path: str) -> None:
    """API v3: 400 for a bad request."""
    order_id, _ = engage.processed()
    assert engage.http.post(f"{ORDERS}/{order_id}/{path}", content=b"[]").status_code == 400


def test_fact_10_put_replaces_everything(engage: Target) -> None:
    """API v3, PUT orders/{orderId}: the whole order."""
    document = engage.document(externalStatus="picked")
    order_id, old = engage.processed(document)
    del document["externalStatus"]
    assert engage.http.put(f"{ORDERS}/{order_id}", json=document | {"status": "Shipped"}).is_success
    engage.tag(order_id, other_than=old)
    order = engage.order(order_id)
    assert (order["status"], order.get("externalStatus")) == ("Shipped", None)


# Fact 14: the rate


def test_fact_14_more_than_the_limit_in_a_second_is_429_with_when_to_come_back(engage: Target) -> None:
    """Non-functional requirements: 429 above 200 requests/s, measured per API key."""
    engage.needs_control()
    path, answers = f"{ORDERS}/none", all_at_once(engage.with_key("once"), 400)
    served, throttled = answers.count(b"HTTP/1.1 404 "), answers.count(b"HTTP/1.1 429 ")
    assert served >= 200
    assert throttled == 400 - served > 0
    assert answers.lower().count(b"\r\nretry-after: 1\r\n") == throttled
    assert engage.http.get(path, headers={"apikey": "another"}).status_code == 404


def all_at_once(engage: Target, times: int) -> bytes:
    """Ask many times in one write, so that a slow machine asks as fast as a quick one; return all answers."""
    url = httpx.URL(engage.base_url)
    headers = "".join(f"{name}: {value}\r\n" for name, value in correct(engage).items())
    request = f"GET {ORDERS}/none HTTP/1.1\r\nHost: x\r\n{headers}"
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(f"{request}\r\n".encode() * (times - 1) + f"{request}Connection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))
