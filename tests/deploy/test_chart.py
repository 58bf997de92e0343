"""The chart as a whole: it lints, every object fits every Kubernetes, the relay takes its configuration."""

from __future__ import annotations

import re
import tomllib
from copy import deepcopy
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from consumer.commands.cli import app
from consumer.config.loading import load
from consumer.kafka import clients
from tests.deploy.helm import (
    CHART,
    NAMESPACE,
    RELEASE,
    VALUE_SETS,
    chart,
    each_value_set,
    helm,
    merged,
    value_set,
)
from tests.deploy.pod import AnySecret, Pod
from tools import chart_values

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

KUBERNETES = [f"1.{minor}" for minor in range(27, 38)]
# Kinds of the operators, which Kubernetes' schemas do not hold.
CUSTOM = {
    "PodMonitor": "monitoring.coreos.com/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "ScaledObject": "keda.sh/v1alpha1",
    "TriggerAuthentication": "keda.sh/v1alpha1",
}


# Value sets


@each_value_set
def test_a_value_set_lints_strictly(values: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_object_of_every_value_set_fits_kubernetes(kubernetes: str) -> None:
    for values in VALUE_SETS:
        for each in value_set(values).manifests:
            if each["kind"] in CUSTOM:
                assert each["apiVersion"] == CUSTOM[each["kind"]]
            else:
                kubernetes_validate.validate(each, kubernetes, strict=True)


def test_an_object_with_a_misspelt_field_would_not_fit() -> None:
    broken = deepcopy(chart().one("Deployment"))
    broken["spec"]["template"]["spec"]["enableServiceLink"] = broken["spec"]["template"]["spec"]["enableServiceLinks"]

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[0], strict=True)


def test_an_older_kubernetes_is_refused() -> None:
    assert chart(kubernetes=KUBERNETES[0]) == chart()
    with pytest.raises(AssertionError, match="incompatible with Kubernetes"):
        chart(kubernetes="1.26")


@each_value_set
def test_the_names_of_all_objects_differ(values: Path) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in value_set(values).manifests]

    assert len(names) == len(set(names))


@each_value_set
def test_every_object_of_the_chart_is_in_the_namespace_and_labelled(values: Path) -> None:
    for each in value_set(values).manifests:
        if each["metadata"]["name"].startswith(f"{RELEASE}-engage-relay"):
            assert each["metadata"]["namespace"] == NAMESPACE
            labels = each["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == RELEASE
            assert labels["app.kubernetes.io/managed-by"] == "Helm"


# The relay's side


@each_value_set
def test_the_relay_accepts_each_configuration_file(values: Path, tmp_path: Path) -> None:
    rendered = value_set(values)
    jobs = [each["spec"]["template"]["spec"] for each in rendered.all("Job")]
    assert len(jobs) >= 1
    for number, spec in enumerate((rendered.pod["spec"], *jobs)):
        done = Pod(tmp_path / str(number), rendered, AnySecret(), spec=spec, injected="/vault/secrets/engage").run(
            ["check-config"]
        )
        assert done.returncode == 0, done.stdout + done.stderr


@each_value_set
def test_every_command_of_a_pod_is_one_that_the_relay_knows(values: Path) -> None:
    rendered = value_set(values)
    pods = [rendered.pod["spec"], *(each["spec"] for each in rendered.all("Pod"))]
    pods += [each["spec"]["template"]["spec"] for each in rendered.all("Job")]
    ours = [each for pod in pods for each in pod["containers"] if each.get("command") == ["engage-relay"]]
    assert len(ours) == len(pods)
    for each in ours:
        done = CliRunner().invoke(app, [*each["args"], "--help"])  # parsed, not run
        assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["run", "--no-such-option", "--help"]).exit_code == 2


def test_routes_keep_the_order_in_which_they_are_written() -> None:
    routes = [{"name": name, "action": "ConfirmOrder", "when": f"a == '{name}'"} for name in ("z", "m", "a")]
    rendered = chart({"config": {"routes": [*routes, {"name": "shipped"}]}})

    assert list(rendered.config["routes"]) == ["z", "m", "a", "shipped"]
    assert rendered.config["routes"]["z"] == {"action": "ConfirmOrder", "when": "a == 'z'"}
    assert rendered.config["routes"]["shipped"] is None


def test_the_relay_tries_the_routes_in_that_order(tmp_path: Path) -> None:
    routes = [{"name": name, "action": "ConfirmOrder"} for name in ("z", "a")]
    file = tmp_path / "relay.yaml"
    file.write_text(chart({"config": {"routes": [*routes, {"name": "shipped"}]}}).relay_yaml)

    effective = list(load(file, {}).effective_routes)

    assert effective[:2] == ["z", "a"]
    assert "shipped" not in effective


# But for what YAML takes as the end of a line or as no character, and Helm for the end of a file.
TRICKY = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Cs", "Zl", "Zp", "Zs"), include_characters=" "),
    min_size=1,
)


@given(when=TRICKY.filter(lambda text: text not in ("=", "<<")), name=TRICKY)  # PyYAML reads neither as text
@settings(max_examples=15, deadline=None)
def test_any_text_of_a_value_reaches_the_configuration_as_it_is(when: str, name: str) -> None:
    rendered = chart({"config": {"routes": [{"name": name, "action": "Custom", "when": when}]}})

    assert rendered.config["routes"] == {name: {"action": "Custom", "when": when}}


def test_large_numbers_stay_whole_numbers() -> None:
    values = {"config": {"kafka": {"message.max.bytes": 1_000_000_000}, "limits": {"pending": 2_000_000}}}

    assert "message.max.bytes: 1000000000\n" in chart(values).relay_yaml
    assert "pending: 2000000\n" in chart(values).relay_yaml


def test_the_relay_reads_kafkas_secrets_from_the_files_that_the_chart_mounts(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of-the-secret\n")

    client = clients.base({"bootstrap.servers": "kafka:9092", "sasl.password.file": str(tmp_path / "password")})

    assert client["sasl.password"] == "of-the-secret"
    assert "sasl.password.file" not in client


# Papers


def test_what_is_generated_is_current() -> None:
    assert chart_values.drifted() == [], "python -m tools.chart_values"


def test_every_value_is_described() -> None:
    values = chart_values.values((CHART / "values.yaml").read_text())

    assert [each.key for each in values if not each.description] == []


def test_the_chart_is_of_the_relays_version() -> None:
    meta = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]

    assert meta["appVersion"] == project["version"]
    assert meta["description"] == project["description"]
    images = yaml.safe_load(meta["annotations"]["artifacthub.io/images"])
    assert [each["image"] for each in images] == [f"engage-relay:{project['version']}"]
    for name, text in meta["annotations"].items():
        assert isinstance(text, str), name
        yaml.safe_load(text)


def test_the_readmes_smallest_values_install() -> None:
    (example,) = re.findall(r"```yaml\n# values\.yaml: the smallest\n(.*?)```", (CHART / "README.md").read_text(), re.S)

    assert chart(yaml.safe_load(example)).one("Deployment")


@pytest.mark.parametrize("workload", ["Deployment", "StatefulSet"])
def test_the_notes_end_with_the_next_commands(workload: str, tmp_path: Path) -> None:
    """Helm shows notes only with a cluster: here they are rendered as an object of a copy of the chart."""
    copy = tmp_path / "engage-relay"
    copy.mkdir()
    for name in ("Chart.yaml", "values.yaml", "values.schema.json", "templates", "files"):
        (copy / name).symlink_to(CHART / name)
    (copy / "templates").unlink()
    (copy / "templates").mkdir()
    for file in (CHART / "templates").glob("_*.tpl"):
        (copy / "templates" / file.name).write_text(file.read_text())
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    (copy / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}' + notes + '{{ end }}kind: Notes\ntext: |\n  {{- include "notes" . | nindent 2 }}\n'
    )
    values = merged({"workload": workload}, yaml.safe_load((CHART / "ci" / "minimal-values.yaml").read_text()))

    done = helm("template", RELEASE, str(copy), "--namespace", NAMESPACE, "--values", "-", stdin=yaml.safe_dump(values))

    assert done.returncode == 0, done.stderr
    said = yaml.safe_load(done.stdout)["text"]
    commands = [line.strip() for line in said.splitlines() if re.match(r"  (kubectl|helm) ", line)]
    target = f"{workload.lower()}/{RELEASE}-engage-relay"
    in_a_pod = f"kubectl --namespace {NAMESPACE} exec {target} -- "
    every = f"{in_a_pod}engage-relay status --all --url http://{RELEASE}-engage-relay:8080"
    assert commands == [
        f"kubectl --namespace {NAMESPACE} rollout status {target}",
        f"helm --namespace {NAMESPACE} test {RELEASE} --logs",
        f"kubectl --namespace {NAMESPACE} port-forward {target} 8080:8080",
        *([every] if workload == "StatefulSet" else []),  # which has the Service whose name stands for all pods
    ]
