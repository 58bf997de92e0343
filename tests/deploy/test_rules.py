"""The rules do what they say, by promtool's own judgement; and each alert leads to a section that helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from consumer.engage.http import FailureKind
from tests.deploy.commands import accept, told
from tests.deploy.monitoring import REFERENCE, ROOT, RULES, RUNBOOK, alerts, recorded, rules
from tests.deploy.prometheus import promtool

UNIT_TESTS = Path(__file__).with_name("rules_test.yaml")


class AlertTest(BaseModel):
    alertname: str
    exp_alerts: list[object]


class UnitTest(BaseModel):
    alert_rule_test: list[AlertTest]


def sections() -> dict[str, str]:
    """Return the runbook's sections by title."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_promtool_finds_nothing_to_complain_of() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_local_prometheus_takes_them_as_the_docs_say(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"^```yaml\n# prometheus.yml\n(.+?)^```$", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    config = tmp_path / "prometheus.yml"
    config.write_text(snippet)
    done = promtool("check", "config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_the_docs_inhibit_rules_name_alerts_that_there_are_and_labels_that_both_have() -> None:
    (snippet,) = re.findall(r"^```yaml\n# alertmanager.yml\n(.+?)^```$", REFERENCE.read_text(), re.M | re.DOTALL)
    inhibits = yaml.safe_load(snippet)["inhibit_rules"]

    def named(matchers: list[str]) -> set[str]:
        (matcher,) = matchers
        label, operator, pattern = re.fullmatch(r'(\w+) (=~?) "(.+)"', matcher).groups()  # type: ignore[union-attr]
        assert (label, operator == "=~") == ("alertname", bool(set("|(") & set(pattern)))
        alternatives = re.fullmatch(r"(\w*)\(?([\w|]+)\)?", pattern)
        assert alternatives is not None
        wanted = {name for name in alerts() if re.fullmatch(pattern, name)}
        assert len(wanted) == pattern.count("|") + 1, f"{pattern} names an alert that there is not"
        return wanted

    for each in inhibits:
        assert each["equal"] == ["namespace", "job"]
        sources, targets = named(each["source_matchers"]), named(each["target_matchers"])
        assert not sources & targets


@pytest.mark.long
def test_every_alert_fires_where_it_must_and_is_silent_where_it_must() -> None:
    done = promtool("test", "rules", UNIT_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_without_a_test_of_either_side() -> None:
    tests = [UnitTest.model_validate(each) for each in yaml.safe_load(UNIT_TESTS.read_text())["tests"]]
    sides = {(each.alertname, bool(each.exp_alerts)) for test in tests for each in test.alert_rule_test}
    assert sides == {(name, fires) for name in alerts() for fires in (True, False)}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_help_is(name: str) -> None:
    alert = alerts()[name]
    assert alert.labels["severity"] in {"critical", "warning"}
    assert alert.annotations.keys() == {"summary", "description", "runbook_url"}
    assert alert.annotations["runbook_url"] == f"{RUNBOOK.relative_to(ROOT)}#{name.lower()}"


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_a_section_of_the_runbook(name: str) -> None:
    section = sections()[name]
    where = [section.index(f"**{part}.**") for part in ("Meaning", "Likely causes", "What to do")]
    assert where == sorted(where)
    commands = re.findall(r"^ {4,}(engage-relay|kubectl|curl|kafka-[a-z-]+\.sh) ", section, re.MULTILINE)
    assert commands or "The same steps" in section


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    assert sections().keys() - {"Before you begin"} == alerts().keys()


@pytest.mark.parametrize("command", told(RUNBOOK.read_text()), ids=" ".join)
def test_the_command_line_takes_what_the_runbook_says(command: list[str]) -> None:
    accept(command)


def test_a_recorded_series_is_named_after_its_labels_its_metric_and_what_was_done() -> None:
    for rule in rules():
        if rule.record:
            level, metric, operations = rule.record.split(":")
            assert level.split("_") == re.findall(r"[a-z]+", re.findall(r"by \((.+?)\)", rule.expr)[0])
            assert metric in rule.expr
            window = re.search(r"(rate|increase)(\d+[mhd])$", operations)
            assert window is not None
            assert set(re.findall(r"(rate|increase)\([^[]+\[(\d+[mhd])\]", rule.expr)) == {window.groups()}


def test_no_series_is_recorded_in_vain() -> None:
    used = " ".join(rule.expr for rule in rules() if rule.alert)
    assert {name for name in recorded() if name not in used} == set()


def test_every_failure_without_an_answer_counts_as_unavailable() -> None:
    selector = re.search(r'status=~"([^"]+)"', alerts()["EngageRelayEngageUnavailable"].expr)
    assert selector is not None
    withdrawn = {"withdrawn"}  # the relay's own decision: Engage was not asked
    assert set(selector[1].split("|")) == {"5..", *get_args(FailureKind)} - withdrawn
