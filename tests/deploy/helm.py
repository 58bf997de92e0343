"""Helm itself, and what it makes of the chart.

    chart({"replicas": 2}).one("Deployment")

Helm comes from the Go module proxy once (a build of about a minute, see fetched.py); without Go, a `helm` on the PATH
is taken.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.downloads import UnavailableError, kept, last_line, needed, said

VERSION = "3.22.0"
KUBERNETES = "1.37"  # what it takes a cluster to be, where a test says nothing else
BUILD_TIMEOUT_S = 600.0  # ~75 s on two busy cores
CALL_TIMEOUT_S = 60.0  # ~0.1 s

CHART = Path(__file__).parents[2] / "helm" / "engage-relay"
VALUE_SETS = sorted((CHART / "ci").glob("*-values.yaml"))
each_value_set = pytest.mark.parametrize(
    "values", VALUE_SETS, ids=lambda file: str(file.name).removesuffix("-values.yaml")
)
RELEASE, NAMESPACE = "rel", "shop"

Values = Mapping[str, object]
Manifest = dict[str, Any]

MINIMAL: Values = {
    "config": {
        "kafka": {"bootstrap.servers": "kafka:9092"},
        "engage": {"connections": {"default": {"base_url": "https://acme.voyado.com"}}},
    },
    "secrets": {"engage": {"default": {"existingSecret": "acme-engage"}}},
}
"""The least that installs; what a test says is merged into it."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a release consists of."""

    manifests: tuple[Manifest, ...]

    def all(self, kind: str) -> list[Manifest]:
        """Return the objects of a kind."""
        return [each for each in self.manifests if each["kind"] == kind]

    def one(self, kind: str, name: str = f"{RELEASE}-engage-relay") -> Manifest:
        """Return the object of that kind and name."""
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        return found

    @property
    def pod(self) -> Manifest:
        """The pod template of the workload."""
        (workload,) = [each for each in self.manifests if each["kind"] in ("Deployment", "StatefulSet")]
        template: Manifest = workload["spec"]["template"]
        return template

    @property
    def container(self) -> Manifest:
        """The relay's own container."""
        (found,) = [each for each in self.pod["spec"]["containers"] if each["name"] == "relay"]
        return dict(found)

    @property
    def relay_yaml(self) -> str:
        """The relay's configuration file."""
        return str(self.one("ConfigMap")["data"]["relay.yaml"])

    @property
    def config(self) -> Manifest:
        """What the relay's configuration file says."""
        loaded: Manifest = yaml.safe_load(self.relay_yaml)
        return loaded


def chart(values: Values | None = None, *, kubernetes: str = KUBERNETES) -> Rendered:
    """Render the chart with `values` merged into `MINIMAL`."""
    return _rendered(_json(merged(MINIMAL, values or {})), kubernetes)


def value_set(file: Path) -> Rendered:
    """Render the chart with one of its value sets."""
    return _rendered(file.read_text(), KUBERNETES)


def refusal(values: Values, *, base: Values = MINIMAL) -> str:
    """Return what Helm says to values that it must refuse."""
    done = _template(_json(merged(base, values)), KUBERNETES)
    assert done.returncode != 0, f"was not refused: {values}"
    return done.stderr


def merged(base: Values, over: Values) -> dict[str, object]:
    """Return `base` with `over` in it, as Helm merges values: null takes a key away."""
    result = dict(base)
    for key, value in over.items():
        below = result.pop(key, ...)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        elif value is not None or below is ...:
            result[key] = value
    return result


def _json(values: object) -> str:
    # JSON is YAML that Helm and PyYAML read alike; but not its escapes beyond the basic plane.
    return json.dumps(values, ensure_ascii=False)


@cache
def _rendered(values: str, kubernetes: str) -> Rendered:
    done = _template(values, kubernetes)
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(each for each in yaml.safe_load_all(done.stdout) if each is not None))


def _template(values: str, kubernetes: str) -> subprocess.CompletedProcess[str]:
    where = ("--namespace", NAMESPACE, "--kube-version", kubernetes)
    return helm("template", RELEASE, str(CHART), "--values", "-", *where, stdin=values)


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run Helm. Skips the test where there is none (in CI: fails it)."""
    return subprocess.run(
        [_helm(), *arguments], input=stdin, capture_output=True, text=True, timeout=CALL_TIMEOUT_S, check=False
    )


@cache
def _helm() -> Path:
    return needed("Helm", helm_binary)


def helm_binary() -> Path:
    """Return Helm; builds it where it isn't there yet. Raises UnavailableError."""
    if shutil.which("go") is not None:
        return kept(f"bin-helm-{VERSION}", _build) / "helm"
    if (other := shutil.which("helm")) is not None:
        return Path(other)
    raise UnavailableError("neither `go` nor `helm` on the PATH")


def another_helm(version: str) -> Path:
    """Return another version of Helm; builds it where it isn't there yet. Raises UnavailableError."""
    if shutil.which("go") is None:
        raise UnavailableError("no `go` on the PATH")
    return kept(f"bin-helm-{version}", partial(_install, version, "-s -w")) / "helm"


def _build(directory: Path) -> Path:
    # As its makefile has it: the Kubernetes that `helm template` and `helm lint` assume without a cluster.
    major, minor = KUBERNETES.split(".")
    versions = {"Major": major, "Minor": minor}
    flags = " ".join(f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersion{part}={n}" for part, n in versions.items())
    return _install(VERSION, f"-s -w {flags}", directory)


def _install(version: str, flags: str, directory: Path) -> Path:
    binaries = directory / "bin"
    major = version.partition(".")[0]
    code, text = said(
        ["go", "install", "-ldflags", flags, f"helm.sh/helm/v{major}/cmd/helm@v{version}"],
        cwd=directory,
        timeout_s=BUILD_TIMEOUT_S,
        env={"GOBIN": str(binaries)},
    )
    if code != 0:
        raise UnavailableError(f"Go could not build Helm {version}: {last_line(text)}")
    return binaries
