"""Prometheus looks at a relay that runs: its metrics are in order, every panel has an answer, and an outage is noticed.

Rule: a minute is a second. The project's rules and Prometheus' configuration are used as they are, but that every
duration in the rules is divided by 60, and that Prometheus scrapes and evaluates every second (the relay's own figures
are renewed no more often). The relay's waits between retries are the harness' short ones. The two likeliest incidents,
and what must not look like one, are in test_incidents.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.deploy.monitoring import REFERENCE, ROOT, RULES, RUNBOOK, exposed, queries, unknown
from tests.deploy.prometheus import Prometheus, promtool, running
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

CONFIG = ROOT / "deploy" / "compose" / "prometheus.yml"
FASTER = {"m": "s", "h": "m"}
# Series that a healthy relay does not have.
ONLY_IN_TROUBLE = ("engage_relay_refused_dead_letters", "engage_relay_topics_unfit")


@contextmanager
def relay_of(sandbox: Sandbox, engage: Engage, tmp_path: Path) -> Iterator[RelayProcess]:
    polling = {"max_interval": "300ms"}  # `initial` stays `auto`: a panel shows what was learnt
    config = written(tmp_path, configuration(sandbox, engage.url, polling=polling))
    with RelayProcess(tmp_path, config, "--from", "earliest", impatient=True) as relay:
        yield relay.wait_until_ready()


@contextmanager
def watched(relay: RelayProcess, directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus as compose.yaml does, on this relay, a minute being a second."""
    directory.mkdir()
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{relay.admin_port}"]}]
    config["rule_files"] = ["rules.yaml"]
    (directory / "rules.yaml").write_text(in_a_hurry(RULES.read_text()))
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with running(file) as prometheus:
        yield prometheus


@contextmanager
def monitored(
    sandbox: Sandbox, tmp_path: Path, *, stuck: float = 0.0
) -> Iterator[tuple[Engage, RelayProcess, Prometheus]]:
    """Run an Engage, a relay, and Prometheus that looks at it. `stuck`: which part of the orders never gets ready."""
    with (
        Engage(unknown_orders="create", stuck=stuck) as engage,
        relay_of(sandbox, engage, tmp_path) as relay,
        watched(relay, tmp_path / "prometheus") as prometheus,
    ):
        yield engage, relay, prometheus


def in_a_hurry(rules: str) -> str:
    """Divide every range, offset and `for` by 60, and each age."""
    faster = rules.replace("[1d]", "[24h]")
    faster = re.sub(r"(\[|for: |offset )(\d+)([mh])\b", lambda found: f"{found[1]}{found[2]}{FASTER[found[3]]}", faster)
    return re.sub(r"(_age_seconds\) > )(\d+)", lambda found: f"{found[1]}{int(found[2]) / 60:g}", faster)


def orders(sandbox: Sandbox, numbers: range) -> None:
    publish(sandbox, [(order_id(n), event(order_id(n))) for n in numbers])


def test_promtool_and_our_own_docs_take_what_a_running_relay_shows(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes(partitions=2)
    with Engage(unknown_orders="create") as engage, relay_of(sandbox, engage, tmp_path) as relay:
        orders(sandbox, range(5))
        until(lambda: len(engage.accepted) == 5, "the actions are accepted")
        until(
            lambda: relay.metric("consumer_lag_records") == 0 and relay.metric("partitions_owned") == 2, "all is read"
        )
        _, scrape = relay.get("/metrics")
    done = promtool("check", "metrics", stdin=scrape)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unknown(scrape, {file.name: mentions_of(file) for file in (REFERENCE, RUNBOOK)}) == {}
    assert (
        set(re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram)", REFERENCE.read_text(), re.M))
        == exposed(scrape).keys()
    )


def mentions_of(file: Path) -> str:
    """Return a text without what it greps for: this relay has met no 429."""
    return re.sub(r"grep .*", "", file.read_text())


def test_every_panel_has_an_answer_and_an_alert_fires_when_engage_goes_down(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(partitions=2)
    with monitored(sandbox, tmp_path) as (engage, _, prometheus):
        orders(sandbox, range(20))
        until(lambda: len(engage.accepted) == 20, "the actions are accepted")
        until(lambda: empty_panels(prometheus) == set(), "every panel has an answer")
        assert prometheus.firing() == {}

        engage.down()
        orders(sandbox, range(20, 40))
        unavailable = until(lambda: prometheus.firing().get("EngageRelayEngageUnavailable", {}), "the alert fires")

        assert unavailable["connection"] == "default"
        assert unavailable["severity"] == "critical"
        assert "EngageRelayAbsent" not in prometheus.firing()
        engage.up()
        until(lambda: len(engage.accepted) == 40, "nothing was lost")


def empty_panels(prometheus: Prometheus) -> set[str]:
    """Return the dashboard's queries that nothing answers."""
    every = dict.fromkeys(("$namespace", "$instance", "$connection", "$route"), ".*")
    chosen = {**every, "$job": "engage-relay", "$__rate_interval": "10s"}
    empty = set()
    for panel, target in queries():
        expression = target.expr
        for variable, value in chosen.items():
            expression = expression.replace(variable, value)
        if not any(each in expression for each in ONLY_IN_TROUBLE) and not prometheus.query(expression):
            empty.add(f"{panel.title}: {expression}")
    return empty
