"""compose.yaml, without a container engine: its commands, variables, files and addresses are real, and fit together."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from consumer.commands.routing.exports import Defaults
from consumer.commands.routing.route import judged
from consumer.commands.simulate import simulate
from consumer.config.environment import PREFIX, SHORT
from consumer.config.loading import load
from consumer.config.settings import Settings
from tests.deploy.commands import accept
from tests.deploy.monitoring import ROOT
from tests.deploy.prometheus import promtool
from tests.support import broker

COMPOSE = ROOT / "compose.yaml"


class Service(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str
    build: str | None = None
    command: list[str] = []
    environment: dict[str, str] = {}
    volumes: list[str] = []
    ports: list[str] = []
    depends_on: dict[str, dict[str, str]] | list[str] = []
    healthcheck: dict[str, object] | None = None
    restart: str = "no"
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    stop_grace_period: str = ""

    @property
    def mounts(self) -> dict[str, Path]:
        """What is mounted: the path inside, the file outside. All are read-only."""
        split = [volume.split(":") for volume in self.volumes]
        assert all(mode == "ro" for _, _, mode in split)
        return {inside: ROOT / outside for outside, inside, _ in split}

    def inside(self, path: str) -> Path:
        """Return the file that the service finds at this path."""
        for mounted, outside in self.mounts.items():
            if path == mounted or path.startswith(mounted + "/"):
                return outside / path[len(mounted) :].lstrip("/")
        raise AssertionError(f"nothing is mounted at {path}")


SERVICES = {
    name: Service.model_validate(service) for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items()
}
OURS = {name: service for name, service in SERVICES.items() if service.image == "engage-relay"}


def relay_settings() -> Settings:
    return load(None, SERVICES["relay"].environment)


def test_it_starts_all_that_there_is_to_see() -> None:
    assert SERVICES.keys() == {"kafka", "source-topic", "simulator", "relay", "prometheus", "grafana"}


def test_every_foreign_image_is_pinned() -> None:
    for service in SERVICES.values():
        if service.build is None:
            _, _, tag = service.image.partition(":")
            assert tag[:1].isdigit() or tag[:1] == "v", service.image


def test_kafka_is_the_version_that_is_tested() -> None:
    assert {SERVICES[name].image for name in ("kafka", "source-topic")} == {f"apache/kafka:{broker.DEFAULT_VERSION}"}


@pytest.mark.parametrize("name", OURS)
def test_the_command_line_takes_each_command_of_ours(name: str) -> None:
    accept(OURS[name].command)


@pytest.mark.parametrize("name", OURS)
def test_ours_run_as_restricted_as_in_kubernetes(name: str) -> None:
    service = OURS[name]
    assert service.read_only
    assert service.cap_drop == ["ALL"]
    assert service.security_opt == ["no-new-privileges:true"]


def test_the_relay_s_variables_are_a_configuration() -> None:
    meaningless = {name for name in SERVICES["relay"].environment if name not in SHORT and not name.startswith(PREFIX)}
    assert meaningless == set()
    assert relay_settings().engage.connections["default"].allow_insecure


def test_the_relay_has_longer_to_stop_than_it_takes() -> None:
    assert SERVICES["relay"].stop_grace_period == "45s"  # ARCHITECTURE.md: a stop takes 40 s at the most


def test_kafka_advertises_what_the_others_connect_to() -> None:
    environment = SERVICES["kafka"].environment
    listeners = dict(each.split("://") for each in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(each.split("://") for each in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert advertised["INSIDE"].endswith(listeners["INSIDE"])
    assert advertised["INSIDE"] == relay_settings().kafka["bootstrap.servers"]
    assert f"--bootstrap-server={advertised['INSIDE']}" in SERVICES["source-topic"].command
    outside = advertised["OUTSIDE"].removeprefix("localhost:")
    inside = listeners["OUTSIDE"].removeprefix(":")
    assert SERVICES["kafka"].ports == [f"127.0.0.1:{outside}:{inside}"]
    protocols = dict(each.split(":") for each in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert protocols.keys() == listeners.keys()


def test_kafka_s_properties_are_ones_that_a_broker_knows() -> None:
    named = {name.removeprefix("KAFKA_").replace("_", ".").lower() for name in SERVICES["kafka"].environment}
    written_by_the_tests_broker = {"listeners", "advertised.listeners", "controller.quorum.voters"}
    assert named - broker.PROPERTIES.keys() - written_by_the_tests_broker == {"inter.broker.listener.name"}


def test_the_topic_that_is_made_is_the_relay_s_source() -> None:
    assert [f"--topic={topic}" for topic in relay_settings().source.topics] == [
        argument for argument in SERVICES["source-topic"].command if argument.startswith("--topic")
    ]


def test_the_relay_finds_the_simulator() -> None:
    command = SERVICES["simulator"].command
    port = command[command.index("--listen") + 1].rpartition(":")[2]
    assert relay_settings().engage.connections["default"].base_url == f"http://simulator:{port}"


def test_the_relay_starts_when_what_it_needs_is_there() -> None:
    assert SERVICES["relay"].depends_on == {
        "source-topic": {"condition": "service_completed_successfully"},
        "simulator": {"condition": "service_started"},
    }
    assert SERVICES["source-topic"].depends_on == {"kafka": {"condition": "service_healthy"}}
    assert SERVICES["kafka"].healthcheck is not None


def test_every_mounted_file_exists() -> None:
    for service in SERVICES.values():
        assert [outside for outside in service.mounts.values() if not outside.exists()] == []


def test_ports_are_open_on_this_machine_only() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.ports)


def test_prometheus_scrapes_the_relay_with_the_project_s_rules(tmp_path: Path) -> None:
    prometheus = SERVICES["prometheus"]
    config = yaml.safe_load(prometheus.inside("/etc/prometheus/prometheus.yml").read_text())
    assert [prometheus.inside(path) for path in config["rule_files"]] == [
        ROOT / "helm" / "engage-relay" / "files" / "rules.yaml"
    ]
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"relay:{relay_settings().admin.listen.port}"]}]
    config["rule_files"] = [str(prometheus.inside(path)) for path in config["rule_files"]]
    outside = tmp_path / "prometheus.yml"
    outside.write_text(yaml.safe_dump(config))
    done = promtool("check", "config", outside)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_given_the_dashboard_and_prometheus() -> None:
    grafana = SERVICES["grafana"]
    provisioning = "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load(grafana.inside(f"{provisioning}/dashboards/engage-relay.yaml").read_text())[
        "providers"
    ]
    dashboard = grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(dashboard).parent == Path(provider["options"]["path"])
    assert grafana.inside(dashboard) == ROOT / "helm" / "engage-relay" / "files" / "dashboard.json"
    (source,) = yaml.safe_load(grafana.inside(f"{provisioning}/datasources/prometheus.yaml").read_text())["datasources"]
    port = SERVICES["prometheus"].ports[0].rpartition(":")[2]
    assert source["url"] == f"http://prometheus:{port}"
    assert source["type"] == "prometheus"
    scrapes = yaml.safe_load(SERVICES["prometheus"].inside("/etc/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]


def test_the_example_at_its_head_is_an_event_that_the_relay_sends() -> None:
    (key, value), *_ = re.findall(r"echo '([^|]+)\|(.+)'", COMPOSE.read_text())
    (verdict,) = judged([Defaults("orders").record(1, value.encode())], relay_settings())
    assert verdict.action is not None
    assert verdict.action.order_id == key


# Beside it: a newcomer, who runs the relay and the simulator on the machine itself


def test_the_broker_alone_is_where_getting_started_looks_for_it() -> None:
    text = (ROOT / "docs" / "getting-started.md").read_text()
    (address,) = re.findall(r"export KAFKA_BOOTSTRAP_SERVERS=(\S+)", text)
    kafka = SERVICES["kafka"]

    assert "docker compose run --rm source-topic" in text
    assert list(SERVICES["source-topic"].depends_on) == ["kafka"]
    assert f"OUTSIDE://{address}" in kafka.environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert kafka.depends_on == []
    assert [each.split(":")[1] for each in kafka.ports] == [address.rpartition(":")[2]]


def test_the_simulator_listens_where_nothing_of_compose_does() -> None:
    listen = inspect.signature(simulate).parameters["listen"].default
    taken = {each.split(":")[1] for service in SERVICES.values() for each in service.ports}

    assert listen.rpartition(":")[2] not in taken
    assert f"export ENGAGE_BASE_URL=http://{listen}" in (ROOT / "docs" / "getting-started.md").read_text()
