"""What the relay's /metrics say: for the progress, and for the tally where Engage shows no account."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from consumer.demo.tally import Requests
from consumer.telemetry.names import PREFIX

_IGNORED = ("events_unrouted_total", "tombstones_ignored_total", "foreign_redrives_ignored_total")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayFigures:
    """The relay's counters and states at one moment."""

    consumed: int = 0
    ignored: int = 0
    pending: int = 0
    in_doubt: int = 0
    backlog: int = 0
    dead_letters: int = 0
    accepted: Counter[str] = field(default_factory=Counter)  # by action
    requests: Counter[str] = field(default_factory=Counter)  # by call

    @property
    def settled(self) -> bool:
        """Tell whether nothing is under way."""
        return self.pending == self.backlog == 0

    @property
    def asked(self) -> Requests:
        """Return what Engage was asked, as far as the relay knows."""
        return Requests(self.requests["job"] + self.requests["order"], self.requests.total())


def read_figures(exposition: str) -> RelayFigures:
    """Read Prometheus's text format."""
    sums: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            name, count = sample.name.removeprefix(PREFIX), int(sample.value) if sample.value == sample.value else 0
            sums[name] += count
            if name == "actions_answered_total" and sample.labels["outcome"] == "accepted":
                accepted[sample.labels["action"]] += count
            elif name == "requests_total":
                requests[sample.labels["call"]] += count
    return RelayFigures(
        consumed=sums["events_consumed_total"],
        ignored=sum(sums[each] for each in _IGNORED),
        pending=sums["pending_actions"],
        in_doubt=sums["in_doubt_actions"],
        backlog=sums["journal_backlog_writes"],
        dead_letters=sums["dead_letters_total"],
        accepted=accepted,
        requests=requests,
    )
