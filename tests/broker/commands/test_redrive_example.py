"""examples/04-redrive, done as it stands against a real broker; addresses and names are our own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.examples.readme import example, output_of
from tests.examples.running import accepted, copied, publish, simulator, url_in_readme
from tests.support.relay_process import RelayProcess
from tests.support.sandbox import TopicFactory
from tests.support.waiting import until

EXAMPLE = example("04-redrive")


@pytest.mark.long
def test_dead_letters_become_actions_once_their_cause_is_fixed(
    bootstrap_servers: str, topics: TopicFactory, tmp_path: Path
) -> None:
    (simulate,) = EXAMPLE.steps("engage-relay", "simulate")
    first_run, second_run = EXAMPLE.steps("engage-relay", "run")
    (first_list, second_list, list_chosen) = EXAMPLE.steps("engage-relay", "dead-letters", "list")
    dry_run, redrive, again, redrive_chosen = EXAMPLE.steps("engage-relay", "dead-letters", "redrive")
    source = topics(partitions=3)
    with simulator(simulate) as url:
        copy = copied(EXAMPLE, tmp_path, bootstrap_servers, {url_in_readme(simulate): url}, source)
        for file in copy.folder.glob("*.yaml"):
            file.write_text(re.sub(r"(group\.id: [\w-]+)", rf"\1-{source}", file.read_text()))

        def call(words: list[str]) -> list[str]:
            return output_of(" ".join(words), copy.folder).splitlines()

        with RelayProcess(tmp_path, copy.folder / first_run[3], *first_run[4:]) as relay:
            relay.wait_until_ready()
            publish(copy, bootstrap_servers, source)
            until(lambda: len(accepted(url)) == 1, "the action of the tenant that is configured")
            until(lambda: relay.metric("dead_letters_total") == 2, "the dead letters are written")
            assert sum("unknown_connection" in line for line in call(first_list)) == 2
            assert relay.stop() == 0

        with RelayProcess(tmp_path, copy.folder / second_run[3], *second_run[4:]) as relay:
            relay.wait_until_ready()
            assert ["would be redriven" in line for line in call(dry_run)] == [True, True]
            assert ["redriven: it is saved" in line for line in call(redrive)] == [True, True]
            until(lambda: len(accepted(url)) == 3, "the redriven events' actions")
            assert ["was redriven before" in line for line in call(again)] == [True, True]
            assert [line.endswith("True") for line in call(second_list)[1:]] == [True, True]
            assert call(list_chosen) == []
            chosen = (copy.folder / list_chosen[-1]).read_text().splitlines()
            assert [json.loads(line)["redriven"] for line in chosen] == [True, True]
            assert ["was redriven before" in line for line in call(redrive_chosen)] == [True, True]
            assert relay.stop() == 0
        assert [row["orderId"] for row in accepted(url)].count("SE-1001") == 1
