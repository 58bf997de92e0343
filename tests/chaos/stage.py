"""A stage: a source, Engage in a process of its own, relays as processes, and the exact account at the end.

    stage = stages(partitions=3, rate_limit=200)
    stage.publish(100)                      # orders, of four events each
    relay = stage.relay("relay-0")
    stage.until_accepted(50)
    with stage.fault():
        relay.kill()
    stage.relay("relay-0")
    balance = stage.finish()                # asserts what must hold
    figures(**balance.figures())

The account is made from what was put on the source, what Engage accepted, and what lies in Kafka; never from what the
relay says of itself. Safety decides; slowness is a figure. Only who comes no further at all fails (`Probe`).
"""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import KafkaException

from consumer.kafka.topics.offsets import watermarks
from consumer.relay.connections import slots_of
from consumer.simulator.account import AcceptedAction, SlidingSecond
from schemas.dead_letter import Reason
from tests.chaos.engage_process import EngageProcess
from tests.chaos.progress import Probe, recovery_s
from tests.chaos.relay import SENT, VARIABLE
from tests.support.books import Books, DeadLetter, doubled
from tests.support.engage import API_KEY, EngageOptions
from tests.support.events import event, number_of, order_id, publish
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox

EVENTS = (1, 2, 3, 4)  # of each order
STUCK_S = 90.0  # above every wait of an impatient relay: transactions 10 s, restores, sessions 6 s, calls 15 s and 30 s
Event = tuple[str, object]  # order, number


@dataclass(frozen=True)
class Balance:
    """What became of a scenario's events."""

    events: int
    accepted: int
    dead_letters: Mapping[Reason, int]
    lost: Sequence[Event]
    ended_twice: Sequence[Event]
    doubled_in_doubt: int
    doubled_outside_doubt: Mapping[Event, int]
    resends: int
    out_of_order: Sequence[str]
    unasked: int
    max_leaving_in_a_second: int
    max_arriving_in_a_second: int
    rate_limit: int
    faults: int
    recovery_s: Sequence[float]
    """After each fault that left time and work enough to come to full speed again."""
    longest_wait_s: float

    def figures(self) -> dict[str, object]:
        """Return what is worth showing."""
        shown: dict[str, object] = {
            "events": self.events,
            "accepted": self.accepted,
            "dead letters": sum(self.dead_letters.values()),
            "lost": len(self.lost),
            "doubled outside doubt": sum(self.doubled_outside_doubt.values()),
            "doubled in doubt": self.doubled_in_doubt,
            "sent again in doubt": self.resends,
            "most requests in a second": (
                f"{self.max_leaving_in_a_second} of {self.rate_limit} as they leave, "
                f"{self.max_arriving_in_a_second} as they arrive"
            ),
        }
        if self.recovery_s:
            middle, slowest = median(self.recovery_s), max(self.recovery_s)
            shown["full speed after"] = f"{middle:.1f} s at the median, {slowest:.1f} s at most"
            if len(self.recovery_s) < self.faults:
                shown["full speed seen after"] = f"{len(self.recovery_s)} of {self.faults} faults"
        shown["longest standstill"] = f"{self.longest_wait_s:.1f} s"
        return shown


@dataclass
class Stage:
    """One scenario's. Made by the fixture `stages`."""

    sandbox: Sandbox
    directory: Path
    engage: EngageProcess
    books: Books
    rate_limit: int
    sections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    published: list[Event] = field(default_factory=list)
    relays: list[RelayProcess] = field(default_factory=list)
    faults: list[tuple[float, float]] = field(default_factory=list)
    keep_open: int = 0
    """How many events are to be open at least, while something is waited for."""
    shares: float = 1.0
    """The sum of the instances' shares of the rate limit; above 1 while not all know that the source has grown."""
    bunching: float = 1.5
    """How many times the rate limit may arrive in a second: a busy machine may bunch requests.

    To this comes what may arrive at once after Engage's process got no processor for a while (`stood_still_s`).
    """
    _closing: ExitStack = field(default_factory=ExitStack)

    # -- before and meanwhile -----------------------------------------------------------------------------------

    def publish(self, orders: int, **more: Any) -> None:
        """Publish the events of so many new orders, as they would come: one of each order, then the next of each."""
        begun = len(self.published) // len(EVENTS)
        new = [order_id(begun + number) for number in range(orders)]
        jobs = {number: self.engage.submit_all(new) for number in EVENTS}
        events = [
            (order, event(order, number, engage={"jobId": job}, **more))
            for number in EVENTS
            for order, job in zip(new, jobs[number], strict=True)
        ]
        publish(self.sandbox, events)
        self.published += [(order, number) for order in new for number in EVENTS]

    def relay(
        self,
        name: str = "relay",
        *arguments: str,
        static: bool = False,
        fail_at: str = "",
        environ: Mapping[str, str] | None = None,
        **sections: Mapping[str, object],
    ) -> RelayProcess:
        """Start a relay. `static`: a member whose name is its own, so that its successor takes its place at once.

        `fail_at`: see tests/chaos/relay.py. `sections` add to the stage's (`kafka`, `connection`, `limits`, `routes`).
        """
        merged = {key: {**self.sections.get(key, {}), **sections.get(key, {})} for key in {*self.sections, *sections}}
        kafka = {**merged.pop("kafka", {}), **({"group.instance.id": name} if static else {})}
        connection = {"requests_per_second": self.rate_limit, **merged.pop("connection", {})}
        configured = configuration(self.sandbox, self.engage.url, kafka=kafka, connection=connection, **merged)
        relay = RelayProcess(
            self.directory,
            written(self.directory, configured, name),
            "--from",
            "earliest",
            *arguments,
            environ={SENT: str(self._sent), **(environ or {}), **({VARIABLE: fail_at} if fail_at else {})},
            program="tests.chaos.relay",
        )
        self.relays.append(self._closing.enter_context(relay))
        return relay

    def until_accepted(self, count: int) -> None:
        """Wait until so many actions were accepted in all."""
        self.wait_for(lambda: self.engage.accepted_count() >= count, f"{count} actions are accepted")

    def until_accepted_more(self, count: int) -> None:
        """Wait until so many more were accepted."""
        self.until_accepted(self.engage.accepted_count() + count)

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait, as long as it comes further, and never let it be without work (`keep_open`)."""
        probe = Probe(STUCK_S)
        while not condition():
            self._look(probe, what)
            # What was accepted twice, in doubt, counts twice: where all is accepted, less than nothing seems open.
            if self.keep_open and len(self.published) - self.engage.accepted_count() < self.keep_open:
                self.publish(self.keep_open // len(EVENTS) + 1)
            time.sleep(0.05)

    def read_again(self) -> None:
        """Read Kafka's books from their beginning: topics have changed, or were recreated."""
        self.books = self._closing.enter_context(Books(self.sandbox))

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Note when a fault begins and ends: how long it takes to full speed again is counted from its end."""
        began = time.time()
        yield
        self.faults.append((began, time.time()))

    def _look(self, probe: Probe, what: str) -> None:
        with suppress(KafkaException):
            ends = watermarks(
                self.sandbox.admin, [(self.sandbox.topics.delay, n) for n in range(self.sandbox.partitions)]
            )
            progress = (
                self.engage.accepted_count(),
                len(self.books.dead_letters),
                tuple(sorted(self.books.taken().items())),
            )
            busy = (self.engage.requests.total(), tuple(end for _, end in ends.values()))
            wrong = probe.see(progress, busy, time.monotonic())
            assert wrong is None, f"{wrong}, waiting: {what}; {self._logs()}"

    def _logs(self) -> str:
        return "\n".join(f"--- {n}\n{relay.text[-2000:]}" for n, relay in enumerate(self.relays[-3:]))

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self, *, kills: int = 0, fresh_doubt: bool = False) -> Balance:
        """Wait until nothing is pending any more, make the account and assert what must hold.

        `kills`: how many processes ended by force; only as many actions as they had in flight may be in doubt.
        `fresh_doubt`: Engage's own faults put actions in doubt, too, without a bound.
        """
        probe = Probe(STUCK_S)
        while not self.books.settled():
            self._look(probe, "everything is settled")
        balance = self.balance(probe.longest_wait_s)
        said = f"{balance.figures()}\n{self._logs()}"
        assert not balance.lost, f"lost {balance.lost[:5]}: {said}"
        assert not balance.ended_twice, f"ended twice {balance.ended_twice[:5]}: {said}"
        assert not balance.doubled_outside_doubt, f"doubled {balance.doubled_outside_doubt}: {said}"
        assert not balance.out_of_order, f"out of order {balance.out_of_order[:5]}: {said}"
        assert balance.unasked == 0, said
        assert balance.max_leaving_in_a_second <= self.shares * self.rate_limit, said
        bunching = self.bunching + self.engage.stood_still_s
        assert balance.max_arriving_in_a_second <= self.shares * bunching * self.rate_limit, said
        if not fresh_doubt:
            assert balance.resends <= kills * slots_of(self.rate_limit), said
        return balance

    def balance(self, longest_wait_s: float = 0.0) -> Balance:
        """Make the account, as it is now."""
        accepted = self.engage.accepted
        events = set(self.published)
        times = Counter(map(_event_of, accepted))
        dead_lettered = Counter(
            event for dead_letter in self.books.dead_letters if (event := _event_of_dead_letter(dead_letter))
        )
        # A dead letter in doubt: it may have been accepted before, which is why a person is asked.
        unknown = {
            _event_of_dead_letter(each) for each in self.books.dead_letters if each.reason is Reason.OUTCOME_UNKNOWN
        }
        twice = doubled(accepted)
        resends = self.books.resends
        outside = {each: more - resends[each] for each, more in twice.items() if more > resends[each]}
        accepted_at = sorted(each.accepted_at for each in accepted)
        nexts = [began for began, _ in self.faults[1:]] + [inf]
        recovered = [recovery_s(accepted_at, *each, until) for each, until in zip(self.faults, nexts, strict=False)]
        return Balance(
            events=len(self.published),
            accepted=len(times.keys() & events),
            dead_letters=Counter(dead_letter.reason for dead_letter in self.books.dead_letters),
            lost=sorted(events - times.keys() - dead_lettered.keys(), key=str),
            ended_twice=sorted(
                [each for each in times.keys() & dead_lettered.keys() if each not in unknown]
                + [each for each, count in dead_lettered.items() if count > 1],
                key=str,
            ),
            doubled_in_doubt=twice.total() - sum(outside.values()),
            doubled_outside_doubt=outside,
            resends=resends.total(),
            out_of_order=_out_of_order(accepted),
            unasked=len(times.keys() - events),
            max_leaving_in_a_second=self._max_leaving_in_a_second(),
            max_arriving_in_a_second=self.engage.max_in_a_second(API_KEY),
            rate_limit=self.rate_limit,
            faults=len(self.faults),
            recovery_s=[seconds for seconds in recovered if seconds is not None],
            longest_wait_s=longest_wait_s,
        )

    @property
    def _sent(self) -> Path:
        """When each request left: see tests/chaos/relay.py."""
        return self.directory / f"{self.sandbox.topics.source}.sent"

    def _max_leaving_in_a_second(self) -> int:
        """Return the most requests in any sliding second, by all instances."""
        times = array("d", self._sent.read_bytes())
        counted = SlidingSecond()
        for moment in sorted(times):
            counted.add(moment)
        return counted.most

    def stop_all(self) -> None:
        """Stop every relay that runs, by the rules."""
        for relay in self.relays:
            if relay.running:
                relay.wait_until_started()  # before, nothing of ours takes the signal: it ends by it, at once
                assert relay.stop() == 0, relay.last_words

    def close(self) -> None:
        """End everything."""
        self._closing.close()


StageFactory = Callable[..., Stage]


@contextmanager
def staged(
    sandbox: Sandbox,
    directory: Path,
    *,
    rate_limit: int = 200,
    engage: EngageOptions | None = None,
    **sections: Mapping[str, object],
) -> Iterator[Stage]:
    """Open a stage at a place. `rate_limit`: requests per second; `sections` are every relay's."""
    chosen: EngageOptions = {"seed": 1, "processing": "uniform:0s..300ms", **(engage or {})}
    with EngageProcess(**chosen) as process, Books(sandbox) as books:
        stage = Stage(sandbox, directory, process, books, rate_limit, sections)
        try:
            yield stage
        finally:
            stage.close()


def looked_after(relay: RelayProcess, start: Callable[[], RelayProcess]) -> RelayProcess:
    """Return the relay, or another in its place: one that ended itself is started again, as Kubernetes would.

    librdkafka's send_offsets_to_transaction takes no notice of its time-out where the coordinator goes while it is
    waited for, and may never return (its issue 5511). The watchdog then ends the process.
    """
    if relay.running:
        return relay
    assert relay.said("failed"), relay.last_words
    return start()


def _event_of(action: AcceptedAction) -> Event:
    return action.order_id, number_of(action.data)


def _event_of_dead_letter(dead_letter: DeadLetter) -> Event | None:
    with suppress(ValueError):
        body = json.loads(dead_letter.value or b"")
        if isinstance(body, dict):
            return str(body.get("orderId")), number_of(body.get("data"))
    return None


def _out_of_order(accepted: Sequence[AcceptedAction]) -> list[str]:
    latest: dict[str, int] = {}
    wrong = []
    for each in accepted:
        number = int(str(number_of(each.data)))
        if number < latest.get(each.order_id, 0):
            wrong.append(each.order_id)
        latest[each.order_id] = max(number, latest.get(each.order_id, 0))
    return wrong
