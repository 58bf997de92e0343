"""docs/getting-started.md, "Relay against your own broker", done as it stands; addresses and names are our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Producer

from consumer.admin.status import Status
from tests.docs.documents import ROOT, commands, sections
from tests.support.relay_process import RelayProcess
from tests.support.sandbox import TopicFactory
from tests.support.waiting import PATIENCE_S, until

STEPS = commands(sections((ROOT / "docs" / "getting-started.md").read_text())["3. Relay against your own broker"])
PROGRAM = [sys.executable, "-m", "consumer.cli"]


def steps(*first: str) -> list[list[str]]:
    """Return the steps that begin with these words."""
    found = [words for words in STEPS if words[: len(first)] == [*first]]
    assert found, first
    return found


def exported() -> dict[str, str]:
    """Return what it tells to export."""
    return dict(words[1].split("=", 1) for words in steps("export"))


def called(environ: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    assert words[0] == "engage-relay"
    return subprocess.run(
        [*PROGRAM, *words[1:]],
        env={**os.environ, **environ},
        cwd=ROOT,
        timeout=PATIENCE_S,
        capture_output=True,
        text=True,
        check=False,
    )


def call(environ: Mapping[str, str], *words: str) -> str:
    """Run a command to its end; returns its output."""
    done = called(environ, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def simulator(*words: str) -> Iterator[str]:
    """Run the simulated Engage as the step says, on a free port; gives its URL."""
    with subprocess.Popen(
        [*PROGRAM, *words[1:], "--listen", "127.0.0.1:0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def test_from_nothing_to_an_accepted_action(bootstrap_servers: str, topics: TopicFactory, tmp_path: Path) -> None:
    (simulate,), (run,), (echo,) = steps("engage-relay", "simulate"), steps("engage-relay", "run"), steps("echo")
    source = topics(partitions=3)
    with simulator(*simulate) as url:
        environ = {
            **exported(),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "ENGAGE_BASE_URL": url,
            "ENGAGE_RELAY__SOURCE__TOPICS": source,
            "ENGAGE_RELAY__KAFKA__GROUP_ID": f"relay-{uuid4().hex[:8]}",
            "ENGAGE_RELAY__ADMIN__LISTEN": "127.0.0.1:0",
        }
        assert exported().keys() <= environ.keys()
        (create,), (check,) = steps("engage-relay", "topics"), steps("engage-relay", "check-config")
        assert f"created {source}.engage.delay with 3 partitions" in call(environ, *create)
        # A broker of seconds' age has no coordinators yet, and the check says so.
        until(lambda: called(environ, *check).returncode == 0, "brokers and Engage agree")

        with RelayProcess(tmp_path, None, *run[2:], environ=environ) as relay:
            relay.wait_until_owning(3)
            key, _, event = echo[1].partition("|")
            producer = Producer({"bootstrap.servers": bootstrap_servers})
            producer.produce(source, event, key)
            assert producer.flush(30) == 0
            until(lambda: relay.metric("event_to_accepted_seconds_count") == 1, "the action is accepted")

            (status,) = steps("engage-relay", "status")
            address = f"http://127.0.0.1:{relay.admin_port}"
            # Its figures are a second old, and the tombstone follows the acceptance.
            until(lambda: "pending 0 of 100,000" in call(environ, *status, "--url", address), "nothing is pending")
            said = Status.model_validate_json(relay.get("/status")[1])
            assert (said.recent.event_to_accepted.accepted, said.dead_letters.total) == (1, 0)
            for words in (*steps("engage-relay", "pending"), *steps("engage-relay", "dead-letters")):
                assert call(environ, *words, "--json") == ""
            assert relay.stop() == 0
