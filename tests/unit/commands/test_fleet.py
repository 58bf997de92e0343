"""`status --all` and `--check`: all instances side by side, and what a container's health check is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from consumer.admin import fleet, server
from consumer.admin.server import AdminServer, Health
from consumer.admin.status_model import Identity
from consumer.commands.status.fleet import COLUMNS
from consumer.telemetry.snapshot import PartitionFigures
from tests.unit.admin import status_sample
from tests.unit.commands.calling import called, json_lines


def partitions(*numbers: int) -> dict[tuple[str, int], PartitionFigures]:
    return {("orders", number): PartitionFigures("open", 1) for number in numbers}


WELL = Health({"event_loop": 0.4, "consumer": 0.4}, joined=True)
Start = Callable[..., str]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start an instance; returns its URL. `shown`: what differs in its figures."""
    monkeypatch.setattr(server, "CHECK_S", 0.01)
    running: list[AdminServer] = []

    def started(name: str, *, group: str = "engage-relay", health: Health = WELL, **shown: Any) -> str:
        admin = AdminServer(
            ("127.0.0.1", 0),
            CollectorRegistry(),
            lambda: health,
            lambda: (replace(status_sample.snapshot(), **shown), status_sample.flow()),
            identity=lambda: Identity(name, group, "kafka-1"),
        )
        admin.start()
        running.append(admin)
        return f"http://127.0.0.1:{admin.port}"

    yield started
    for each in running:
        each.close()


def test_all_instances_are_shown_side_by_side(start: Start) -> None:
    second, first = start("relay-1", partitions=partitions(4, 5)), start("relay-0")
    done = called("status", "--all", "--url", second, "--url", first)
    assert done.exit_code == 0
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert tuple(head) == COLUMNS
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    assert [each["instance"] for each in shown] == ["relay-0", "relay-1"]
    assert {each["group"] for each in shown} == {"engage-relay"}
    assert [each["partitions"] for each in shown] == ["4", "2"]
    assert shown[0]["connections"] == "2 open, outlet suspended"


def test_what_to_look_at_is_said_once_with_the_instances_that_say_it_and_then_all_figures_together(
    start: Start,
) -> None:
    more = {"partitions": partitions(4), "lag": {("orders", 4): 2}, "in_doubt": 3}
    done = called("status", "--all", "--url", start("relay-0"), "--url", start("relay-1", **more))
    suspended, overdue, in_doubt, together = done.stderr.splitlines()
    assert suspended.startswith("relay-0, relay-1: Connection outlet is suspended: Engage refuses its API key")
    assert overdue.startswith("relay-0, relay-1: Overdue: 41 actions")
    assert in_doubt == "relay-1: In doubt: 3 actions Engage may have processed already"
    assert together == "2 instances own 5 partitions; 244 actions are pending, lag 17"


def test_a_partition_that_two_instances_own_is_named(start: Start) -> None:
    first, second = start("relay-0", partitions=partitions(3)), start("relay-1", partitions=partitions(3, 4))
    done = called("status", "--all", "--url", first, "--url", second, "-o", "json")
    (line,) = done.stderr.splitlines()
    assert line.startswith("orders[3] is owned by relay-0 and by relay-1: ")
    other = start("other", group="returns", partitions=partitions(3))
    assert "is owned by" not in called("status", "--all", "--url", first, "--url", other).stderr


@pytest.mark.parametrize("option", ["--watch", "--check"])
def test_what_is_of_one_instance_is_refused_for_all(option: str) -> None:
    done = called("status", "--all", option, "--url", "http://127.0.0.1:1")
    assert (done.exit_code, done.stderr) == (2, f"{option}: of one instance only, without --all\n")


def test_one_that_does_not_answer_has_a_row_and_the_code_is_1(start: Start) -> None:
    done = called("status", "--all", "--url", "http://127.0.0.1:1", "--url", start("relay-0"), "-o", "json")
    assert done.exit_code == 1
    answered, silent = json_lines(done)
    assert answered["why"] == ""
    assert (silent["address"], silent["status"]) == ("http://127.0.0.1:1", None)
    assert "nobody answers at http://127.0.0.1:1" in done.stderr


def test_instances_of_two_groups_are_told_apart_aloud(start: Start) -> None:
    done = called("status", "--all", "--url", start("a"), "--url", start("b", group="other"), "-o", "yaml")
    assert len(yaml.safe_load(done.stdout)) == 2
    assert done.stderr == "the instances have more than one group: engage-relay, other\n"


def test_a_name_stands_for_each_of_its_addresses_once(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = [(2, 1, 6, "", (each, 8080)) for each in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: behind)
    assert fleet.addresses(["http://relay:8080", "http://relay:8080/"]) == [
        "http://10.0.0.1:8080",
        "http://10.0.0.2:8080",
    ]
    assert fleet.addresses(["https://relay"]) == ["https://relay"]


@pytest.mark.parametrize("url", ["relay:8080", "ftp://relay"])
def test_what_is_no_address_is_refused(url: str) -> None:
    assert called("status", "--all", "--url", url).exit_code == 2


@pytest.mark.parametrize("options", [("--all",), ("--once",)])
def test_a_host_without_an_address_is_told_as_one_that_does_not_answer(options: tuple[str, ...]) -> None:
    """A headless service has a name before it has a pod: a retry may help."""
    done = called("status", *options, "--url", "http://no-such-host.invalid:1")
    assert done.exit_code == 1
    assert done.stderr == "nobody answers at http://no-such-host.invalid:1: host name could not be resolved\n"


def test_one_display_is_of_one_instance() -> None:
    assert called("status", "--url", "http://a:1", "--url", "http://b:1").exit_code == 2


def test_a_health_check_says_nothing_while_all_is_well_and_otherwise_why(start: Start) -> None:
    done = called("status", "--check", "--url", start("relay-0"))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    stuck = called("status", "--check", "--url", start("relay-1", health=Health({"event_loop": 99.0})))
    assert (stuck.exit_code, "event_loop: no heartbeat for 99 s" in stuck.stderr) == (1, True)
    gone = called("status", "--check", "--url", "http://127.0.0.1:1")
    assert (gone.exit_code, "nobody answers" in gone.stderr) == (1, True)


def test_the_status_says_whose_it_is(start: Start) -> None:
    done = called("status", "--once", "--url", start("relay-0"), "--json")
    status = json.loads(done.stdout)
    assert (status["instance"], status["group"], status["cluster"]) == ("relay-0", "engage-relay", "kafka-1")
    assert "relay-0  group engage-relay  cluster kafka-1" in called("status", "--url", start("relay-0")).stdout
