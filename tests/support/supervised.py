"""A relay that is started again whenever it ends, as Kubernetes does. It may end in one way only: said, with advice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Self

from consumer.errors import ExitCode
from tests.support.engage import Engage
from tests.support.events import event, order_id, partition_of, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox

_NUMBERS = count()


class Supervised:
    """The instance; `kafka` are its properties. `starts`: how often it was started."""

    def __init__(self, directory: Path, sandbox: Sandbox, engage: Engage, kafka: Mapping[str, object]) -> None:
        self._directory, self._sandbox, self._engage = directory, sandbox, engage
        self.starts = 0
        self.configure(kafka)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.relay.running:
            self.relay.kill()
        if error is not None:
            error.add_note(f"started {self.starts} times; the log of the last start:\n{self.relay.last_words}")
        else:
            self.relay.assert_discreet()

    def configure(self, kafka: Mapping[str, object]) -> None:
        """Start it with these properties, where it does not run."""
        name = f"relay-{next(_NUMBERS)}"
        self._config = written(self._directory, configuration(self._sandbox, self._engage.url, kafka=kafka), name)
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self.relay = RelayProcess(self._directory, self._config, "--from", "earliest", impatient=True)

    def look_after(self) -> None:
        """Start it again where it has ended. Fails where it ended without saying why, and what to do."""
        if not self.relay.running:
            assert self.relay.wait() == ExitCode.FAILED, self.relay.last_words
            last = self.relay.log[-1]
            assert (last["event"], bool(last.get("advice"))) == ("cannot run", True), self.relay.last_words
            self.relay.assert_discreet()
            self._start()

    @property
    def ready(self) -> bool:
        """Whether it says so."""
        try:
            return self.relay.running and self.relay.get("/readyz")[0] == 200
        except (OSError, AssertionError):  # it starts or ends just now
            return False

    def end(self, *, killed: bool) -> None:
        """End it; it is not started again."""
        if self.relay.running:
            if killed:
                self.relay.kill()
            else:
                assert self.relay.stop() == ExitCode.OK


def published(sandbox: Sandbox, engage: Engage) -> set[str]:
    """Publish an event to each partition; returns their orders."""
    orders: dict[int, str] = {}
    while len(orders) < sandbox.partitions:
        order = order_id(f"supervised-{next(_NUMBERS)}")
        orders.setdefault(partition_of(order, sandbox.partitions), order)
    publish(sandbox, [(order, event(order, engage={"jobId": engage.submit(order)})) for order in orders.values()])
    return set(orders.values())


def all_accepted(engage: Engage, orders: Collection[str], instances: Collection[Supervised]) -> bool:
    """Whether Engage accepted these. The instances are looked after meanwhile."""
    for each in instances:
        each.look_after()
    return set(orders) <= {each.order_id for each in engage.accepted}
