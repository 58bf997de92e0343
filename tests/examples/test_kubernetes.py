"""05-kubernetes: what its README says of the chart is what Helm makes of its values."""

from __future__ import annotations

import re
from collections import defaultdict

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.commands import accept
from tests.deploy.helm import KUBERNETES, Rendered, helm
from tests.examples.readme import example

pytestmark = pytest.mark.timeout(900)  # the first one may have to build Helm

EXAMPLE = example("05-kubernetes")


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    """Return what the README's `helm template` prints."""
    (words,) = EXAMPLE.steps("helm", "template")
    chart, values = (EXAMPLE.folder / words[3]).resolve(), EXAMPLE.folder / words[5]
    done = helm("template", words[2], str(chart), words[4], str(values), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(each for each in yaml.safe_load_all(done.stdout) if each is not None))


def test_every_object_fits_kubernetes(rendered: Rendered) -> None:
    ours = [each for each in rendered.manifests if "coreos.com" not in each["apiVersion"]]
    for each in ours:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    assert len(ours) > 5


def test_the_table_names_every_kind_of_object(rendered: Rendered) -> None:
    table = " ".join(re.findall(r"^\| (.+?) \|", EXAMPLE.text, re.MULTILINE))
    kinds = {each["kind"] for each in rendered.manifests if each["kind"] != "Pod"}  # that one is `helm test`'s
    assert {kind for kind in kinds if not re.search(rf"\b{kind}\b", table)} == set()
    assert set(re.findall(r"\b([A-Z]\w+[a-z])\b", table)) <= kinds


def test_the_names_are_those_that_its_commands_use(rendered: Rendered) -> None:
    workload = rendered.one("Deployment", "engage-relay")
    assert workload["spec"]["replicas"] == 3
    assert rendered.one("ConfigMap", "engage-relay-dashboard")
    for words in EXAMPLE.steps("kubectl", "exec"):
        assert words[2] == "deploy/engage-relay"
        accept(words[words.index("--") + 2 :])


def test_the_secrets_that_it_creates_are_those_that_the_pod_mounts(rendered: Rendered) -> None:
    created = {
        words[4]: set(re.findall(r"--from-(?:literal|file)=([\w.]+)", " ".join(words)))
        for words in EXAMPLE.steps("kubectl", "create", "secret", "generic")
    }
    mounted: defaultdict[str, set[str]] = defaultdict(set)
    for volume in rendered.pod["spec"]["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            if "secret" in source:
                mounted[source["secret"]["name"]] |= {item["key"] for item in source["secret"]["items"]}
    assert mounted == created
