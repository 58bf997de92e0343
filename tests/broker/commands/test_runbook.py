"""The runbook's commands, each run where it says: in a pod of the chart, as it was rendered."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from consumer.kafka.records.dead_letters import dead_letter_of_event
from consumer.kafka.records.source_events import SourceEvent
from schemas.dead_letter import Reason
from tests.deploy.helm import KUBERNETES, RELEASE, Manifest, chart
from tests.deploy.pod import Pod
from tests.docs.documents import ROOT, commands, lines
from tests.support.engage import API_KEY, Engage
from tests.support.kafka_tools import kafka_tools
from tests.support.relay_process import RelayProcess
from tests.support.sandbox import TopicFactory, relay_topics
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

EVENT = '{"type": "order.shipped", "orderId": "A-1"}\n'
ANY_PORT = {"ENGAGE_RELAY__ADMIN__LISTEN": "127.0.0.1:0"}  # 8080 of this machine may be another program's
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def ours() -> list[list[str]]:
    """Return the arguments of each `engage-relay` command in the runbook's code lines, once each."""
    found: list[list[str]] = []
    for words in commands(RUNBOOK):
        inside = words[words.index("--") + 1 :] if words[0] == "kubectl" and "--" in words else words
        if inside[0] == "engage-relay" and inside[1:] not in found:
            found.append(inside[1:])
    return found


def job_of_the_docs() -> Manifest:
    """Return the Job that operations.md has for what needs other rights, with the names of the release here."""
    text = (ROOT / "docs" / "operations.md").read_text()
    (snippet,) = re.findall(r"^```yaml\n# redrive.yaml\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    job: Manifest = yaml.safe_load(snippet.replace("RELEASE", RELEASE).replace("ACME", "acme-engage"))
    return job


@pytest.fixture
def source(topics: TopicFactory, admin: AdminClient) -> str:
    name = topics()
    relay_topics(admin, name, name)
    return name


@pytest.fixture
def pods(tmp_path: Path, bootstrap_servers: str, source: str) -> Iterator[Callable[[Manifest | None], Pod]]:
    """Return what makes a pod beside a source with twenty dead letters that Engage refused."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for number in range(20):
        event = SourceEvent(topic=source, partition=0, offset=number, timestamp_ms=None, key=b"A", value=EVENT.encode())
        dead_letter = dead_letter_of_event(event, Reason.REJECTED, "not there", 1_762_257_600.0, "shipped")
        producer.produce(
            f"{source}.engage.dead-letters", dead_letter.value, dead_letter.key, 0, headers=dead_letter.headers
        )
    assert producer.flush(30) == 0
    with Engage(valid_keys=frozenset({API_KEY})) as engage:
        rendered = chart(
            {
                "config": {
                    "kafka": {"bootstrap.servers": bootstrap_servers, "group.id": source},
                    "source": {"topics": [source]},
                    "engage": {"connections": {"default": {"base_url": engage.url}}},
                }
            }
        )
        secrets = {"acme-engage": {"api-key": API_KEY}}
        yield lambda spec: Pod(tmp_path, rendered, secrets, spec=spec)


@pytest.fixture
def pod(pods: Callable[[Manifest | None], Pod]) -> Pod:
    """Return the relay's pod there."""
    return pods(None)


def test_there_are_commands_to_run() -> None:
    assert ["check-config"] in ours()
    assert ["check-config", "--online"] in ours()
    assert len(ours()) > 8


@pytest.mark.long
def test_every_command_of_the_runbook_runs_in_a_pod_as_it_stands(pod: Pod, source: str, tmp_path: Path) -> None:
    with RelayProcess(tmp_path, pod.config, "--from", "latest", environ=ANY_PORT) as relay:
        relay.wait_until_ready()
        for arguments in ours():
            words = [source if each == "orders" else each for each in arguments]
            if words[0] == "status":
                words += ["--url", f"http://127.0.0.1:{relay.admin_port}"]
            done = pod.run(words, stdin=EVENT if "-" in words else "")

            assert done.returncode == 0, f"engage-relay {' '.join(arguments)}\n{done.stdout}{done.stderr}"
            assert API_KEY not in done.stdout + done.stderr


def kafkas_own() -> list[str]:
    """Return the lines of runbook and operations that run one of Kafka's own tools, once each."""
    text = RUNBOOK + (ROOT / "docs" / "operations.md").read_text()
    return list(dict.fromkeys(line for line in lines(text) if line.startswith("kafka-")))


@pytest.mark.long  # a Java virtual machine for each line
def test_every_line_with_a_tool_of_kafkas_runs_as_it_stands(
    pod: Pod, source: str, bootstrap_servers: str, tmp_path: Path
) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    group = yaml.safe_load(pod.config.read_text())["kafka"]["group.id"]
    with RelayProcess(tmp_path, pod.config, "--from", "latest", environ=ANY_PORT) as relay:
        relay.wait_until_ready()
        assert relay.stop() == 0  # the position is moved while nobody runs
    path = os.pathsep.join([str(kafka_tools(tmp_path / "bin")), os.environ["PATH"]])
    assert len(kafkas_own()) > 8
    for line in kafkas_own():
        own = re.sub(r"--group engage-relay\b", f"--group {group}", line.replace("BOOTSTRAP", bootstrap_servers))
        own = re.sub(r"\borders(?=$|[ .])", source, own).partition(" | ")[0]
        with subprocess.Popen(
            ["bash", "-c", own],
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:

            def ended(process: subprocess.Popen[str] = process) -> bool:
                producer.produce(source, EVENT, "A-1")  # a console consumer waits for what comes from now on
                producer.poll(0.2)
                return process.poll() is not None

            try:
                until(ended, line, PATIENCE_S * 2)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            assert process.stdout is not None
            said = process.stdout.read()
            assert (process.returncode, "Error:" in said) == (0, False), f"{line}\n{said}"


def test_the_job_for_what_needs_other_rights_redrives_with_the_releases_configuration(
    pods: Callable[[Manifest | None], Pod],
) -> None:
    job = job_of_the_docs()
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    done = pods(job["spec"]["template"]["spec"]).run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["redriven"] * 20
