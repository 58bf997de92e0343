"""Who follows several documents on one machine meets no conflict: of ports, of topics, of consumer groups."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from consumer.commands.simulate import simulate
from consumer.config.settings import Settings
from tests.docs.documents import DOCUMENTS, EXAMPLES, ROOT, blocks, commands

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
CONFIGURATIONS = sorted((ROOT / "examples").glob("0[1-5]*/*.yaml"))
HERE = r"(?:localhost|127\.0\.0\.1)"

USES = {  # what a port of this machine is for, by how a document uses it
    r"bootstrap[.-]servers?:? ({here}:\d+)": "kafka",
    r"KAFKA_BOOTSTRAP_SERVERS=({here}:\d+)": "kafka",
    r"base_url: \"?http://({here}:\d+)": "engage",
    r"ENGAGE_BASE_URL=http://({here}:\d+)": "engage",
    r"simulate .*--listen ({here}:\d+)": "engage",
    r"http://({here}:\d+)/simulator/": "engage",
    r"({here}:\d+)/(?:metrics|status|healthz|readyz|orders)\b": "relay",
    r"--url http://({here}:\d+)": "relay",
    r"({here}:\d+)/alerts": "prometheus",
}


def texts() -> Iterator[tuple[Path, str]]:
    for file in (*DOCUMENTS, *EXAMPLES, *CONFIGURATIONS):
        yield file, file.read_text()


def ports() -> dict[str, set[str]]:
    """Return what each port of this machine is for, in all documents and in compose.yaml."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for _, text in texts():
        for pattern, use in USES.items():
            for address in re.findall(pattern.format(here=HERE), text):
                found[address.rpartition(":")[2]].add(use)
    for name, service in COMPOSE.items():
        for published in service.get("ports", []):
            found[published.split(":")[1]].add(name)
    found[inspect.signature(simulate).parameters["listen"].default.rpartition(":")[2]].add("engage")
    found[str(Settings.model_fields["admin"].get_default(call_default_factory=True).listen.port)].add("relay")
    return dict(found)


def configurations() -> Iterator[dict[str, Any]]:
    """Yield each relay.yaml of the documents and the examples, whole or in part."""
    for file, text in texts():
        whole = [text] if file.suffix == ".yaml" else [each.text for each in blocks(text) if each.file == "relay.yaml"]
        for each in whole:
            loaded: dict[str, Any] = yaml.safe_load(each) or {}
            config: dict[str, Any] = loaded.get("config", loaded)
            yield config


def test_no_port_is_two_things() -> None:
    assert {port: uses for port, uses in ports().items() if len(uses) > 1} == {}
    assert ports()["9092"] == {"kafka"}
    assert ports()["9900"] == {"engage"}
    assert ports()["8080"] == {"relay"}


def test_every_address_of_this_machine_is_one_whose_use_is_known() -> None:
    for file, text in texts():
        named = set(re.findall(rf"{HERE}:(\d+)", text))
        assert named <= ports().keys(), file


def test_a_group_reads_one_source_and_a_delay_topic_has_one_group() -> None:
    topics: defaultdict[str, set[str]] = defaultdict(set)
    groups: defaultdict[str, set[str]] = defaultdict(set)
    own = {"kafka": {"group.id": "engage-relay"}}  # the defaults, as compose.yaml and getting-started leave them
    for config in (own, *configurations()):
        if (group := config.get("kafka", {}).get("group.id")) is not None:  # else it shows another part of a file
            for topic in config.get("source", {}).get("topics", ["orders"]):
                topics[group].add(topic)
                delay = config.get("delay", {}).get("topic", "{source}.engage.delay")
                groups[delay.replace("{source}", topic)].add(group)
    assert len(topics) > 3
    assert {group: found for group, found in topics.items() if len(found) > 1} == {}
    assert {topic: found for topic, found in groups.items() if len(found) > 1} == {}


def test_a_producer_writes_to_the_topic_that_its_example_reads() -> None:
    for readme in EXAMPLES:
        written = {words[words.index("--topic") + 1] for words in commands(readme.read_text()) if "--topic" in words}
        read = {
            topic
            for file in readme.parent.glob("relay*.yaml")
            for topic in yaml.safe_load(file.read_text())["source"]["topics"]
        }
        assert written <= read, readme
