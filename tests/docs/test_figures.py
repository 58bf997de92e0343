"""The figures in the docs are the program's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consumer.config.loading import load
from consumer.core import pacing, parking, poll_plan
from consumer.kafka import clients
from consumer.kafka.topics.rules import COMPACTED
from consumer.relay import dispatch, loop
from consumer.run.time_outs import hand_over_of
from tests.docs.documents import ROOT
from tests.support.broker import DEFAULT_VERSION

LEASE = f"{dispatch.MAX_LEASE_S:g} s, or {dispatch.LEASE_OF_SESSION:g} of"
DEFAULTS = load(
    None, {"KAFKA_BOOTSTRAP_SERVERS": "b:9092", "ENGAGE_BASE_URL": "https://acme.voyado.com", "ENGAGE_API_KEY": "k"}
)
PRODUCER = clients.producer({"bootstrap.servers": "b:9092"}, "t")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("guarantees", LEASE),
        ("tuning", LEASE),
        ("tuning", f"it uses {pacing.RESERVE:g} s - {pacing.FENCEPOST:g} (half of s"),
        ("tuning", f"the wait grows by {pacing.PollSchedule().growth:g} with each poll"),
        ("tuning", f"it aims at {poll_plan.TARGET_USE * 100:g} % of your share"),
        ("tuning", f"spread by {pacing.JITTER * 100:g} %"),
        ("tuning", f"it grows back by 1/{1 / pacing.GROWTH_PER_S:g} of the rate limit per second"),
        ("tuning", f"(above {parking.BYTES_OF_PENDING >> 10} KiB, packed)"),
        ("tuning", f"`max.message.bytes` ({int(COMPACTED['max.message.bytes']) >> 20} MiB as"),
        ("tuning", f"| `transaction.timeout.ms` | {PRODUCER['transaction.timeout.ms']} |"),
        ("tuning", f"| `socket.timeout.ms` | {clients.member({'bootstrap.servers': 'b:9092'})['socket.timeout.ms']} |"),
        ("operations", f"takes up to {hand_over_of(DEFAULTS) + loop.JOURNAL_AFTER_HAND_OVER_S:g} s with the default"),
        ("upgrading", f"run on Kafka {DEFAULT_VERSION.rpartition('.')[0]}"),
    ],
)
def test_it_says_what_the_program_does(document: str, text: str) -> None:
    said = " ".join((ROOT / "docs" / Path(document).with_suffix(".md")).read_text().split())
    assert text in said


def test_the_capacity_is_what_the_pace_allows() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| ([\d.]+) \| ([\d,]+) \|$", (ROOT / "docs" / "tuning.md").read_text(), re.M
    )
    assert rows
    for limit, instances, per_second, per_hour in rows:
        share = int(limit) / int(instances)
        used = max(pacing.RESERVE * share - pacing.FENCEPOST, pacing.MIN_OF_SHARE * share) * int(instances)
        assert float(per_second) == round(used / 2, 2)  # a poll and an action
        assert per_hour == f"{used / 2 * 3600:,.0f}"


def test_half_of_a_small_share_is_used() -> None:
    assert pacing.MIN_OF_SHARE == 1 / 2  # tuning.md has it in words
