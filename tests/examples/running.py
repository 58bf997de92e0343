"""What running an example takes: the Engage simulator, events on a topic, files with our addresses.

What differs from the README are addresses and names, and how quickly the simulator works.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from confluent_kafka import Producer

from tests.docs.documents import ROOT
from tests.examples.readme import Example, output_of

ACCOUNT = "/simulator/account"
Row = Mapping[str, object]


@contextmanager
def simulator(words: Sequence[str]) -> Iterator[str]:
    """Run the Engage simulator as the README says, on a free port; gives its URL."""
    command = [sys.executable, "-m", "consumer.cli", *words[1:], "--processing", "fixed:100ms", "--listen"]
    with subprocess.Popen([*command, "127.0.0.1:0"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def url_in_readme(words: Sequence[str]) -> str:
    """Return where a simulator would be, were it started as the README says."""
    return "http://" + (words[words.index("--listen") + 1] if "--listen" in words else "127.0.0.1:9900")


def accepted(url: str) -> list[Row]:
    """Return what a simulator accepted, in order."""
    listed: list[Row] = httpx.get(url + ACCOUNT, trust_env=False).json()["actions"]
    return listed


def copied(example: Example, into: Path, brokers: str, urls: Mapping[str, str], topic: str | None = None) -> Example:
    """Copy an example's folder, with these brokers and Engages in its configuration; `topic`: its source topic."""
    copy = Example(shutil.copytree(example.folder, into / example.folder.name))
    for file in copy.folder.glob("*.yaml"):
        text = file.read_text().replace("localhost:9092", brokers)
        text = text.replace("api_key_file: ", f"api_key_file: {copy.folder}/")
        text = re.sub(r"http://[\d.:]+\d", lambda url: urls[url[0]], text)
        if topic is not None:
            text = re.sub(r"(?<=topics: )\[[\w-]+\]", f"[{topic}]", text)
        file.write_text(text + "admin:\n  listen: 127.0.0.1:0\n")
    return copy


def publish(example: Example, brokers: str, topic: str) -> None:
    """Put on the topic what the README's `sed` makes of the events: a key, a bar, the event."""
    (sed,) = example.steps("sed")
    program, file = sed[-2:]
    producer = Producer({"bootstrap.servers": brokers})
    for line in output_of(f"sed -E '{program}' {file}", example.folder).splitlines():
        key, bar, event = line.partition("|")
        assert bar
        producer.produce(topic, event, key)
    assert producer.flush(30) == 0
