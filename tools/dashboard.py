"""Writes the Grafana dashboard: `python -m tools.dashboard` (`--check`: only compare).

Rules:
 1. A panel is a line or a few here. How Grafana wants it said is the lower half of this file, which its builders write.
 2. No fixed uid, no data source but the variable: it imports anywhere, twice if need be.
 3. Every query keeps to the chosen namespace, job and instance ($relay in the queries below), and to the chosen
    connection or route where it tells those apart. Without Kubernetes there is no namespace, and All matches that, too.
 4. No query needs a recorded series: the dashboard works where the rules are not loaded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.generated import write_or_check

FILE = Path(__file__).parents[1] / "helm" / "engage-relay" / "files" / "dashboard.json"
RELAY = 'namespace=~"$namespace",job=~"$job"'  # all instances: what is not of one, as an alert
OF_INSTANCE = f'{RELAY},instance=~"$instance"'
SOURCE = common.DataSourceRef("prometheus", "${datasource}")
Kind = Literal["timeseries", "stat", "heatmap"]

ACCEPTED = ',outcome="accepted"'
WIDTH = 24  # of Grafana's grid


@dataclass(frozen=True)
class Panel:
    """One question and the queries that answer it: PromQL by legend. `unit` is Grafana's name of it."""

    title: str
    description: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Kind = "timeseries"
    stacked: bool = False
    thresholds: tuple[tuple[float, str], ...] = ()  # (from this value on, colour)
    width: int = 8


def late(window: str) -> str:
    """Return the query of the late share of the accepted actions, of the worst connection. No recorded series."""
    of = 'engage_relay_event_to_accepted_seconds_%s{$relay,connection=~"$connection"%s}'
    in_time, every = of % ("bucket", ',le="300.0"'), of % ("count", "")
    share = "sum by (connection) (rate({}[{}]))"
    return f"max(1 - {share.format(in_time, window)} / {share.format(every, window)})"


def rate(counter: str, by: str = "", where: str = "") -> str:
    """Return the query of a counter's rate per second, summed over instances; by some of its labels."""
    return f"sum by ({by}) (rate({counter}{{$relay{where}}}[$__rate_interval]))"


def increase(counter: str, by: str = "") -> str:
    """Return the query of what was counted within a point of the graph."""
    return f"sum by ({by}) (increase({counter}{{$relay}}[$__rate_interval]))"


def total(gauge: str, by: str = "") -> str:
    """Return the query of a gauge, summed over instances."""
    return f"sum by ({by}) ({gauge}{{$relay}})"


def most(gauge: str, by: str = "") -> str:
    """Return the query of a gauge's highest value."""
    return f"max by ({by}) ({gauge}{{$relay}})"


def quantiles(histogram: str, by: str = "") -> dict[str, str]:
    """Return the queries of a histogram's median, 95th and 99th percentile."""
    buckets = rate(histogram + "_bucket", f"le, {by}" if by else "le")
    which = f" {{{{{by}}}}}" if by else ""
    return {f"p{q}{which}": f"histogram_quantile({q / 100}, {buckets})" for q in (50, 95, 99)}


SECTIONS: dict[str, tuple[Panel, ...]] = {
    "SLO: from the event until Engage accepted": (
        Panel(
            "Accepted in time, last 6 h",
            "Share of the accepted actions that Engage accepted within 5 minutes of their event. Objective: 99 %.",
            {"": f"1 - {late('6h')}"},
            unit="percentunit",
            kind="stat",
            thresholds=((0, "red"), (0.94, "orange"), (0.99, "green")),
            width=4,
        ),
        Panel(
            "Alerts firing",
            "How many of engage-relay's alerts fire now. docs/runbook.md has a section for each.",
            {"": 'count(ALERTS{alertname=~"EngageRelay.*",alertstate="firing",$all}) or vector(0)'},
            kind="stat",
            thresholds=((0, "green"), (1, "red")),
            width=4,
        ),
        Panel(
            "Accepted late, by window",
            "Share of the actions that Engage accepted later than 5 minutes after their event. "
            "EngageRelaySLOBurnFast fires over 14.4 % in 1 h and 5 m, EngageRelaySLOBurnSlow over 6 % in 6 h and 30 m.",
            {window: late(window) for window in ("5m", "30m", "1h", "6h")},
            unit="percentunit",
            thresholds=((0, "transparent"), (0.06, "orange"), (0.144, "red")),
        ),
        Panel(
            "Event to accepted",
            "Time from the event until Engage accepted its action: sender, Kafka, Engage and relay together.",
            quantiles("engage_relay_event_to_accepted_seconds"),
            unit="s",
        ),
        Panel(
            "Event to accepted, all actions",
            "How many actions took how long from their event until Engage accepted them.",
            {"{{le}}": increase("engage_relay_event_to_accepted_seconds_bucket", "le")},
            unit="s",
            kind="heatmap",
            width=WIDTH,
        ),
    ),
    "Flow": (
        Panel(
            "Events read",
            "Records read from the source, per topic.",
            {"{{topic}}": rate("engage_relay_events_consumed_total", "topic")},
            unit="ops",
        ),
        Panel(
            "Actions routed",
            "Events that became an action, by route.",
            {"{{route}}": rate("engage_relay_actions_routed_total", "route")},
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Actions accepted",
            "Actions that Engage answered with 202, by action.",
            {"{{action}}": rate("engage_relay_actions_answered_total", "action", ACCEPTED)},
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Source lag",
            "Records that the relay has not read, in owned partitions. (Lag on the delay topic is pending work.)",
            {"{{topic}}": total("engage_relay_consumer_lag_records", "topic")},
        ),
        Panel(
            "Partitions that stand still",
            "They have a lag, and nothing of them was read or settled for 5 minutes; the runbook explains the reasons.",
            {"{{reason}}": total("engage_relay_stalled_partitions", "reason")},
            stacked=True,
        ),
        Panel(
            "Events ignored",
            "Events that no route takes, records without a value (tombstones), and another relay's redrives.",
            {
                "no route, {{topic}}": rate("engage_relay_events_unrouted_total", "topic"),
                "tombstones, {{topic}}": rate("engage_relay_tombstones_ignored_total", "topic"),
                "foreign redrives, {{topic}}": rate("engage_relay_foreign_redrives_ignored_total", "topic"),
            },
            unit="ops",
        ),
        Panel(
            "Dead letters",
            "Events that became dead letters, by reason. A person must act on each.",
            {
                "{{reason}}": increase("engage_relay_dead_letters_total", "reason"),
                "refused by {{topic}}'s": total("engage_relay_refused_dead_letters", "topic"),
            },
            stacked=True,
        ),
        Panel(
            "Topics that do not fit",
            "1: it was altered while the relay runs, and may lose or refuse records; the runbook says what to do.",
            {"{{topic}}": most("engage_relay_topics_unfit", "topic")},
        ),
        Panel(
            "Dead letters waiting",
            "Dead letters that nobody has redriven or marked yet, by source topic.",
            {"{{topic}}": total("engage_relay_dead_letters_waiting", "topic")},
        ),
    ),
    "Engage": (
        Panel(
            "Requests by status",
            "HTTP status, or the kind of failure if there was no answer.",
            {"{{connection}} {{status}}": rate("engage_relay_requests_total", "connection, status")},
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Requests sent and allowed",
            "Requests per second, and what the pace allows now. A 429 lowers the pace; then it grows back.",
            {
                "sent {{connection}}": rate("engage_relay_requests_total", "connection"),
                "allowed {{connection}}": total("engage_relay_connection_requests_per_second", "connection"),
            },
            unit="reqps",
        ),
        Panel(
            "Requests per accepted action",
            "2 is the minimum if the relay must poll for the tag.",
            {
                "{{connection}}": rate("engage_relay_requests_total", "connection")
                + " / "
                + rate("engage_relay_actions_answered_total", "connection", ACCEPTED)
            },
        ),
        Panel(
            "How long Engage takes",
            "Until an order's tag is there, as the relay learnt it; and how late it expects to find the tag.",
            {
                "{{percentile}} % {{connection}}": most("engage_relay_processing_seconds", "connection, percentile"),
                "late {{connection}}": most("engage_relay_planned_lateness_seconds", "connection"),
            },
            unit="s",
        ),
        Panel(
            "Duration of requests",
            "Time that requests to Engage took, by call: job, order, document, action.",
            quantiles("engage_relay_request_duration_seconds", "call"),
            unit="s",
        ),
        Panel(
            "Polls answered",
            "Polls for a versionTag, and documents, by outcome.",
            {"{{outcome}}": rate("engage_relay_polls_answered_total", "outcome")},
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Actions answered",
            "Actions sent, by outcome. in_doubt: Engage may have processed the action.",
            {"{{outcome}}": rate("engage_relay_actions_answered_total", "outcome")},
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Wait for the rate limit",
            "How long requests waited for a permit. Near 0 while the limit is not reached.",
            quantiles("engage_relay_limiter_wait_seconds", "connection"),
            unit="s",
        ),
        Panel(
            "Connections suspended or in cooldown",
            "1: yes. Suspended: Engage refuses the key. Cooldown: after failures in a row or a 429.",
            {
                "suspended {{connection}}": most("engage_relay_connection_suspended", "connection"),
                "cooldown {{connection}}": most("engage_relay_connection_cooling_down", "connection"),
            },
        ),
    ),
    "Delays": (
        Panel(
            "Open actions",
            "Pending actions by state; docs/metrics.md explains the states.",
            {"{{state}}": total("engage_relay_pending_actions", "state")},
            stacked=True,
        ),
        Panel(
            "Oldest pending action",
            "How long ago its event was read, per instance. Orders that never get ready show here first.",
            {"{{instance}}": most("engage_relay_oldest_pending_age_seconds", "instance")},
            unit="s",
        ),
        Panel(
            "Overdue and in doubt",
            "Overdue: due, and could not leave. In doubt: sent, and no answer says whether Engage processed it.",
            {"overdue": total("engage_relay_overdue_actions"), "in doubt": total("engage_relay_in_doubt_actions")},
        ),
        Panel(
            "Tag ready to accepted",
            "Time from the versionTag until Engage accepted the action: the relay's own part.",
            quantiles("engage_relay_tag_ready_to_accepted_seconds"),
            unit="s",
        ),
        Panel(
            "Lateness of polls",
            "Time from a poll's due time until it started.",
            quantiles("engage_relay_due_lateness_seconds"),
            unit="s",
        ),
    ),
    "Kafka client": (
        Panel(
            "Partitions owned",
            "Source partitions, per instance.",
            {"{{instance}}": most("engage_relay_partitions_owned", "instance")},
            stacked=True,
        ),
        Panel(
            "Rebalances",
            "Changes of the assignment: assigned, revoked (handed over), lost (taken away).",
            {"{{kind}}": increase("engage_relay_rebalances_total", "kind")},
        ),
        Panel(
            "Source paused, writes waiting",
            "Paused: no more can be parked, or too much waits for the journal, so the instance reads nothing. "
            "Writes wait for the journal's next transaction.",
            {
                "instances paused": total("engage_relay_source_paused"),
                "writes waiting": total("engage_relay_journal_backlog_writes"),
            },
        ),
        Panel(
            "Duration of transactions",
            "Time that the journal's transactions took. 3 to 25 ms is healthy.",
            quantiles("engage_relay_transaction_duration_seconds"),
            unit="s",
        ),
        Panel(
            "Transactions",
            "Transactions committed and aborted, and records committed, per second.",
            {
                "committed": rate("engage_relay_transaction_duration_seconds_count"),
                "aborted": rate("engage_relay_transactions_aborted_total"),
                "records": rate("engage_relay_transaction_records_total"),
            },
            unit="ops",
        ),
        Panel(
            "Restores",
            "How long it took to read a delay partition after its assignment, and how many records that were.",
            {
                "seconds each": rate("engage_relay_restore_duration_seconds_sum")
                + " / "
                + rate("engage_relay_restore_duration_seconds_count"),
                "records per second": rate("engage_relay_restored_records_total"),
            },
        ),
        Panel(
            "Round trip to brokers",
            "99th percentile per broker, of the slowest instance. It includes fetches that wait for records.",
            {"{{client}} {{broker}}": most("engage_relay_librdkafka_broker_rtt_p99_seconds", "client, broker")},
            unit="s",
        ),
        Panel(
            "Errors with brokers",
            "Errors, time-outs, repeated requests and closed connections, per second.",
            {
                "not sent": rate("engage_relay_librdkafka_broker_transmit_errors_total"),
                "answers with an error": rate("engage_relay_librdkafka_broker_receive_errors_total"),
                "timed out": rate("engage_relay_librdkafka_broker_request_timeouts_total"),
                "sent again": rate("engage_relay_librdkafka_broker_request_retries_total"),
                "disconnected": rate("engage_relay_librdkafka_broker_disconnects_total"),
            },
            unit="ops",
        ),
    ),
    "Process": (
        Panel("CPU", "Cores in use, per instance.", {"{{instance}}": rate("process_cpu_seconds_total", "instance")}),
        Panel(
            "Memory",
            "Resident memory, per instance.",
            {"{{instance}}": most("process_resident_memory_bytes", "instance")},
            unit="bytes",
        ),
        Panel(
            "Heartbeats",
            "Time since each thread's last heartbeat. Liveness fails after 30 s (event loop) and 60 s (consumer).",
            {"{{instance}} {{thread}}": most("engage_relay_heartbeat_age_seconds", "instance, thread")},
            unit="s",
        ),
        Panel(
            "Versions",
            "How many instances run which version.",
            {"{{version}}": "count by (version) (engage_relay_build_info{$relay})"},
            stacked=True,
        ),
        Panel(
            "Uptime",
            "Time since the process started.",
            {"{{instance}}": f"time() - {most('process_start_time_seconds', 'instance')}"},
            unit="s",
        ),
        Panel(
            "Open files", "Open file descriptors, per instance.", {"{{instance}}": most("process_open_fds", "instance")}
        ),
    ),
}


# How Grafana wants it said


def dashboard() -> model.Dashboard:
    """Return Grafana's model of it (Grafana 10.4 and newer)."""
    made = (
        board.Dashboard("engage-relay")
        .description("Relays order events from Kafka to Voyado Engage as order actions.")
        .tags(["engage-relay"])
        .editable()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)  # one for all panels
        .refresh("30s")
        .time("now-6h", "now")
        .timezone(common.TimeZoneBrowser)
        .with_variable(board.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_labels("namespace", "Namespace", "engage_relay_build_info"))
        .with_variable(_labels("job", "Job", 'engage_relay_build_info{namespace=~"$namespace"}'))
        .with_variable(_labels("instance", "Instance", f"engage_relay_build_info{{{RELAY}}}"))
        .with_variable(_labels("connection", "Connection", f"engage_relay_connection_suspended{{{RELAY}}}"))
        .with_variable(_labels("route", "Route", f"engage_relay_actions_routed_total{{{RELAY}}}"))
        .annotation(
            _annotation("Starts", "blue", f"changes(process_start_time_seconds{{{OF_INSTANCE}}}[1m]) > 0", "instance")
        )
        .annotation(
            _annotation(
                "Alerts", "red", f'ALERTS{{alertname=~"EngageRelay.*",alertstate="firing",{RELAY}}}', "alertname"
            )
        )
    )
    numbers = count(1)
    for title, panels in SECTIONS.items():
        made.with_row(board.Row(title).id(next(numbers)))
        for panel in panels:
            made.with_panel(_panel(panel, next(numbers)))
    built = made.build()
    built.schema_version = 39  # Grafana 10.4's; newer ones raise it by themselves
    return built


def _labels(name: str, label: str, series: str) -> board.QueryVariable:
    return (
        board.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({series}, {name})", "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)  # relays come and go
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")  # also of series without this label
        .current(model.VariableOption(text="All", value="$__all"))
    )


def _annotation(name: str, colour: str, query: str, title: str) -> board.AnnotationQuery:
    return (
        board.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(query)
        .step("60s")
        .title_format(f"{{{{{title}}}}}")
        .placement("")  # in sight, above the panels: the SDK would have it in a menu
    )


def _panel(panel: Panel, number: int) -> timeseries.Panel | stat.Panel | heatmap.Panel:
    drawn: timeseries.Panel | stat.Panel | heatmap.Panel
    match panel.kind:
        case "timeseries":
            drawn = _timeseries(panel).unit(panel.unit).min(0)
        case "stat":
            drawn = _stat().unit(panel.unit).min(0)
        case "heatmap":
            drawn = _heatmap(panel)
    drawn.id(number).title(panel.title).description(panel.description).datasource(SOURCE).span(panel.width).height(8)
    if panel.thresholds:
        # Grafana wants the lowest step without a value.
        steps = [model.Threshold(value or None, colour) for value, colour in panel.thresholds]
        drawn.thresholds(board.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    for n, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + n)).datasource(SOURCE)
        target.expr(_selected(query)).legend_format(legend)
        if panel.kind == "heatmap":
            target.format(PromQueryFormat.HEATMAP)
        drawn.with_target(target)
    return drawn


def _timeseries(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingMode.NORMAL if panel.stacked else common.StackingMode.NONE
    line = common.GraphThresholdsStyleMode.LINE if panel.thresholds else common.GraphThresholdsStyleMode.OFF
    return (
        timeseries.Panel()
        .fill_opacity(30 if panel.stacked else 10)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(shared.StackingConfig().mode(stacking).group("A"))
        .thresholds_style(shared.GraphThresholdsStyleConfig().mode(line))
        .legend(
            shared.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(shared.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    )


def _stat() -> stat.Panel:
    return (
        stat.Panel()
        .reduce_options(shared.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
    )


def _heatmap(panel: Panel) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Blues")
            # Grafana's own defaults: the SDK would write 0.
            .steps(64)
            .exponent(0.5)
            .fill("dark-orange")
        )
    )


def _selected(query: str) -> str:
    """Return a query that keeps to what was chosen, also where it is about connections or routes."""
    relay = OF_INSTANCE
    for label in ("connection", "route"):
        if re.search(rf"by \([^)]*\b{label}\b", query) and f"{label}=~" not in query:
            relay += f',{label}=~"${label}"'
    return query.replace("$relay", relay).replace("$all", RELAY)


def rendered() -> str:
    """Return the file's text."""
    return JSONEncoder(indent=2).encode(dashboard()) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` say that it has drifted (exit code 1)."""
    return write_or_check(FILE, lambda _: rendered(), arguments, by="tools.dashboard")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
