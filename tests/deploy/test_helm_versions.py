"""The chart under other versions of Helm: an older one, and the next major one. All other tests have helm.py's."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.deploy.helm import CALL_TIMEOUT_S, CHART, KUBERNETES, NAMESPACE, RELEASE, VALUE_SETS, another_helm, value_set
from tests.support.downloads import needed

VERSIONS = ("3.19.5", "4.3.2")


@pytest.mark.long  # each is built once: a minute or two
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_lints_strictly_and_renders_the_same_under_another_helm(version: str) -> None:
    helm = needed(f"Helm {version}", partial(another_helm, version))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [helm, *arguments, "--kube-version", KUBERNETES],
            capture_output=True,
            text=True,
            timeout=CALL_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    for values in map(str, VALUE_SETS):
        assert "0 chart(s) failed" in run("lint", "--strict", str(CHART), "--values", values)
        rendered = run("template", RELEASE, str(CHART), "--values", values, "--namespace", NAMESPACE)
        found = [each for each in yaml.safe_load_all(rendered) if each is not None]
        assert found == list(value_set(Path(values)).manifests), values
