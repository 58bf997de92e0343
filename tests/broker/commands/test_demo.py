"""The demo against a real broker: topics of its own, which are gone afterwards."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from consumer.demo import run_demo
from tests.support.waiting import until


def left_behind(admin: AdminClient) -> list[str]:
    return [topic for topic in admin.list_topics(timeout=30).topics if topic.startswith("engage-relay-demo")]


@pytest.mark.long
def test_the_demo_on_real_brokers_adds_up_and_leaves_no_topic_behind(
    bootstrap_servers: str, admin: AdminClient, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_demo(orders=6, seed=1, kafka=bootstrap_servers)
    said = capfd.readouterr()
    assert code == 0, said.out + said.err
    assert "It adds up" in said.out
    until(lambda: not left_behind(admin), "the broker forgets the demo's topics")
    groups = admin.list_consumer_groups(request_timeout=30).result().valid
    assert [group.group_id for group in groups if group.group_id.startswith("engage-relay-demo")] == []
