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
from collections.abc import Iterator
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
LIMITS = {"pending": 24}
QUICK_S = 0.02
MIN_UNDER_WAY = 3  # documents that replace an order, before something happens
MOST_AT_ONCE = 4
LEAVES_S = 2.0  # Engage's work on what is under way when an instance leaves: the hand-over waits for it
STUCK_S = 90.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What happens to instances, and how quick Engage and the relay are. Times in seconds.

    The relay takes Engage to be at work on a document for twice its `timeout` after it lost the answer, or the instance
    that waited for it. Another instance has the partitions SESSION_S after the loss.
    """

    moves: tuple[str, ...]
    timeout_s: float
    slow_s: tuple[float, float]  # Engage, at a document
    works_on_s: float | None = None  # at what is under way when an instance is lost
    quick_s: float = 0.0  # for so long it is quick then
    freezes_s: float = 0.0
    requests_per_second: int = 200

    @property
    def most_s(self) -> float:
        """How long Engage works on any document at the most: the time-out, and twice that, and a bit less."""
        return 3 * self.timeout_s - 1.0


# What is under way is applied when another instance has had the partitions for seconds.
KILLED = Scene(moves=("kill",), timeout_s=6.0, slow_s=(1.0, 2.5), works_on_s=SESSION_S + 9.0, quick_s=SESSION_S + 9.0)
# The rate limit is used up, so documents wait for it under a committed record. When the instance wakes up, another one
# has sent newer ones.
FROZEN = Scene(
    moves=("freeze",), timeout_s=2.0, slow_s=(0.5, 1.5), freezes_s=SESSION_S + 12.0, quick_s=SESSION_S + 12.0,
    requests_per_second=20,
)  # fmt: skip
LEAVING = Scene(moves=("go", "come"), timeout_s=4.0, slow_s=(1.0, 2.0))


class SlowEngage:
    """Applies a document when its answer is due, whoever still waits for it. It does not know which one is newer."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._draw = random.Random(seed)
        self._changed = threading.Condition()
        self._due: dict[int, tuple[float, float]] = {}  # when each document under way came, and is to be answered
        self._documents = 0
        self._replacing = 0
        self._quick_until = 0.0
        self.asked: dict[str, list[int]] = {}  # the versions that came, in this order, whatever became of them
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
        with self._changed:
            self.asked.setdefault(str(document["orderId"]), []).append(int(document["version"]))
        if asked.method == "POST" and self._exists(document):
            return Reply(409, {"errors": ["exists"]})
        with self._works(replaces=asked.method == "PUT"):
            return self._document(asked.method, document)

    def _exists(self, document: dict[str, object]) -> bool:
        with self._changed:
            exists = str(document["orderId"]) in self.applied
            self.answers["409"] += exists
            return exists

    @contextmanager
    def _works(self, *, replaces: bool) -> Iterator[None]:
        """Work on a document, for a time that may become longer meanwhile."""
        with self._changed:
            self._documents += 1
            number, now = self._documents, time.monotonic()
            takes_s = QUICK_S if now < self._quick_until else self._draw.uniform(*self._scene.slow_s)
            self._due[number] = now, now + takes_s
            self._replacing += replaces
            while (left_s := self._due[number][1] - time.monotonic()) > 0:
                self._changed.wait(left_s)
            yield
            self._replacing -= replaces
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

    def be_slow(self, seconds: float | None, then_quick_s: float) -> None:
        """Work on what is under way for so much longer, and be quick with what comes in the next `then_quick_s`."""
        with self._changed:
            now = time.monotonic()
            self._quick_until = now + then_quick_s
            if seconds is not None:
                for number, (came, _) in self._due.items():
                    self._due[number] = came, min(now + seconds, came + self._scene.most_s)
            self._changed.notify_all()

    def under_way(self) -> int:
        """Return how many documents are under way that replace an order."""
        with self._changed:
            return self._replacing

    def progress(self) -> tuple[int, int]:
        with self._changed:
            return len(self.accepted), self.answers["202"]

    def went_back(self) -> dict[str, list[int]]:
        """Return the orders that an older document was put over, or was sent for after a newer one."""
        found = ((name, each) for versions in (self.applied, self.asked) for name, each in versions.items())
        return {name: each for name, each in found if any(a > b for a, b in pairwise(each))}

    def applied_twice(self) -> int:
        return sum(len(each) - len(set(each)) for each in self.applied.values())


class Instances:
    """Instances of the relay, and what happens to them. Each thing needs documents under way."""

    def __init__(self, directory: Path, file: Path, scene: Scene, engage: SlowEngage) -> None:
        self._scene = scene
        self._directory = directory
        self._file = file
        self._engage = engage
        self._frozen: list[RelayProcess] = []
        self._frozen_until = 0.0
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
        if self._frozen or time.monotonic() < self._quiet_until or not all_owned:
            return False
        if len(owning) < 3 or self._engage.under_way() < MIN_UNDER_WAY:
            if len(self.running) < 3:
                self.start()
            return False
        self.moves[kind] += 1
        chosen, scene = draw.choice(owning), self._scene
        match kind:
            case "kill":
                self._engage.be_slow(scene.works_on_s, scene.quick_s)
                chosen.kill()
                self.running.remove(chosen)
                self._quiet_until = time.monotonic() + scene.quick_s
            case "freeze":
                self._engage.be_slow(scene.works_on_s, scene.quick_s)
                self._frozen = draw.sample(owning, len(owning) - 1)
                self._frozen_until = time.monotonic() + scene.freezes_s
                for each in self._frozen:
                    each.freeze()
                    self.running.remove(each)
            case "go":
                self._engage.be_slow(LEAVES_S, 2 * LEAVES_S)
                chosen.terminate()
                self.running.remove(chosen)
                self._leaving.append(chosen)
                self._quiet_until = time.monotonic() + 2 * LEAVES_S
            case "come" if len(self.running) < MOST_AT_ONCE:
                self.start()
                self._quiet_until = time.monotonic() + SESSION_S
        return True

    def _thaw(self, *, at_once: bool = False) -> None:
        if self._frozen and (at_once or time.monotonic() >= self._frozen_until):
            for each in self._frozen:
                each.thaw()
            self.running += self._frozen
            self._frozen = []
            self._quiet_until = time.monotonic() + 3.0  # in which they learn what they lost

    @property
    def at_rest(self) -> bool:
        """Whether nobody is frozen any more, and what woke up had its time."""
        self._thaw()
        return not self._frozen and time.monotonic() >= self._quiet_until

    def stop(self) -> None:
        for each in self._leaving:
            assert each.wait() == 0, each.last_words
        for each in self.running:
            assert each.wait_until_ready().stop() == 0, each.last_words

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
    sandbox: Sandbox, directory: Path, scene: Scene, *, orders: int, moves: int, send: str = "by_itself", seed: int = 31
) -> Played:
    """Publish every version of each order, let these things happen meanwhile, and wait until all is delivered."""
    engage, draw = SlowEngage(scene, seed), random.Random(seed)
    coming = iter(scene.moves * moves)
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
            connection={"requests_per_second": scene.requests_per_second, "timeout": f"{scene.timeout_s:g}s"},
            limits=LIMITS,
            routes={"all": {**route, "send": send}},
        )
        publish(sandbox, events)
        instances = Instances(directory, written(directory, configured), scene, engage)
        try:
            instances.start(3)
            began, probe, next_move = time.monotonic(), Probe(STUCK_S), next(coming, None)
            while not (books.settled() and instances.at_rest):
                wrong = probe.see(engage.progress(), len(server.asked), time.monotonic())
                assert wrong is None, f"{wrong}\n{instances.running[-1].last_words}"
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("scene", "send"),
    [
        pytest.param(KILLED, "by_itself", id="killed"),
        pytest.param(KILLED, "with_document", id="killed, with_document"),
        pytest.param(FROZEN, "by_itself", id="frozen"),
    ],
)
def test_no_order_goes_back_to_an_older_document(
    scene: Scene, send: str, sandboxes: SandboxFactory, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    if scale is Scale.SHORT and (scene is FROZEN or send == "with_document"):
        pytest.skip("the long form plays it: make chaos")
    orders, moves = scale.of(24, 1000), scale.of(1, 1000)
    played = play(sandboxes(partitions=PARTITIONS), tmp_path, scene, orders=orders, moves=moves, send=send)
    played.figures(figures)

    assert played.engage.went_back() == {}
    assert {applied[-1] for applied in played.engage.applied.values()} == {VERSIONS[-1]}
    assert set(played.engage.accepted) == delivered(played)
    assert played.moves.total() > 0


@pytest.mark.long
def test_a_hand_over_waits_for_the_documents_under_way(
    sandboxes: SandboxFactory, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    """So none of them is sent twice: its answer is there before another instance has its partition."""
    orders, moves = scale.of(24, 300), scale.of(1, 300)
    played = play(sandboxes(partitions=PARTITIONS), tmp_path, LEAVING, orders=orders, moves=moves)
    played.figures(figures)

    assert played.engage.went_back() == {}
    assert played.engage.applied_twice() == 0
    assert sorted(played.engage.accepted, key=str) == sorted(delivered(played), key=str)
    assert played.moves["go"] > 0
