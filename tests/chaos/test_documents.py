"""Order documents keep their order, while Engage is slow and instances come, go, are killed and freeze."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tests.chaos.progress import Probe
from tests.support.books import Books
from tests.support.engage import Asked, Reply, ScriptedEngage
from tests.support.events import event, number_of, order_id, publish
from tests.support.figures import Figures, Scale
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import SandboxFactory

PARTITIONS = 6
VERSIONS = (1, 2, 3)  # of each order's document
SLOW_SHARE, SLOW_S = 0.3, (0.05, 6.0)  # of the answers to documents
SESSION_S = 6.0
FREEZES_S = SESSION_S + 3.0  # for longer than the session, and the answers that it waits for
KAFKA = {"session.timeout.ms": int(SESSION_S * 1000), "heartbeat.interval.ms": 300}
CONNECTION = {"requests_per_second": 100, "timeout": "7s"}  # in 7 s every answer is there
MOVE_EVERY_S = 2.0
STUCK_S = 90.0
MOST_AT_ONCE = 4
MOVES = ("come", "go", "freeze", "kill")


class SlowEngage:
    """Applies a document when its answer is due, however long ago it came. It does not know which one is newer."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        self.versions: dict[str, list[int]] = {}
        self.accepted: list[tuple[str, object]] = []
        self.answers: Counter[str] = Counter()

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.endswith("/action"):
            with self._lock:
                self.accepted.append((asked.path.split("/")[-2], number_of(json.loads(asked.body)["data"])))
            return Reply(202, {})
        if asked.method == "GET":
            return Reply(200, {"status": "Completed", "versionTag": asked.path.rsplit("/", 1)[1]})
        with self._lock:
            is_slow = self._draw.random() < SLOW_SHARE
            takes_s = self._draw.uniform(*SLOW_S) if is_slow else 0.02
        time.sleep(takes_s)
        return self._document(asked, json.loads(asked.body))

    def _document(self, asked: Asked, document: dict[str, object]) -> Reply:
        order, version = str(document["orderId"]), int(str(document["version"]))
        with self._lock:
            versions = self.versions.setdefault(order, [])
            if asked.method == "POST" and versions:
                self.answers["409"] += 1
                return Reply(409, {"errors": ["exists"]})
            self.answers["202"] += 1
            versions.append(version)
        return Reply(202, {"jobId": f"{order}.{version}"})


class Instances:
    """They come, go, are killed and freeze, one after another; two at the least are awake."""

    def __init__(self, directory: Path, file: Path, seed: int) -> None:
        self._directory = directory
        self._file = file
        self._draw = random.Random(seed)
        self._frozen: tuple[RelayProcess, float] | None = None
        self._leaving: list[RelayProcess] = []
        self.all: list[RelayProcess] = []
        self.running: list[RelayProcess] = []
        self.moves: Counter[str] = Counter()
        self.come()
        self.come()

    def come(self) -> None:
        self.moves["come"] += 1
        self.all.append(RelayProcess(self._directory, self._file, "--from", "earliest", impatient=True))
        self.running.append(self.all[-1])

    def move(self) -> None:
        """Let one thing happen, unless one is frozen."""
        if self._frozen is not None:
            return
        awake = [each for each in self.running if each.partitions]
        move = self._draw.choice(MOVES) if self.moves["freeze"] else "freeze"
        if len(self.running) < 3 or (move == "come" and len(self.running) < MOST_AT_ONCE):
            self.come()
            return
        if len(awake) < 2:
            return
        self.moves[move] += move != "come"
        chosen = self._draw.choice(awake)
        match move:
            case "freeze":
                chosen.freeze()
                self._frozen = chosen, time.monotonic() + FREEZES_S
            case "go":
                self.running.remove(chosen)
                chosen.terminate()
                self._leaving.append(chosen)
            case "kill":
                self.running.remove(chosen)
                chosen.kill()

    def thaw(self, *, at_once: bool = False) -> None:
        """Let the frozen one continue, when its time has come."""
        if self._frozen is not None and (at_once or time.monotonic() >= self._frozen[1]):
            self._frozen[0].thaw()
            self._frozen = None

    def stop(self) -> None:
        for each in self._leaving:
            assert each.wait() == 0, each.text[-4000:]
        for each in self.running:
            assert each.stop() == 0, each.text[-4000:]

    def end(self) -> None:
        for each in self.all:
            each.__exit__(None, None, None)


def test_no_order_goes_back_to_an_older_document(
    sandboxes: SandboxFactory, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    sandbox, orders, most_moves, seed = sandboxes(partitions=PARTITIONS), scale.of(60, 1000), scale.of(6, 1000), 31
    engage = SlowEngage(seed)
    names = [order_id(number) for number in range(orders)]
    events = [
        (name, event(name, version, order={"orderId": name, "version": version}))
        for version in VERSIONS
        for name in names
    ]
    with ScriptedEngage(engage) as server, Books(sandbox) as books:
        file = written(tmp_path, configuration(sandbox, server.url, kafka=KAFKA, connection=CONNECTION))
        publish(sandbox, events)
        instances = Instances(tmp_path, file, seed)
        try:
            began, probe, next_move = time.monotonic(), Probe(STUCK_S), 0.0
            while not books.settled():
                now = time.monotonic()
                instances.thaw()
                wrong = probe.see((len(engage.accepted), tuple(engage.answers.items())), len(server.asked), now)
                assert wrong is None, f"{wrong}\n{instances.running[-1].text[-4000:]}"
                if now >= next_move and instances.moves.total() < most_moves:
                    instances.move()
                    next_move = now + MOVE_EVERY_S
                time.sleep(0.05)
            seconds = time.monotonic() - began
            instances.thaw(at_once=True)
            instances.stop()
            assert not books.dead_letters
        finally:
            instances.thaw(at_once=True)
            instances.end()

    back = [name for name, applied in engage.versions.items() if any(a > b for a, b in pairwise(applied))]
    assert back == [], {name: engage.versions[name] for name in back[:5]}
    assert {applied[-1] for applied in engage.versions.values()} == {VERSIONS[-1]}
    assert set(engage.accepted) == {(name, version) for name in names for version in VERSIONS}
    assert instances.moves["freeze"] > 0
    assert engage.answers["409"] > orders
    figures(
        orders=orders,
        documents=engage.answers["202"],
        orders_that_went_back=len(back),
        instances=", ".join(f"{count} {move}" for move, count in sorted(instances.moves.items())),
        seconds=f"{seconds:.0f}",
    )
