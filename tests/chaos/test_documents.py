"""Order documents keep their order, while Engage is slow and instances come, go, are killed and freeze.

Each order's versions are published back to back, and few orders are open at a time. Engage takes its time for each
document. So some are under way at every moment, with newer ones of their orders pending behind them. When an instance
is lost, Engage works on what is under way until another instance has had the partitions for seconds, and is quick with
what comes then: a relay that sent the next document too early would put the older one over it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.chaos.progress import Probe
from tests.support.books import Books
from tests.support.engage import Asked, Reply, ScriptedEngage
from tests.support.events import event, number_of, order_id, publish
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory

PARTITIONS = 6
VERSIONS = (1, 2, 3, 4)  # of each order's document
SESSION_S = 6.0
KAFKA = {"session.timeout.ms": int(SESSION_S * 1000), "heartbeat.interval.ms": 300}
TIMEOUT_S = 6.0
# The relay takes Engage to be at work for 2 * TIMEOUT_S after it lost the answer, or the instance that waited for it.
# The rate limit is used up, so some documents wait for it under a committed record: what freezes must not send them.
CONNECTION = {"requests_per_second": 20, "timeout": f"{TIMEOUT_S:g}s"}
LIMITS = {"pending": 24}
SLOW_S = (1.0, 2.5)
QUICK_S = 0.02
# Engage works on what is under way when an instance is lost for so long. Another one has the partitions SESSION_S after
# the loss, and sends a document again 2 * TIMEOUT_S after that.
WORKS_ON_S = SESSION_S + 9.0
WORKS_S = 3 * TIMEOUT_S - 1.0  # on any document, at the longest
WORKS_ON_AT_LEAVE_S = 2.0  # where an instance leaves: it waits for the answers
FREEZES_S = SESSION_S + 2 * TIMEOUT_S + 10.0  # until another instance has sent newer documents of its orders
MIN_UNDER_WAY = 6  # before something happens
MOST_AT_ONCE = 4
STUCK_S = 90.0
LONG_MOVES = ("lose", "lose", "come", "go")


class SlowEngage:
    """Applies a document when its answer is due, whoever still waits for it. It does not know which one is newer."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._changed = threading.Condition()
        self._due: dict[int, tuple[float, float]] = {}  # when each document under way came, and is to be answered
        self._documents = 0
        self._quick_until = 0.0
        self.applied: dict[str, list[int]] = {}
        self.accepted: list[tuple[str, object]] = []
        self.answers: Counter[str] = Counter()

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.endswith("/action"):
            with self._changed:
                self.accepted.append((asked.path.split("/")[-2], number_of(json.loads(asked.body)["data"])))
            return Reply(202, {})
        if asked.method == "GET":
            return Reply(200, {"status": "Completed", "versionTag": asked.path.rsplit("/", 1)[1]})
        document = json.loads(asked.body)
        if asked.method == "POST" and self._exists(document):
            return Reply(409, {"errors": ["exists"]})
        with self._works():
            return self._document(asked.method, document)

    def _exists(self, document: dict[str, object]) -> bool:
        with self._changed:
            exists = str(document["orderId"]) in self.applied
            self.answers["409"] += exists
            return exists

    @contextmanager
    def _works(self) -> Iterator[None]:
        """Work on a document, for a time that may become longer meanwhile."""
        with self._changed:
            self._documents += 1
            number, now = self._documents, time.monotonic()
            takes_s = QUICK_S if now < self._quick_until else self._draw.uniform(*SLOW_S)
            self._due[number] = now, now + takes_s
            while (left_s := self._due[number][1] - time.monotonic()) > 0:
                self._changed.wait(left_s)
            yield
            del self._due[number]

    def _document(self, method: str, document: dict[str, object]) -> Reply:
        order, version = str(document["orderId"]), int(str(document["version"]))
        if method == "POST" and self._exists(document):  # another one was quicker
            return Reply(409, {"errors": ["exists"]})
        self.answers["202"] += 1
        self.applied.setdefault(order, []).append(version)
        action = document.get("orderAction")
        if isinstance(action, dict):
            self.accepted.append((order, number_of(action["data"])))
        return Reply(202, {"jobId": f"{order}.{version}"})

    def be_slow(self, seconds: float, then_quick_s: float) -> None:
        """Work on what is under way for so much longer, and be quick with what comes in the next `then_quick_s`."""
        with self._changed:
            now = time.monotonic()
            for number, (came, _) in self._due.items():
                self._due[number] = came, min(now + seconds, came + WORKS_S)
            self._quick_until = now + then_quick_s
            self._changed.notify_all()

    def under_way(self) -> int:
        with self._changed:
            return len(self._due)

    def progress(self) -> tuple[int, int]:
        with self._changed:
            return len(self.accepted), self.answers["202"]

    def went_back(self) -> dict[str, list[int]]:
        """Return the orders that an older document was put over."""
        return {name: each for name, each in self.applied.items() if any(a > b for a, b in pairwise(each))}

    def applied_twice(self) -> int:
        return sum(len(each) - len(set(each)) for each in self.applied.values())


class Instances:
    """Instances of the relay, and what happens to them. Each thing needs documents under way."""

    def __init__(self, directory: Path, file: Path, engage: SlowEngage) -> None:
        self._directory = directory
        self._file = file
        self._engage = engage
        self._frozen: tuple[RelayProcess, float] | None = None
        self._leaving: list[RelayProcess] = []
        self._quiet_until = 0.0
        self.all: list[RelayProcess] = []
        self.running: list[RelayProcess] = []
        self.moves: Counter[str] = Counter()

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            self.all.append(RelayProcess(self._directory, self._file, "--from", "earliest", impatient=True))
            self.running.append(self.all[-1])

    def move(self, kind: str, draw: random.Random) -> bool:
        """Let this happen, if it can now. Tell whether it did."""
        self._thaw()
        owning = [each for each in self.running if each.partitions]
        all_owned = sum(each.partitions for each in owning) == PARTITIONS
        if self._frozen is not None or time.monotonic() < self._quiet_until or not all_owned:
            return False
        if len(owning) < 3 or self._engage.under_way() < MIN_UNDER_WAY:
            if len(self.running) < 3:
                self.start()
            return False
        self.moves[kind] += 1
        chosen = draw.sample(owning, 2)
        match kind:
            case "lose":
                self._lose(*chosen)
            case "go":
                self._engage.be_slow(WORKS_ON_AT_LEAVE_S, 4 * WORKS_ON_AT_LEAVE_S)
                self.running.remove(chosen[0])
                chosen[0].terminate()
                self._leaving.append(chosen[0])
                self._quiet_until = time.monotonic() + 4 * WORKS_ON_AT_LEAVE_S
            case "come" if len(self.running) < MOST_AT_ONCE:
                self.start()
                self._quiet_until = time.monotonic() + 2 * SESSION_S
        return True

    def _lose(self, killed: RelayProcess, frozen: RelayProcess) -> None:
        """Kill one, and freeze another one until its partitions have been others' for long."""
        self._engage.be_slow(WORKS_ON_S, FREEZES_S)
        killed.kill()
        frozen.freeze()
        self.running.remove(killed)
        self._frozen = frozen, time.monotonic() + FREEZES_S
        self.running.remove(frozen)
        if not any(each.partitions for each in self.running):
            self.start()

    def _thaw(self, *, at_once: bool = False) -> None:
        if self._frozen is not None and (at_once or time.monotonic() >= self._frozen[1]):
            self._frozen[0].thaw()
            self.running.append(self._frozen[0])
            self._frozen = None
            self._quiet_until = time.monotonic() + SESSION_S

    @property
    def at_rest(self) -> bool:
        """Whether nobody is frozen any more, and what woke up had its time."""
        self._thaw()
        return self._frozen is None and time.monotonic() >= self._quiet_until

    def stop(self) -> None:
        for each in self._leaving:
            assert each.wait() == 0, each.text[-4000:]
        for each in self.running:
            assert each.stop() == 0, each.text[-4000:]

    def end(self) -> None:
        self._thaw(at_once=True)
        for each in self.all:
            each.__exit__(None, None, None)


@dataclass(frozen=True)
class Played:
    engage: SlowEngage
    moves: Counter[str]
    orders: list[str]
    seconds: float

    def figures(self, figures: Figures) -> None:
        figures(
            orders=len(self.orders),
            documents=self.engage.answers["202"],
            applied_twice=self.engage.applied_twice(),
            orders_that_went_back=len(self.engage.went_back()),
            moves=", ".join(f"{count} {move}" for move, count in sorted(self.moves.items())),
            seconds=f"{self.seconds:.0f}",
        )


def play(
    sandbox: Sandbox, directory: Path, orders: int, moves: Iterable[str], send: str = "by_itself", seed: int = 31
) -> Played:
    """Publish every version of each order, let these things happen meanwhile, and wait until all is delivered."""
    engage, draw, coming = SlowEngage(seed), random.Random(seed), iter(moves)
    names = [order_id(number) for number in range(orders)]
    events = [
        (name, event(name, version, order={"orderId": name, "version": version}))
        for name in names
        for version in VERSIONS
    ]
    route = {"when": "orderId", "action": "ConfirmOrder", "order_id": "orderId", "order": "order", "data": "data"}
    with ScriptedEngage(engage) as server, Books(sandbox) as books:
        configured = configuration(
            sandbox,
            server.url,
            kafka=KAFKA,
            connection=CONNECTION,
            limits=LIMITS,
            routes={"all": {**route, "send": send}},
        )
        publish(sandbox, events)
        instances = Instances(directory, written(directory, configured), engage)
        try:
            instances.start(3)
            began, probe, next_move = time.monotonic(), Probe(STUCK_S), next(coming, None)
            while not (books.settled() and instances.at_rest):
                wrong = probe.see(engage.progress(), len(server.asked), time.monotonic())
                assert wrong is None, f"{wrong}\n{instances.running[-1].text[-4000:]}"
                if next_move is not None and instances.move(next_move, draw):
                    next_move = next(coming, None)
                time.sleep(0.02)
            seconds = time.monotonic() - began
            instances.stop()
            assert not books.dead_letters
        finally:
            instances.end()
    return Played(engage, instances.moves, names, seconds)


def delivered(played: Played) -> set[tuple[str, object]]:
    return {(name, version) for name in played.orders for version in VERSIONS}


@pytest.mark.parametrize("send", ["by_itself", "with_document"])
def test_no_order_goes_back_to_an_older_document(
    send: str, sandboxes: SandboxFactory, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    if scale is Scale.SHORT and send == "with_document":
        pytest.skip("the long form plays it: make chaos")
    orders = scale.of(40, 1000)
    moves = ["lose"] if scale is Scale.SHORT else random.Random(31).choices(LONG_MOVES, k=orders)
    played = play(sandboxes(partitions=PARTITIONS), tmp_path, orders, moves, send)
    played.figures(figures)

    assert played.engage.went_back() == {}
    assert {applied[-1] for applied in played.engage.applied.values()} == {VERSIONS[-1]}
    assert set(played.engage.accepted) == delivered(played)
    assert played.moves["lose"] > 0


def test_a_hand_over_waits_for_the_documents_under_way(
    sandboxes: SandboxFactory, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    """So none of them is sent twice: its answer is there before another instance has its partition."""
    orders = scale.of(40, 300)
    played = play(sandboxes(partitions=PARTITIONS), tmp_path, orders, ["go", "come"] * scale.of(1, 150))
    played.figures(figures)

    assert played.engage.went_back() == {}
    assert played.engage.applied_twice() == 0
    assert sorted(played.engage.accepted, key=str) == sorted(delivered(played), key=str)
    assert played.moves["go"] > 0
