"""The first three examples, run as their READMEs say. Kafka is librdkafka's mock cluster."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from consumer.demo.stage import mock_cluster
from consumer.kafka.topics.topics import RelayTopics
from tests.examples.readme import Example, example, output_of
from tests.examples.running import ACCOUNT, Row, accepted, copied, publish, simulator, url_in_readme
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until


def foretold(copy: Example) -> tuple[dict[str, list[Row]], list[str]]:
    """Return what the dry run says: the actions of each connection, and the dead letters' reasons."""
    said = output_of("engage-relay route --json --config relay.yaml events.jsonl", copy.folder)
    actions: defaultdict[str, list[Row]] = defaultdict(list)
    reasons = []
    for row in map(json.loads, said.splitlines()):
        if row["action"] is not None:
            actions[row["action"]["connection"]].append(row["action"])
        elif row["reason"] is not None:
            reasons.append(row["reason"])
    return actions, reasons


def by_order(actions: Iterable[Row], order_id: str) -> dict[object, list[tuple[object, ...]]]:
    """Group actions by their order, each order's in their sequence."""
    grouped: defaultdict[object, list[tuple[object, ...]]] = defaultdict(list)
    for action in actions:
        grouped[action[order_id]].append((action["action"], action["language"], action["data"]))
    return dict(grouped)


OTHERS = [pytest.param(each, marks=pytest.mark.long) for each in ("02-own-routes", "03-many-tenants")]


@pytest.mark.parametrize("name", ["01-canonical", *OTHERS])
def test_engage_accepts_what_the_dry_run_foretells(name: str, tmp_path: Path) -> None:
    original = example(name)
    (run,), simulators = original.steps("engage-relay", "run"), original.steps("engage-relay", "simulate")
    configured = yaml.safe_load((original.folder / "relay.yaml").read_text())
    (topic,), group = configured["source"]["topics"], configured["kafka"]["group.id"]
    with ExitStack() as stack:
        topics = RelayTopics(topic, f"{topic}.engage.delay", f"{topic}.engage.dead-letters", f"{topic}.engage.outcomes")
        brokers = stack.enter_context(mock_cluster(topics, f"{group}.engage.control"))
        urls = {url_in_readme(words): stack.enter_context(simulator(words)) for words in simulators}
        copy = copied(original, tmp_path, brokers, urls)
        config = copy.folder / "relay.yaml"
        assert run[2:4] == ["--config", config.name]

        with RelayProcess(tmp_path, config, *run[4:]) as relay:
            relay.wait_until_ready()
            publish(copy, brokers, topic)
            actions, reasons = foretold(copy)
            until(lambda: relay.metric("dead_letters_total") == len(reasons), "the dead letters are written")
            count = sum(map(len, actions.values()))
            until(lambda: sum(len(accepted(url)) for url in urls.values()) == count, "the actions are accepted")

            for connection, settings in yaml.safe_load(config.read_text())["engage"]["connections"].items():
                expected = by_order(actions[connection], "order_id")
                assert by_order(accepted(settings["base_url"]), "orderId") == expected
            listed = output_of("engage-relay dead-letters list --config relay.yaml --json", copy.folder)
            assert [json.loads(line)["reason"] for line in listed.splitlines()] == reasons
            assert relay.stop() == 0


@pytest.mark.parametrize("name", ["01-canonical", "03-many-tenants"])
def test_the_accounts_that_a_readme_asks_for_are_its_own_stand_ins(name: str) -> None:
    simulators = example(name).steps("engage-relay", "simulate")
    asked = [words[-1] for words in example(name).steps("curl")]
    assert asked == [url_in_readme(words) + ACCOUNT for words in simulators]
