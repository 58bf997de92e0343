"""A newcomer's walk through getting-started, README and the chart's README: each line is given to a shell as it stands.

Rules:
 1. The lines are taken from the documents. What a reader is told to put in place of a word is in `READER`.
 2. The addresses are the documents' own where they can be: one walk at a time, and only where no other program has
    them. Else the reader puts own ones in their place, and names them to the commands whose defaults they are.
 3. No test has a container engine or a cluster. `docker compose run` is played by the tests' broker, at the port that
    compose.yaml publishes, and by the command that compose.yaml has; `helm install` renders, and the pods that end by
    themselves are run (the hooks', the test's).
"""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
import yaml

from consumer.commands.simulate import simulate
from consumer.config.settings import Settings
from tests.deploy.helm import KUBERNETES, Manifest, Rendered, helm
from tests.deploy.pod import Pod
from tests.deploy.test_compose import SERVICES
from tests.docs.documents import CHART_README, ROOT, blocks, lines, sections
from tests.docs.terminals import Terminals
from tests.support.broker import KafkaBroker, Seat, free_ports, new_cluster_id, started
from tests.support.downloads import alone
from tests.support.figures import Figures
from tests.support.kafka_tools import kafka_tools
from tests.support.waiting import until

GETTING_STARTED = sections((ROOT / "docs" / "getting-started.md").read_text())
README = (ROOT / "README.md").read_text()
FIVE_MINUTES_S = 300.0
SHORT_DEMO = "--orders 10"
SOON = {  # what a reader sees "after some seconds"
    "engage-relay order A-1001": "accepted",
    "engage-relay status --once": "pending 0 of 100,000",
}
NOT_NOW = ("make", "make test", "make chaos", "make soak", "make endurance", "make bench")  # minutes and hours


@dataclass(frozen=True, slots=True)
class Ports:
    """Where Kafka, the simulator and the relay listen on this machine."""

    kafka: int
    simulator: int
    relay: int


DOCUMENTED = Ports(kafka=9092, simulator=9900, relay=8080)


def reader(directory: Path, ports: Ports) -> dict[str, str]:
    """Return the documents' words in whose place a reader puts own ones, in this sequence."""
    key = directory / "engage-api-key"
    key.write_text("anything\n")
    words = {
        "https://acme.voyado.com": "http://127.0.0.1:9900",  # "You have no Engage? `engage-relay simulate ...`"
        "ENGAGE_API_KEY=...": "ENGAGE_API_KEY=anything",
        "/run/secrets/engage-api-key": str(key),
        "broker-1:9092": "localhost:9092",
        "kafka:9092": "localhost:9092",
    }
    return words if ports == DOCUMENTED else words | elsewhere(ports)


def elsewhere(ports: Ports) -> dict[str, str]:
    """Return what somebody writes who has to use other ports: in place of an address, beside what has it by default."""
    return {
        "localhost:9092": f"localhost:{ports.kafka}",
        "127.0.0.1:9900": f"127.0.0.1:{ports.simulator}",
        "localhost:8080": f"localhost:{ports.relay}",
        "engage-relay simulate": f"engage-relay simulate --listen 127.0.0.1:{ports.simulator}",
        "engage-relay status": f"engage-relay status --url http://127.0.0.1:{ports.relay}",
    }


def own_ports() -> Ports:
    """Return ports that no program has."""
    return Ports(*free_ports(("kafka", "simulator", "relay")).values())


@contextmanager
def documented_ports() -> Iterator[Ports]:
    """Have the documents' own ports for this walk alone; others where another program has one of them."""
    with alone("documents-addresses"):
        yield own_ports() if any(map(taken, astuple(DOCUMENTED))) else DOCUMENTED


def taken(port: int) -> bool:
    """Tell whether a program listens there."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@contextmanager
def broker_at(port: int) -> Iterator[KafkaBroker]:
    """Return the broker of compose.yaml, which is not started yet."""
    ports = {"PLAINTEXT": port, **free_ports(("CONTROLLER",))}
    made = KafkaBroker(seat=Seat(1, ports, new_cluster_id(), f"1@127.0.0.1:{ports['CONTROLLER']}"))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def terminals_at(ports: Ports, directory: Path, scratch: Path, path: list[Path]) -> Iterator[Terminals]:
    """Return terminals in a directory, whose relay listens where it shall."""
    words = reader(scratch, ports)
    with Terminals(directory, scratch, path, words, relay_port=ports.relay) as terminals:
        if ports != DOCUMENTED:
            terminals.enter(f"export ENGAGE_RELAY__ADMIN__LISTEN=127.0.0.1:{ports.relay}")
        yield terminals


class Newcomer:
    """Who reads, and enters what is written."""

    def __init__(self, terminals: Terminals, broker: KafkaBroker, checkout: Path, scratch: Path) -> None:
        self._terminals, self._broker, self._checkout, self._scratch = terminals, broker, checkout, scratch
        self._secrets: dict[str, dict[str, str]] = {}
        self._release: Rendered | None = None
        self._installed = False

    def read(self, text: str) -> None:
        """Write the files that a text shows, and enter its lines, one after the other."""
        for block in blocks(text):
            if name := "events.jsonl" if block.language == "jsonl" else block.file:
                (self._checkout / name).write_text(self._terminals.replaced(block.text))
        for line in lines(text):
            if line.partition("#")[0].strip() not in NOT_NOW:
                self._enter(line)

    def _enter(self, line: str) -> None:
        words = shlex.split(line, comments=True)
        match words:
            case ["docker", "compose", "run", "--rm", service]:
                self._compose(service)
            case ["make", "demo"]:
                # In this checkout, whose .venv is there: making another one is minutes, and `make check` needs it, too.
                assert "It adds up" in self._terminals.enter(f"cd {ROOT} && {line}", ARGS=SHORT_DEMO)
            case ["engage-relay", *_] if line in SOON:
                until(lambda: SOON[line] in self._terminals.enter(line), f"{line}: {SOON[line]}")
            case ["engage-relay", "route", *_]:  # "ends with exit code 1 if an event would become a dead letter"
                self._terminals.enter(line, codes=(0, 1))
            case ["pip", "install", "."]:
                if not self._installed:  # README tells it, too
                    self._terminals.enter(line)
                self._installed = True
            case ["kubectl", "create", "secret", "generic", name, literal]:
                key, _, value = literal.removeprefix("--from-literal=").partition("=")
                self._secrets[name] = {key: self._terminals.enter(f'echo -n "{value}"')}
            case ["helm", "install", name, chart, "-f", values]:
                self._install(name, self._checkout / chart, self._checkout / values)
            case ["helm", "test", *_]:
                self._run_pods("test")
            case _:
                self._terminals.enter(line)

    def _compose(self, name: str) -> None:
        """Start what the service depends on, and run its command: its script is Kafka's, its address the inner one."""
        service = SERVICES[name]
        assert list(service.depends_on) == ["kafka"]
        started(self._broker)
        script, *arguments = service.command
        self._terminals.enter(shlex.join([Path(script).name, *arguments]))

    def _install(self, name: str, chart: Path, values: Path) -> None:
        done = helm("template", name, str(chart), "--values", str(values), "--kube-version", KUBERNETES)
        assert done.returncode == 0, done.stderr
        self._release = Rendered(tuple(each for each in yaml.safe_load_all(done.stdout) if each is not None))
        self._run_pods("pre-install")

    def _run_pods(self, hook: str) -> None:
        """Run the pods of a hook, as Helm does, and see that they end well."""
        assert self._release is not None, "helm install comes first"
        pods = [each for each in self._release.manifests if each["kind"] in ("Pod", "Job") and hook in hooks(each)]
        assert pods, hook
        for manifest in pods:
            spec = manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]
            root = self._scratch / manifest["metadata"]["name"]
            done = Pod(root, self._release, self._secrets, spec=spec).run()
            assert done.returncode == 0, f"{hook}\n{done.stdout}{done.stderr}"


def hooks(manifest: Manifest) -> list[str]:
    """Return when Helm creates an object, where that is not with the release."""
    found: str = manifest["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    return found.split(",")


def test_the_ports_of_the_documents_are_those_that_programs_have_by_default() -> None:
    published, _ = SERVICES["kafka"].ports[0].split(":")[1:]
    simulator = inspect.signature(simulate).parameters["listen"].default
    relay = Settings.model_fields["admin"].get_default(call_default_factory=True).listen
    ports = (published, simulator.rpartition(":")[2], str(relay).rpartition(":")[2])
    assert Ports(*map(int, ports)) == DOCUMENTED


@pytest.mark.long
@pytest.mark.timeout(600)  # half a minute, where a machine does nothing else; Java starts several times
def test_getting_started_leads_to_an_accepted_action_wherever_all_of_it_listens(tmp_path: Path) -> None:
    path = [Path(sys.executable).parent, kafka_tools(tmp_path / "bin")]
    ports = own_ports()
    with (
        broker_at(ports.kafka) as broker,
        terminals_at(ports, tmp_path, tmp_path, path) as terminals,
    ):
        newcomer = Newcomer(terminals, broker, tmp_path, tmp_path)
        newcomer.read(GETTING_STARTED["3. Relay against your own broker"])
        terminals.stop("engage-relay run")


@pytest.mark.long
def test_from_a_fresh_checkout_all_documents_can_be_followed_one_after_the_other(
    tmp_path: Path, figures: Figures
) -> None:
    checkout = copied_into(tmp_path / "engage-relay")
    venv.create(tmp_path / "venv", with_pip=True)
    path = [tmp_path / "venv" / "bin", kafka_tools(tmp_path / "bin")]
    with (
        documented_ports() as ports,
        broker_at(ports.kafka) as broker,
        terminals_at(ports, checkout, tmp_path, path) as terminals,
    ):
        newcomer = Newcomer(terminals, broker, checkout, tmp_path)
        newcomer.read(GETTING_STARTED["1. Watch it"])  # the way without a broker and without a container
        newcomer.read(GETTING_STARTED["2. Install it"])
        began = time.monotonic()  # how long `pip install` takes is the network's
        newcomer.read(GETTING_STARTED["3. Relay against your own broker"])
        took_s = time.monotonic() - began
        figures(seconds_from_the_installed_relay_to_an_accepted_action=round(took_s))
        busy = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)  # with something else: that says nothing of us
        assert busy or took_s < FIVE_MINUTES_S
        newcomer.read(GETTING_STARTED["4. Your own events"])
        newcomer.read(GETTING_STARTED["5. Use the real Engage"])

        terminals.enter("kafka-topics.sh --bootstrap-server localhost:9092 --create --topic shop-orders")  # README's
        newcomer.read(README.partition("### On Kubernetes")[0])
        newcomer.read(CHART_README.read_text())
        terminals.stop("engage-relay run")


def copied_into(directory: Path) -> Path:
    """Copy what Git has of this checkout, changes that are not committed yet as well."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    return directory
