"""A consumer's fatal error ends the process: never a Ready pod that consumes nothing.

confluent-kafka hands it out as a *message* whose code is `_FATAL`, with `fatal()` false, and does not call `error_cb`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from consumer.errors import ExitCode
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory
from tests.support.waiting import until

STATIC = {"group.instance.id": "relay-0"}
NEW_PROTOCOL = {"group.protocol": "consumer"}


def relay_of(directory: Path, sandbox: Sandbox, engage: Engage, kafka: Mapping[str, str]) -> RelayProcess:
    config = written(directory, configuration(sandbox, engage.url, kafka=kafka))
    return RelayProcess(directory, config, "--from", "earliest", impatient=True)


def ended_or_owning(relay: RelayProcess) -> bool:
    try:
        return not relay.running or relay.partitions == 1
    except OSError:  # it ends just now
        return False


def assert_served(sandbox: Sandbox, engage: Engage, name: str) -> None:
    """Whatever else may be, events go through now."""
    order = order_id(name)
    publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)}))])
    until(lambda: order in {each.order_id for each in engage.accepted}, f"{name}: the event's action is accepted")


def test_a_static_member_of_the_new_protocol_that_was_killed_ends_or_serves_and_a_later_start_serves(
    sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    """Started again at once, it gets UNRELEASED_INSTANCE_ID until its former session has ended."""
    sandbox = sandboxes()
    kafka = {**STATIC, **NEW_PROTOCOL}
    with Engage() as engage:
        with relay_of(tmp_path, sandbox, engage, kafka) as first:
            first.wait_until_owning(1)
            assert_served(sandbox, engage, "before")
            first.kill()
        starts = 0
        while True:  # as Kubernetes would
            starts += 1
            with relay_of(tmp_path, sandbox, engage, kafka) as again:
                until(partial(ended_or_owning, again), "it ends or owns its partition")
                if again.running:
                    assert_served(sandbox, engage, "after")
                    break
                assert again.wait() == ExitCode.FAILED
                assert "advice" in again.log[-1], again.log[-1]
        assert starts > 1, "the former session had ended already: nothing was tried"


def test_a_member_that_was_never_let_in_is_not_ready(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    kafka = {**STATIC, **NEW_PROTOCOL}
    with Engage() as engage, relay_of(tmp_path, sandbox, engage, kafka) as first:
        first.wait_until_owning(1)
        with relay_of(tmp_path, sandbox, engage, kafka) as second:
            ready: set[int] = set()

            def looked_until_it_ends() -> bool:
                if second.running and second.said("engage-relay starts"):
                    try:
                        ready.add(second.get("/readyz")[0])
                    except OSError:
                        return not second.running
                return not second.running

            until(looked_until_it_ends, "the second one of the same name ends")
            assert second.wait() == ExitCode.FAILED
            assert 200 not in ready
        assert_served(sandbox, engage, "the first one continues")


@pytest.mark.long
@pytest.mark.parametrize("protocol", [{}, NEW_PROTOCOL], ids=["classic", "consumer"])
def test_of_two_idle_instances_of_one_name_one_ends_and_the_other_serves(
    protocol: Mapping[str, str], sandboxes: SandboxFactory, tmp_path: Path, figures: Figures
) -> None:
    """The fenced one must not stay, Ready, and keep polling Engage beside its successor."""
    sandbox = sandboxes()
    kafka = {**STATIC, **protocol}
    with Engage() as engage, relay_of(tmp_path, sandbox, engage, kafka) as first:
        first.wait_until_owning(1)
        with relay_of(tmp_path, sandbox, engage, kafka) as second:
            begun = time.monotonic()
            until(lambda: not (first.running and second.running), "one of the two ends")
            figures(exit_code=1, ended_after=f"{time.monotonic() - begun:.1f} s")
            assert (second if first.running else first).wait() == ExitCode.FAILED
            assert_served(sandbox, engage, "the other one")
