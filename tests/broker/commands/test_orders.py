"""`engage-relay order`, as customer service calls it beside a relay at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from consumer.admin.orders import Orders
from consumer.commands.cli import app
from consumer.errors import AdoptionRefusedError
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.kafka.identity.adoption import adopt
from consumer.kafka.orders.history import Search
from consumer.kafka.orders.timeline import Timeline
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import event, order_id, partition_of, publish
from tests.support.relay_thread import QUICK, RelayThread
from tests.support.sandbox import Sandbox, SandboxFactory, recreate
from tests.support.waiting import until


def environment(sandbox: Sandbox) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": str(sandbox.properties["bootstrap.servers"]),
        "ENGAGE_RELAY__KAFKA__GROUP_ID": str(sandbox.properties["group.id"]),
        "ENGAGE_RELAY__SOURCE__TOPICS": sandbox.topics.source,
        "ENGAGE_BASE_URL": "http://127.0.0.1:9",
        "ENGAGE_API_KEY": "key",
    }


def calls(sandbox: Sandbox, *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(app, arguments, env={**environment(sandbox), **more})


def order(sandbox: Sandbox, order_id: str, *arguments: str, **more: str) -> dict[str, object]:
    result = calls(sandbox, "order", order_id, "--json", *arguments, **more)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def entries(timeline: dict[str, object]) -> list[Any]:
    found = timeline["entries"]
    assert isinstance(found, list)
    return found


def states(timeline: dict[str, object]) -> list[tuple[object, ...]]:
    return [(each["action"], each["state"], each["reason"]) for each in entries(timeline)]


def texts(timeline: dict[str, object]) -> list[str]:
    return [step["text"] for entry in entries(timeline) for step in entry["steps"]]


def test_an_order_is_told_from_its_first_event_to_what_is_pending(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=3)
    sent, other, broken = order_id("sent"), order_id("other"), order_id("broken")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(
            sandbox,
            [
                (sent, event(sent, engage={"jobId": engage.submit(sent)})),
                (sent, event(sent, kind="order.nobody-cares")),
                (other, event(other, engage={"jobId": engage.submit(other)})),
                (broken, event(broken, language=7)),
                (broken, event(broken, engage={"connection": "nobody"})),
            ],
        )
        books.wait_until_settled()
        told = order(sandbox, sent)
        assert states(told) == [("ConfirmOrder", "accepted", None), (None, "ignored", None)]
        assert "Engage accepted it; sent once" in texts(told)[-3]
        assert "it is ignored: no route takes it" in texts(told)
        assert states(order(sandbox, broken))[-1] == (None, "dead_letter", "unknown_connection")
        search = Search(
            properties=sandbox.properties,
            router=Router(compile_routes(BUILT_IN_ROUTES), ("default",)),
            dead_letter_topics={sandbox.topics.dead_letters},
        )
        on_the_page = Orders([sandbox.topics], lambda: search).look_up(sent)
        assert isinstance(on_the_page, Timeline)
        assert on_the_page.as_json() == {**told, "searched": on_the_page.as_json()["searched"]}
        said = calls(sandbox, "order", sent)
        assert f"{sandbox.topics.source}[{partition_of(sent, 3)}]" in said.stdout
        assert other not in said.stdout


def test_what_is_pending_says_when_it_is_next_due_and_who_waits(sandboxes: SandboxFactory) -> None:
    sandbox, waiting = sandboxes(), order_id("waiting")
    with Engage(processing="fixed:60m") as engage, RelayThread(sandbox, engage.url, policy=QUICK):
        job = engage.submit(waiting)
        publish(sandbox, [(waiting, event(waiting, n, engage={"jobId": job})) for n in (1, 2)])
        until(lambda: len(sandbox.read(sandbox.topics.delay)) > 2, "both are pending")
        told = order(sandbox, waiting, "--partition", "0")
    assert states(told) == [("ConfirmOrder", "pending", None), ("ConfirmShipment", "pending", None)]
    assert [each["next_due_ms"] is None for each in entries(told)] == [False, True]
    assert any(f"earlier action, that of {sandbox.topics.source}[0] 0" in text for text in texts(told))


def test_an_unknown_order_and_a_wrong_partition_are_errors_that_say_what_was_searched(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes(partitions=2)
    sandbox.write(sandbox.topics.source, [(b"A", b'{"orderId":"A"}')], 0)
    sandbox.write(sandbox.topics.source, [(b"A", b'{"orderId":"A"}')], 1)
    unknown = calls(sandbox, "order", "nobody-ordered-this")
    assert unknown.exit_code == 2
    assert f"1 records of {sandbox.topics.source}[" in unknown.stderr
    assert "murmur2" in unknown.stderr
    outside = calls(sandbox, "order", "A", "--partition", "2")
    assert (outside.exit_code, f"{sandbox.topics.source} has the partitions 0 to 1" in outside.stderr) == (2, True)
    elsewhere = calls(sandbox, "order", "A", "--topic", "nobody-made-this")
    assert elsewhere.exit_code == 2


def test_without_an_outcomes_topic_it_says_that_nothing_tells_what_became_of_an_event(
    sandboxes: SandboxFactory,
) -> None:
    sandbox = sandboxes()
    sandbox.write(sandbox.topics.source, [(b"A", event("A"))])
    sandbox.commit((sandbox.topics.source, 0, 1))
    told = order(sandbox, "A", ENGAGE_RELAY__OUTCOMES__TOPIC="none")
    assert states(told) == [("ConfirmOrder", "untold", None)]
    assert any("no outcomes are written for this source" in text for text in texts(told))
    for command in (("reconcile",), ("resend", "--withheld", "--reason", "a test", "--yes")):
        said = calls(sandbox, *command, ENGAGE_RELAY__OUTCOMES__TOPIC="none")
        assert (said.exit_code, "no outcomes are written" in said.stderr) == (1, True), said.output


def reconciled(sandbox: Sandbox, *arguments: str, stdin: str = "") -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    around = environment(sandbox)
    result = CliRunner().invoke(app, ["reconcile", "--json", *arguments], env=around, input=stdin)
    assert result.stdout, repr(result.exception) + result.output
    *problems, last = [json.loads(line) for line in result.stdout.splitlines()]
    return result.exit_code, problems, last["sums"]


def test_it_adds_up_while_the_relay_works_and_after(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes(partitions=2)
    orders = [order_id(f"add-{n}") for n in range(60)]
    with Engage(processing="uniform:50ms..2s") as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(each, event(each, engage={"jobId": engage.submit(each)})) for each in orders])
        publish(sandbox, [(orders[0], b"no event"), (orders[1], event(orders[1], kind="order.nobody-cares"))])
        until(lambda: engage.requests["action", "202"] > 5, "some are accepted")
        code, problems, _ = reconciled(sandbox)
        assert (code, problems) == (0, [])
        books.wait_until_settled()
        code, problems, sums = reconciled(sandbox, "--since", "1h")
        assert (code, problems) == (0, [])
    assert (sums["events"], sums["ignored"], sums["expected"]) == (62, 1, 61)
    assert sums["ends"] == {"accepted": 60, "dead_letter": 1}
    assert (sums["pending"], sums["unread"], sums["reasons"]) == (0, 0, {"undecodable": 1})


def test_what_does_not_add_up_is_named(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox, told, lost, doubled = sandboxes(), order_id("told"), order_id("lost"), order_id("doubled")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(each, event(each, engage={"jobId": engage.submit(each)})) for each in (told, doubled)])
        books.wait_until_settled()
    publish(sandbox, [(lost, event(lost))])
    offset = sandbox.offset(sandbox.topics.source) or 0
    sandbox.commit((sandbox.topics.source, 0, offset + 1))  # somebody moved the group past it
    assert sandbox.topics.outcomes is not None
    (first, second) = sandbox.read(sandbox.topics.outcomes)
    wrong = (second.value() or b"").replace(b'"accepted"', b'"dropped"')
    sandbox.write(sandbox.topics.outcomes, [(b"default:" + doubled.encode(), wrong)])
    code, problems, sums = reconciled(sandbox)
    assert code == 1
    assert [(each["order_id"], each["problem"]) for each in problems] == [
        (doubled, "it has several outcomes: accepted, dropped"),
        (lost, "it was read, and is lost: it has no outcome, is not pending and is no dead letter"),
    ]
    assert sums["problems"] == 2
    assert first.key() == b"default:" + told.encode()

    code, problems, sums = reconciled(sandbox, "--orders", "-", stdin=f"{told}\nnobody\n")
    assert (code, sums["expected"]) == (1, 1)
    assert [(each["order_id"], each["problem"]) for each in problems] == [("nobody", "no event of it was read")]
    file = tmp_path / "orders.txt"
    file.write_text(f"{told}\n\n")
    code, problems, _ = reconciled(sandbox, "--orders", str(file))
    assert (code, problems) == (0, [])


def test_a_recreated_sources_events_are_not_compared_with_what_its_former_topic_left(
    sandboxes: SandboxFactory,
) -> None:
    sandbox, former, new = sandboxes(), order_id("former"), order_id("new")
    with Engage() as engage, RelayThread(sandbox, engage.url), Books(sandbox) as books:
        publish(sandbox, [(former, event(former, engage={"connection": "nobody"}))])
        books.wait_until_settled()
    recreate(sandbox)
    until(lambda: adopted(sandbox), "the group has no members")
    with Engage() as engage, RelayThread(sandbox, engage.url):
        publish(sandbox, [(new, event(new, engage={"jobId": engage.submit(new)}))])
        until(lambda: engage.requests["action", "202"] == 1, "the new topic's event is accepted")
    code, problems, sums = reconciled(sandbox)
    assert (code, problems, sums["ends"]) == (0, [], {"accepted": 1})
    assert [each["place"]["incarnation"] for each in entries(order(sandbox, new))] == [1]
    assert states(order(sandbox, former)) == [(None, "dead_letter", "unknown_connection")]


def adopted(sandbox: Sandbox) -> bool:
    try:
        return bool(adopt(sandbox.properties, sandbox.topics, "earliest"))
    except AdoptionRefusedError:
        return False


def test_a_time_that_is_none_and_an_empty_list_are_the_operators_errors(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    assert calls(sandbox, "reconcile", "--since", "yesterday").exit_code == 2
    assert calls(sandbox, "reconcile", "--orders", "/nonexistent").exit_code == 2
