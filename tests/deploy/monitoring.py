"""What the rules, the dashboard and the docs say of the relay's metrics, and what a scrape shows: to hold one against
the other."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "engage-relay" / "files" / "rules.yaml"
DASHBOARD = ROOT / "helm" / "engage-relay" / "files" / "dashboard.json"
RUNBOOK = ROOT / "docs" / "runbook.md"
REFERENCE = ROOT / "docs" / "metrics.md"

_RECORDED = re.compile(r"\b[a-z_]+:[a-z0-9_]+:[a-z0-9_]+\b")
_METRIC = re.compile(r"\b(?:engage_relay|process|python)_[a-z0-9_]*[a-z0-9]\b")


class Rule(BaseModel):
    """An alert or a recorded series."""

    alert: str = ""
    record: str = ""
    expr: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Group(BaseModel):
    rules: list[Rule]


class _RulesFile(BaseModel):
    groups: list[_Group]


class Variable(BaseModel):
    """A dashboard's variable, as much as is asked of it."""

    name: str
    type: str


class Target(BaseModel):
    """A panel's query."""

    expr: str
    legendFormat: str = ""  # noqa: N815 - Grafana's name


class Panel(BaseModel):
    """A dashboard's panel, as much as is asked of it."""

    id: int
    type: str
    title: str
    description: str = ""
    datasource: dict[str, str] | None = None
    gridPos: dict[str, int]  # noqa: N815 - Grafana's name
    targets: list[Target] = []


class _Templating(BaseModel):
    list: list[Variable]


class Dashboard(BaseModel):
    """A dashboard, as much as is asked of it."""

    panels: list[Panel]
    templating: _Templating


@dataclass(frozen=True)
class Exposed:
    """A metric as it stands in a scrape; `labels` without a histogram's own."""

    kind: str
    labels: frozenset[str]


def rules() -> list[Rule]:
    """Return every rule, in the file's order."""
    return [
        rule for group in _RulesFile.model_validate(yaml.safe_load(RULES.read_text())).groups for rule in group.rules
    ]


def alerts() -> dict[str, Rule]:
    """Return the alerts by name."""
    return {rule.alert: rule for rule in rules() if rule.alert}


def recorded() -> set[str]:
    """Return the names of the recorded series."""
    return {rule.record for rule in rules() if rule.record}


def dashboard() -> Dashboard:
    """Return the dashboard as the file has it."""
    return Dashboard.model_validate(json.loads(DASHBOARD.read_text()))


def queries() -> list[tuple[Panel, Target]]:
    """Return the dashboard's queries, each with its panel."""
    return [(panel, target) for panel in dashboard().panels for target in panel.targets]


def queried(expression: str) -> set[str]:
    """Return the series that a PromQL expression asks for, recorded ones included."""
    bare = re.sub(r"\{[^}]*\}", "", expression)
    return {*_RECORDED.findall(bare), *_METRIC.findall(_RECORDED.sub("", bare))}


def mentioned(text: str) -> set[str]:
    """Return the relay's own metrics that a text names."""
    return {name for name in _METRIC.findall(_RECORDED.sub("", text)) if name.startswith("engage_relay_")}


def grepped(text: str) -> list[str]:
    """Return what the text's commands look for in /metrics, each alternative as a pattern of its own."""
    found: list[str] = []
    for pattern in re.findall(r"localhost:8080/metrics \| grep (?:-E )?'([^']+)'", text):
        found += _alternatives(pattern)
    return found


def _alternatives(pattern: str) -> Iterator[str]:
    inner = re.search(r"\(([^()]*)\)", pattern)
    if inner is None:
        yield pattern
        return
    for each in inner[1].split("|"):
        yield from _alternatives(pattern[: inner.start()] + each + pattern[inner.end() :])


def exposed(scrape: str) -> dict[str, Exposed]:
    """Return the metrics of a scrape by the name that its TYPE line has."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            labels[family.name] |= sample.labels.keys() - {"le"}
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", scrape, re.MULTILINE)
    return {name: Exposed(kind, frozenset(labels[name.removesuffix("_total")] or labels[name])) for name, kind in kinds}


def series(scrape: str) -> set[str]:
    """Return every name that a query may ask this scrape for; those without a sample yet, too."""
    names: set[str] = set()
    for name, metric in exposed(scrape).items():
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if metric.kind == "histogram" else {name}
    return names


def unknown(scrape: str, prose: Mapping[str, str]) -> dict[str, set[str]]:
    """Return what is named and does not exist in the scrape, by where: rules, dashboard, and each text of `prose`."""
    there = series(scrape) | recorded()
    described = there | exposed(scrape).keys()
    named = {rule.alert or rule.record: queried(rule.expr) - there for rule in rules()}
    named |= {panel.title: queried(target.expr) - there for panel, target in queries()}
    named |= {name: mentioned(text) - described for name, text in prose.items()}
    for name, text in prose.items():
        missing = {each for each in grepped(text) if not re.search(each, scrape, re.MULTILINE)}
        named[f"{name}, grep"] = missing
    return {where: names for where, names in named.items() if names}
