"""What GitHub and Renovate are told: workflows run the project's own commands, and everything is pinned."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.documents import ROOT, links

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [form for form in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if form.name != "config.yml"]
RENOVATE = json.loads((ROOT / "renovate.json").read_text())
each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.name))


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / name).read_text())
    return loaded


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in workflow(name)["jobs"].values():
        yield from job.get("steps", [])


def test_ci_runs_what_anybody_can_run_on_every_python_that_is_supported() -> None:
    job = workflow("ci.yml")["jobs"]["run"]
    assert [step["run"] for step in job["steps"] if ".ci/run" in step.get("run", "")] == [".ci/run"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(classifiers))
    assert job["strategy"]["matrix"]["python"] == supported
    (python,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
    assert python["with"]["python-version"] == "${{ matrix.python }}"


def test_nothing_is_released_that_ci_did_not_pass() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert jobs["ci"] == {"uses": "./.github/workflows/ci.yml"}
    assert re.search("^  workflow_call:", (GITHUB / "workflows" / "ci.yml").read_text(), re.MULTILINE)
    assert all(job["needs"] == "ci" for name, job in jobs.items() if name != "ci")


def test_all_that_is_released_has_an_attestation_and_a_list_of_components() -> None:
    attested = [step["with"] for step in steps("release.yml") if "actions/attest@" in step.get("uses", "")]
    subjects = {subject for each in attested for subject in each.get("subject-path", "").split()}
    assert subjects == {"dist/*.whl", "dist/*.tar.gz", "dist/*.tgz"}
    assert [each["sbom-path"] for each in attested if "sbom-path" in each] == ["dist/engage-relay.cdx.json"]
    assert "--output-file dist/engage-relay.cdx.json" in (ROOT / "Makefile").read_text()
    assert [each["subject-name"] for each in attested if "subject-digest" in each] == ["${{ env.IMAGE }}"]
    (image,) = [step["run"] for step in steps("release.yml") if "docker buildx build" in step.get("run", "")]
    assert "--sbom=true" in image
    assert "--provenance=mode=max" in image


def test_image_and_chart_are_published_side_by_side_for_both_kinds_of_machine() -> None:
    runs = [step["run"] for step in steps("release.yml") if "run" in step]
    (image,) = [each for each in runs if "docker buildx build" in each]
    assert "--platform linux/amd64,linux/arm64" in image
    (chart,) = [each for each in runs if "helm push" in each]
    assert 'helm package helm/engage-relay --version "$VERSION" --app-version "$VERSION"' in chart
    assert "oci://ghcr.io/" in chart


def test_every_link_of_the_packaged_charts_readme_leads_somewhere(tmp_path: Path) -> None:
    (run,) = [step["run"] for step in steps("release.yml") if "helm push" in step.get("run", "")]
    before, _, _ = run.partition("helm package")
    chart = tmp_path / "helm" / "engage-relay"
    shutil.copytree(ROOT / "helm" / "engage-relay", chart)
    where = {
        "GITHUB_SERVER_URL": "https://git.acme.com",
        "GITHUB_REPOSITORY": "shop/relay",
        "GITHUB_REF_NAME": "v1.2.3",
    }
    script = before.partition("--password-stdin\n")[2]
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env={**os.environ, **where}, check=True)

    ignored = (chart / ".helmignore").read_text().splitlines()
    found = links((chart / "README.md").read_text())
    for link in found:
        assert link.startswith("https://") or ((chart / link).is_file() and f"{link.split('/')[0]}/" not in ignored), (
            link
        )
    assert "https://git.acme.com/shop/relay/blob/v1.2.3/docs/runbook.md" in found
    meta = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (meta["home"], meta["sources"]) == ("https://git.acme.com/shop/relay", ["https://git.acme.com/shop/relay"])


def test_the_image_is_told_every_argument_that_its_labels_have() -> None:
    (image,) = [step["run"] for step in steps("release.yml") if "docker buildx build" in step.get("run", "")]
    labels = set(
        re.findall(r"^ARG (VERSION|REVISION|CREATED|SOURCE)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    )
    assert set(re.findall(r"--build-arg (\w+)=", image)) == labels


@each_workflow
def test_actions_are_pinned_by_commit_with_their_version_beside_them(file: Path) -> None:
    used = re.findall(r"uses: (.+)", file.read_text())
    foreign = [each for each in used if not each.startswith("./")]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) for each in foreign), foreign


@each_workflow
def test_what_somebody_else_wrote_is_no_part_of_a_script(file: Path) -> None:
    scripts = [step["run"] for step in steps(file.name) if "run" in step]
    assert [script for script in scripts if "${{" in script] == []


@each_workflow
def test_a_job_may_write_only_where_it_says_so(file: Path) -> None:
    assert workflow(file.name)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form.name))
def test_a_form_asks_for_no_keys_and_no_personal_data(form: Path) -> None:
    loaded = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= loaded.keys()
    assert re.search(r"leave out (API )?keys", form.read_text())
    assert all(part["type"] == "markdown" or "label" in part["attributes"] for part in loaded["body"])


def test_renovate_watches_every_file_that_pins_something() -> None:
    pip = [pattern.strip("/") for pattern in RENOVATE["pip-compile"]["managerFilePatterns"]]
    for lock in ROOT.glob("requirements*.lock"):
        assert any(re.search(pattern, lock.name) for pattern in pip), lock
    assert {"pip-compile", "dockerfile", "docker-compose", "github-actions"} <= set(RENOVATE["enabledManagers"])


def test_each_lock_says_how_it_is_made_as_renovate_reads_it() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        _, command, *_ = lock.read_text().splitlines()
        assert command.startswith("#    uv pip compile ")
        assert f"--output-file={lock.name} pyproject.toml" in command
        options = [word for word in command.split() if word.startswith("--")]
        assert [option for option in options if "=" not in option] == ["--universal", "--generate-hashes"]
