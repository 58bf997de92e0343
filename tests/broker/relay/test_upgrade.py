"""A former version and this one, one instance after the other, forwards and back: nothing is lost or doubled by it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from tests.broker.relay.test_relay_rebalance import CLASSIC, EVENTS, PARTITIONS, Load
from tests.support.archives import unpack
from tests.support.books import Books, doubled
from tests.support.downloads import UnavailableError, needed
from tests.support.engage import Engage
from tests.support.figures import Figures
from tests.support.relay_process import ROOT, RelayProcess, configuration, written
from tests.support.sandbox import SandboxFactory

FORMER = "0c2b548485ad0ffc3c56d52a1c31422e46b6fb42"
"""The last commit whose pending records did not name their fact: the former form of what both versions read."""
INSTANCES = 2


def checked_out(commit: str, directory: Path) -> Path:
    """Put a commit's files into a directory. Raises UnavailableError where the clone does not have it."""
    done = subprocess.run(["git", "archive", commit, "consumer", "schemas"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"this clone has no commit {commit} (a shallow one?): {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        unpack(archive, directory)
    return directory


def keys_of(tree: Path) -> set[str]:
    """Return the top keys of the configuration that a tree's own code knows."""
    command = [sys.executable, "-m", "consumer.cli", "config", "schema"]
    said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
    return set(json.loads(said)["properties"])


def has_ended(relay: RelayProcess) -> bool:
    """Tell whether the process is gone."""
    return not relay.running


@pytest.mark.long
def test_versions_follow_each_other_and_back_while_orders_are_in_flight(
    sandboxes: SandboxFactory, tmp_path: Path, figures: Figures
) -> None:
    former = needed("former version", lambda: checked_out(FORMER, tmp_path / "former"))
    assert keys_of(ROOT) - keys_of(former) >= {"repeats"}, "the former version's own code does not run"
    sandbox = sandboxes(partitions=PARTITIONS)
    with Engage(seed=7, processing="uniform:0s..2s") as engage, Books(sandbox) as books, ExitStack() as running:
        load = Load(sandbox, engage)
        config = configuration(sandbox, engage.url, kafka=CLASSIC, connection={"requests_per_second": 100})
        del config["repeats"]  # the former version does not know it; an order's events are three facts
        file = written(tmp_path, config)

        def start(tree: Path, *arguments: str) -> RelayProcess:
            return running.enter_context(RelayProcess(tmp_path, file, *arguments, tree=tree))

        def all_share() -> None:
            share = PARTITIONS // INSTANCES
            load.until(lambda: [each.partitions for each in fleet] == [share] * INSTANCES, "each has its share")
            load.until_accepted(15)

        fleet = [start(former, "--from", "earliest") for _ in range(INSTANCES)]
        all_share()
        for tree in (ROOT, former, ROOT):
            for position in range(INSTANCES):
                load.until(lambda: len(books.read().live) > 0, "orders are in flight")
                leaving = fleet[position]
                if (tree, position) == (ROOT, 1):
                    leaving.kill()  # the former version's intents are in doubt, and this one must find them
                else:
                    leaving.terminate()
                    load.until(partial(has_ended, leaving), "it has stopped")
                    assert leaving.wait() == 0
                fleet[position] = start(tree)
                all_share()
        books.wait_until_settled()
        assert [each.stop() for each in fleet] == [0] * INSTANCES

        events, accepted = len(load.orders) * len(EVENTS), engage.accepted
        figures(events=events, accepted=len(accepted), sent_again_in_doubt=books.resends.total())
        assert doubled(accepted) <= books.resends  # what a killed instance left in doubt, and nothing else
        for order in load.orders:
            assert list(dict.fromkeys(engage.events_of(order))) == list(EVENTS)
        assert books.dead_letters == []
        written_by_both = {each.payload.fact is None for each in chain(*books.history.values()) if each}
        assert written_by_both == {True, False}
