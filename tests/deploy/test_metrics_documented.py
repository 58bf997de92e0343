"""docs/metrics.md names every metric of the relay as it is, and nothing that is asked for or talked about is made up.

(tests/broker/commands/test_monitoring.py holds the same against a relay that runs.)
"""

from __future__ import annotations

import re
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from consumer.core.ledger.entries import State
from consumer.core.outcomes import DocumentOutcome, PollOutcome, SendOutcome
from consumer.core.poll_plan import PollPlan
from consumer.engage.http import FailureKind
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.telemetry.metrics import Metrics, Rebalance
from consumer.telemetry.snapshot import ConnectionFigures, PartitionFigures, Snapshot
from schemas.dead_letter import Reason
from tests.deploy.monitoring import REFERENCE, ROOT, RUNBOOK, Exposed, exposed, recorded, unknown


@pytest.fixture(scope="module")
def scrape() -> str:
    """Return a scrape of a relay that has seen everything once."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.expect(
        topics=["orders"],
        connections=["default"],
        routes=[(name, route.action) for name, route in BUILT_IN_ROUTES.items()],
    )
    for call, status in (("job", "200"), ("action", "202"), ("job", "429")):
        metrics.request("default", call, status, 0.1)
    metrics.job_status("default", "processing")
    metrics.watch_heartbeats(lambda: {"event_loop": 0.1, "consumer": 0.1})
    metrics.build_info("1.2.3")
    rtt = {"cnt": 1, "p50": 5, "p99": 5}
    metrics.librdkafka_statistics("source", {"brokers": {"b:9092/1": {"nodeid": 1, "source": "learned", "rtt": rtt}}})
    metrics.dead_letters_waiting({"orders": 1})
    metrics.topics_unfit({"orders.engage.delay": ["why"]})
    plan = PollPlan(60.0)
    plan.found(1.0, 2.0)
    plan.steer(1.0)
    metrics.publish(
        Snapshot(
            pending={state.name.lower(): 0 for state in State if state is not State.GONE},
            lag={("orders", 0): 1},
            partitions={("orders", 0): PartitionFigures("set_apart", 0, "overrun", "why")},
            refused_dead_letters={"orders": (1, "why")},
            connections={"default": ConnectionFigures(plan=plan.figures())},
        )
    )
    return generate_latest(registry).decode()


def documented() -> dict[str, Exposed]:
    """Return the reference's rows."""
    row = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", re.MULTILINE)
    found = row.findall(REFERENCE.read_text())
    assert len({name for name, _, _ in found}) == len(found), "a metric is described twice"
    return {name: Exposed(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in found}


def words_of(name: str) -> set[str]:
    """Return the quoted words of a metric's row."""
    (row,) = re.findall(rf"^\| `{name}` \| .*$", REFERENCE.read_text(), re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def snake(outcome: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", outcome.__name__).lower()


def test_every_metric_is_documented_as_it_is(scrape: str) -> None:
    assert documented() == exposed(scrape)


def test_rules_dashboard_and_docs_name_nothing_that_is_not_there(scrape: str) -> None:
    prose = {file.name: file.read_text() for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    assert {REFERENCE.name, RUNBOOK.name} <= prose.keys()
    assert unknown(scrape, prose) == {}


def test_what_is_made_up_would_be_found(scrape: str) -> None:
    prose = {
        "a.md": "`engage_relay_nonsense_total`; curl localhost:8080/metrics | grep '^engage_relay_(requests|nothing)'"
    }
    assert unknown(scrape, prose) == {
        "a.md": {"engage_relay_nonsense_total"},
        "a.md, grep": {"^engage_relay_nothing"},
    }


def test_the_buckets_that_the_objective_needs_exist(scrape: str) -> None:
    assert (
        'engage_relay_event_to_accepted_seconds_bucket{action="ConfirmOrder",connection="default",le="300.0"}' in scrape
    )


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        (
            "engage_relay_polls_answered_total",
            {snake(each) for of in (PollOutcome, DocumentOutcome) for each in get_args(of)},
        ),
        ("engage_relay_actions_answered_total", {snake(each) for each in get_args(SendOutcome)}),
        ("engage_relay_requests_total", set(get_args(FailureKind))),
        ("engage_relay_rebalances_total", set(get_args(Rebalance))),
    ],
)
def test_a_label_s_values_are_documented(metric: str, values: set[str]) -> None:
    assert values <= words_of(metric)


def test_every_state_and_every_reason_is_documented() -> None:
    states = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", REFERENCE.read_text().partition("## States")[2], re.MULTILINE)
    assert states[: len(State) - 1] == [state.name.lower() for state in State if state is not State.GONE]
    reasons = RUNBOOK.read_text().partition("## EngageRelayDeadLetters")[2].partition("\n## ")[0]
    assert set(Reason) <= set(re.findall(r"`(\w+)`", reasons))


def test_every_recorded_series_is_documented() -> None:
    text = REFERENCE.read_text()
    assert {
        re.sub(r"\d+[mhd]$", "", name) for name in recorded() if re.sub(r"\d+[mhd]$", "", name) not in text
    } == set()
