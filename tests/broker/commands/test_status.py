"""The status of a real relay: what it says is so, and nothing that an event holds is in it."""

from __future__ import annotations

import http.client
import re
from contextlib import closing
from pathlib import Path

from consumer.admin.status_model import DeadLetter, Status
from tests.support.books import Books
from tests.support.engage import API_KEY, Engage
from tests.support.events import CUSTOMER, SECRET_ID, event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import SandboxFactory
from tests.support.waiting import PATIENCE_S, until

PAGE = "text/html,*/*;q=0.8"
MARKS = (API_KEY, CUSTOMER, SECRET_ID, "4711", "Kim Exempel")


def status_of(relay: RelayProcess) -> Status:
    return Status.model_validate_json(relay.get("/status")[1])


def page_of(relay: RelayProcess) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", relay.admin_port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/status", headers={"Accept": PAGE})
        return connection.getresponse().read().decode()


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)))


def test_a_relay_says_what_it_did_and_what_is_pending(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes(partitions=2)
    with Engage() as engage, Books(sandbox) as books:
        config = written(tmp_path, configuration(sandbox, engage.url))
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            relay.wait_until_ready()
            accepted = [order_id(number) for number in range(20)]
            publish(sandbox, [(each, event(each, engage={"jobId": engage.submit(each)})) for each in accepted])
            publish(sandbox, [("x", b'{"type": "order.shipped", "name": "Kim Exempel"}')])
            books.wait_until_settled()
            stuck = order_id("stuck")
            job = engage.submit(stuck, fate="never")
            publish(sandbox, [(stuck, event(stuck, number, engage={"jobId": job})) for number in (1, 2)])

            def told() -> Status | None:
                status = status_of(relay)
                seen = sum(each.accepted for each in status.recent.moments)
                return status if (seen, status.dead_letters.total, status.pending.open) == (20, 1, 2) else None

            status = until(told, "the status tells all of it")
            assert status is not None
            assert status.state == "running"
            assert status.age_s is not None
            assert status.age_s < PATIENCE_S
            assert [(each.topic, each.partition) for each in status.partitions] == [
                (sandbox.topics.source, 0),
                (sandbox.topics.source, 1),
            ]
            assert {each.holding for each in status.partitions} == {"open"}
            assert sum(each.pending for each in status.partitions) == 2
            assert status.pending.by_state["queued"] == 1
            assert status.pending.next_due is not None or status.pending.by_state["waiting"] == 0
            assert status.pending.by_age[0].actions == 2
            assert status.rate_limit_share == 1
            (connection,) = status.connections
            assert (connection.name, connection.state, connection.rate_limit) == ("default", "open", 400)
            assert status.recent.tag_ready_to_accepted.accepted == 20
            (dead_letter,) = status.dead_letters.last
            assert (dead_letter.reason, dead_letter.source_topic) == ("invalid_event", sandbox.topics.source)
            assert (dead_letter.dead_letter_topic, dead_letter.dead_letter_offset) == (sandbox.topics.dead_letters, 0)
            (logged,) = relay.said("an event became a dead letter")
            assert {name: logged[name] for name in DeadLetter.model_fields if name != "at"} == dead_letter.model_dump(
                exclude={"at"}
            )
            assert status.dead_letters.by_reason["invalid_event"] == 1

            page = page_of(relay)
            assert "Pending 2 of at most 100,000" in words(page)
            where = f"{sandbox.topics.source}[{dead_letter.partition}] {dead_letter.source_offset} 0"
            assert f"invalid_event {where}" in words(page)
            for mark in MARKS:
                assert mark not in page
                assert mark not in status.model_dump_json()


def test_a_suspended_connection_says_why_and_since_when_until_it_continues(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes()
    key = tmp_path / "key"
    key.write_text("a-wrong-key")
    with Engage(valid_keys=frozenset({API_KEY})) as engage, Books(sandbox) as books:
        made = configuration(sandbox, engage.url)
        connection = {"base_url": engage.url, "api_key_file": str(key)}
        config = written(tmp_path, {**made, "engage": {"connections": {"outlet": connection}}, "routes": TO_OUTLET})
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            relay.wait_until_ready()
            order = order_id("waits")
            publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)}))])

            def suspended() -> Status | None:
                status = status_of(relay)
                return status if status.connections and status.connections[0].state == "suspended" else None

            status = until(suspended, "the connection is suspended")
            assert status is not None
            (halted,) = status.connections
            assert halted.why == "Engage refuses its API key (401)"
            assert halted.since is not None
            assert status.started is not None
            assert status.started <= halted.since
            assert any("outlet is suspended" in each for each in status.attention)
            assert "a-wrong-key" not in page_of(relay) + status.model_dump_json()

            key.write_text(API_KEY)
            books.wait_until_settled()
            until(lambda: status_of(relay).connections[0].state == "open", "the connection is open again")
            open_again = status_of(relay)
            assert open_again.connections[0].why is None
            assert open_again.attention == []


TO_OUTLET = {
    "shipped": {
        "when": "starts_with(type, 'order.')",
        "action": "ConfirmShipment",
        "order_id": "orderId",
        "job_id": "engage.jobId",
        "connection": "'outlet'",
    }
}


def test_a_connection_that_cools_down_says_why(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    with Engage() as engage:
        config = written(tmp_path, configuration(sandbox, engage.url))
        with RelayProcess(tmp_path, config, "--from", "earliest", impatient=True) as relay:
            relay.wait_until_ready()
            engage.down()
            orders = [order_id(number) for number in range(20)]
            publish(sandbox, [(each, event(each, engage={"versionTag": "t"})) for each in orders])

            def why() -> str | None:
                return next((each.why for each in status_of(relay).connections if each.state == "cooldown"), None)

            assert until(why, "the connection cools down") is not None
            for mark in MARKS:
                assert mark not in relay.get("/status")[1] + page_of(relay)
