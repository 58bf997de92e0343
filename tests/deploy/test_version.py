"""The version has one place: package, User-Agent, image, chart and release say what pyproject.toml says."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from consumer import __version__
from consumer.run.wiring import USER_AGENT
from tests.docs.documents import ROOT
from tools import version


def test_what_is_installed_says_the_projects_version() -> None:
    assert __version__ == version.project_version()
    assert f"engage-relay/{version.project_version()}" == USER_AGENT


def test_every_file_that_names_the_version_names_this_one() -> None:
    assert version.drifted() == []
    chart = yaml.safe_load((ROOT / "helm" / "engage-relay" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version.project_version()


def test_no_other_file_of_the_product_names_it() -> None:
    named = re.escape(version.project_version()).replace("\\.", r"\.")
    command = [
        "git",
        "grep",
        "--files-with-matches",
        "--extended-regexp",
        rf"(engage-relay:|VERSION=|ersion: \"?){named}",
    ]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    product = {each for each in found if not each.startswith("tests/")}
    assert product == set(version.PLACES)


def test_a_place_that_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match="ARG VERSION"):
        version.rewritten("FROM python\n", (r"^ARG VERSION=",), "1.2.3")


def test_a_new_version_reaches_every_place() -> None:
    for name, befores in version.PLACES.items():
        text = (ROOT / name).read_text()
        assert version.rewritten(text, befores, "9.8.7").count("9.8.7") >= len(befores)


def test_a_release_is_refused_where_the_tag_names_another_version() -> None:
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert 'test "v$version" = "$GITHUB_REF_NAME"' in release
    assert "pyproject.toml" in release
