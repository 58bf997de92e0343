"""The dashboard is what its source says, imports anywhere, and asks only for what is there to be asked for."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from tests.deploy.monitoring import DASHBOARD, Panel, Target, dashboard, queried, queries, recorded
from tests.deploy.prometheus import promtool
from tools import dashboard as source


def test_the_file_is_what_the_source_says() -> None:
    assert source.main(["--check"]) == 0, "run: python -m tools.dashboard"


def test_it_has_the_sections_that_an_operator_looks_for() -> None:
    rows = [panel.title for panel in dashboard().panels if panel.type == "row"]
    assert [row.partition(":")[0] for row in rows] == ["SLO", "Flow", "Engage", "Delays", "Kafka client", "Process"]


def test_it_imports_anywhere() -> None:
    text = json.loads(DASHBOARD.read_text())
    assert "uid" not in text
    assert "id" not in text
    assert {panel["datasource"]["uid"] for panel in text["panels"] if "datasource" in panel} == {"${datasource}"}
    variables = {variable.name: variable.type for variable in dashboard().templating.list}
    chosen = ("namespace", "job", "instance", "connection", "route")
    assert variables == {"datasource": "datasource", **dict.fromkeys(chosen, "query")}


def test_it_works_without_the_recording_rules() -> None:
    assert {name for _, target in queries() for name in queried(target.expr)} & recorded() == set()


def test_starts_and_alerts_are_marked_in_every_panel(tmp_path: Path) -> None:
    marks = json.loads(DASHBOARD.read_text())["annotations"]["list"]
    assert [each["name"] for each in marks] == ["Starts", "Alerts"]
    assert taken([each["expr"] for each in marks], tmp_path)


def test_what_the_builders_write_by_themselves_hides_nothing() -> None:
    text = json.loads(DASHBOARD.read_text())
    assert {mark["placement"] for mark in text["annotations"]["list"]} == {""}, "above the panels, not in a menu"
    graphs = [panel for panel in text["panels"] if panel["type"] == "timeseries"]
    assert all(panel["options"]["legend"]["showLegend"] for panel in graphs)
    (heatmap,) = (panel["options"]["color"] for panel in text["panels"] if panel["type"] == "heatmap")
    assert heatmap["steps"] > 1, "colours to tell apart"


def test_every_panel_says_what_it_shows() -> None:
    panels = [panel for panel in dashboard().panels if panel.type != "row"]
    assert all(panel.description.endswith((".", ".)")) for panel in panels)
    assert len({panel.title for panel in panels}) == len(panels)
    assert len({panel.id for panel in dashboard().panels}) == len(dashboard().panels)


def test_no_panel_lies_over_another() -> None:
    def apart(one: dict[str, int], other: dict[str, int]) -> bool:
        return (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )

    places = [panel.gridPos for panel in dashboard().panels]
    assert all(place["x"] + place["w"] <= source.WIDTH for place in places)
    assert all(apart(one, other) for one, other in combinations(places, 2))


@pytest.mark.parametrize(("panel", "target"), queries(), ids=lambda each: each.title if isinstance(each, Panel) else "")
def test_a_query_keeps_to_what_was_chosen_and_its_legend_to_what_it_returns(panel: Panel, target: Target) -> None:
    selectors = re.findall(r"\{([^}]*)\}", target.expr)
    assert selectors
    assert all('namespace=~"$namespace",job=~"$job"' in selector for selector in selectors)
    kept = {label for by in re.findall(r"by \(([^)]*)\)", target.expr) for label in re.split(r",\s*", by)}
    assert set(re.findall(r"\{\{(\w+)\}\}", target.legendFormat)) <= kept


CHOSEN = dict.fromkeys(("$namespace", "$job", "$instance", "$connection", "$route"), ".*") | {"$__rate_interval": "1m"}


def taken(expressions: list[str], directory: Path) -> bool:
    """Tell whether Prometheus takes these queries. promtool checks rules, so each becomes one."""
    for variable, value in CHOSEN.items():
        expressions = [each.replace(variable, value) for each in expressions]
    rules = [{"record": f"panel:query:{n}", "expr": each} for n, each in enumerate(expressions)]
    file = directory / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    assert taken([target.expr for _, target in queries()], tmp_path)


def test_a_query_about_connections_or_routes_keeps_to_the_chosen_ones() -> None:
    for _, target in queries():
        for label in ("connection", "route"):
            if re.search(rf"by \([^)]*\b{label}\b", target.expr):
                assert f'{label}=~"${label}"' in target.expr
