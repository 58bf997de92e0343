"""A broker that allows less than the configuration asks for: what no retry helps ends the relay and is named."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from consumer.commands import checks
from consumer.config.loading import load
from consumer.errors import ExitCode
from tests.support.broker import KafkaBroker, started
from tests.support.engage import Engage
from tests.support.figures import Figures
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

LIMITS = {
    "transaction.max.timeout.ms": "5000",
    "group.max.session.timeout.ms": "20000",
    "group.max.size": "1",
}
WITHIN = {"transaction.timeout.ms": 5000, "session.timeout.ms": 20_000}


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    with started(KafkaBroker(LIMITS)) as broker:
        yield broker


@pytest.fixture
def sandbox(broker: KafkaBroker, sandboxes: SandboxFactory) -> Sandbox:
    return sandboxes(broker=broker)


def relay(directory: Path, sandbox: Sandbox, engage: Engage, kafka: Mapping[str, object]) -> RelayProcess:
    file = written(directory, configuration(sandbox, engage.url, kafka=kafka))
    return RelayProcess(directory, file, "--from", "earliest")


def assert_ends_for(ending: RelayProcess, setting: str) -> None:
    assert ending.wait() == ExitCode.CONFIGURATION
    (said,) = ending.said("cannot run")
    assert f"kafka.{setting}: the broker does not allow it" in str(said["why"])


def test_a_session_that_the_broker_does_not_allow_is_an_error_of_the_configuration(
    sandbox: Sandbox, tmp_path: Path, figures: Figures
) -> None:
    """librdkafka asks to join again and again, for ever."""
    kafka = {**WITHIN, "session.timeout.ms": 30_000}
    since = time.monotonic()
    with Engage() as engage, relay(tmp_path, sandbox, engage, kafka) as ending:
        assert_ends_for(ending, "session.timeout.ms")
    figures(exit_code=int(ExitCode.CONFIGURATION), ended_after=f"{time.monotonic() - since:.1f} s")


@pytest.mark.parametrize("is_started", [False, True], ids=["at the first start", "at a later one"])
def test_a_transaction_that_the_broker_does_not_allow_is_an_error_of_the_configuration(
    sandbox: Sandbox, tmp_path: Path, is_started: bool
) -> None:
    """The start waited for ever, and said in turn that Kafka answers and that it does not."""
    with Engage() as engage:
        if is_started:
            with relay(tmp_path, sandbox, engage, WITHIN) as first:
                assert first.wait_until_ready().stop() == ExitCode.OK
        with relay(tmp_path, sandbox, engage, {**WITHIN, "transaction.timeout.ms": 5001}) as ending:
            assert_ends_for(ending, "transaction.timeout.ms")


def test_check_config_names_a_transaction_that_the_broker_does_not_allow(sandbox: Sandbox, tmp_path: Path) -> None:
    with Engage() as engage:
        file = written(tmp_path, configuration(sandbox, engage.url, kafka={"transaction.timeout.ms": 5001}))
        (failed,) = [each for each in checks.online(load(file, {})) if each.standing == "failed"]
    assert failed.code == ExitCode.CONFIGURATION
    assert failed.what.startswith("kafka.transaction.timeout.ms: the broker does not allow it")


def test_an_instance_that_a_full_group_lets_wait_says_so_and_serves_when_there_is_room(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with (
        Engage() as engage,
        relay(tmp_path, sandbox, engage, WITHIN) as first,
        relay(tmp_path, sandbox, engage, WITHIN) as second,
    ):
        both = (first, second)
        until(lambda: any(each.get("/readyz")[0] == 200 for each in both), "one is let in")
        serving, waiting = sorted(both, key=lambda each: each.get("/readyz")[0])
        full = "does not let this instance in: JoinGroup failed: Broker: Consumer group has reached maximum size"
        until(lambda: full in waiting.get("/readyz")[1], "it says why it waits")
        assert serving.stop() == ExitCode.OK
        waiting.wait_until_ready()
