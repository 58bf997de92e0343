"""The whole relay under test: Engage beside it, the relay in this process or in one of its own, and Kafka's books.

Who claims that nothing was lost or doubled is judged by two witnesses, neither of them the relay: Engage's account
(what was accepted, in which order) and the topics as a restart would read them (`Books`).
Rules:
 1. Nothing sleeps: a test waits `until` something is seen, with a patience that a busy machine does not exhaust.
 2. Chance is seeded. A moment "in the middle" is a count of accepted actions, not a time.
 3. A relay process whose log holds a secret or personal data fails the test that ran it, whatever the test is about.

Run as a program (`python -m tests.support.relay run ...`) it is the command line with short waits between retries.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Self, TypedDict, TypeVar, Unpack
from zlib import crc32

import uvloop
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from prometheus_client import CollectorRegistry

from consumer import run as running
from consumer.admin.server import Heartbeats
from consumer.commands import cli
from consumer.core.clock import steady_clock
from consumer.core.ledger import Policy
from consumer.core.pacing import Pace, PollSchedule
from consumer.engage.client import EngageClient
from consumer.events.routing import BUILT_IN_ROUTES, Router, RouteRule, compile_routes
from consumer.kafka import clients
from consumer.kafka.initial_offsets import settle_start
from consumer.kafka.topics import committed_offsets, watermarks
from consumer.relay.loop import Connection, Relay, ahead_of, slots_of
from consumer.simulator import Moods, Simulator, SimulatorOptions
from consumer.simulator.account import AcceptedAction
from consumer.simulator.world import Fate, UnknownOrders
from consumer.telemetry.metrics import Metrics
from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.pending_action import POSITION_KEY, PendingAction
from tests.broker.conftest import Place
from tests.support.broker import PORTS

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0  # for what takes a second or two on an idle machine
API_KEY = "key-that-must-never-be-logged-4711"
CUSTOMER = "kim.exempel@example.com"  # in every event's data: personal, like the order's id
SECRET_ID = "ORDER-OF-A-PERSON"  # every order id begins with it
IMPATIENT = PollSchedule(initial_s=0.05, max_interval_s=0.3, backoff_s=(0.1, 0.2))
QUICK = Policy(schedule=IMPATIENT, deadline_s=120.0, not_found_grace_s=1.0)
TYPES = ("order.confirmed", "order.shipped", "order.delivered", "order.completed")
T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
HOUR_AGO_MS = int(time.time() - 3600) * 1000
_deaths: list[BaseException] = []  # what ended relays of this process that nobody asked to stop


def until(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        if _deaths:
            raise AssertionError(f"the relay ended while waiting: {what}") from _deaths.pop()
        assert time.monotonic() < deadline, f"still waiting after {patience_s:g} s: {what}"
        time.sleep(0.02)
    return answer


# Events


def order_id(number: int | str) -> str:
    return f"{SECRET_ID}-{number}"


def event(order: str, number: int = 1, /, *, kind: str | None = None, **more: object) -> bytes:
    """Return a canonical event; `number` is which one of its order's it is, and arrives at Engage in its data."""
    body: dict[str, object] = {
        "type": kind or TYPES[(number - 1) % len(TYPES)],
        "orderId": order,
        "data": {"event": number, "email": CUSTOMER},
        **more,
    }
    return json.dumps(body, ensure_ascii=False).encode()


def partition_of(order: str, partitions: int) -> int:
    """Say where an order's events lie: all in one partition."""
    return crc32(order.encode()) % partitions


def publish(place: Place, events: Iterable[tuple[str, bytes]]) -> None:
    """Put events on the source, each keyed by its order and in its order's partition."""
    by_partition: defaultdict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
    for order, value in events:
        by_partition[partition_of(order, place.partitions)].append((order.encode(), value))
    for partition, records in by_partition.items():
        place.write(place.topics.source, records, partition)


@dataclass(frozen=True)
class Raw:
    """A record as somebody put it on the source."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = HOUR_AGO_MS  # older ones the topic's retention may take away


def publish_raw(place: Place, records: Sequence[Raw], partition: int = 0) -> None:
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({**clients.base(place.properties), "linger.ms": 0}, logger=clients.LOGGER)
    for each in records:
        producer.produce(
            place.topics.source,
            each.value,
            each.key,
            partition,
            on_delivery=delivered,
            timestamp=each.timestamp_ms,
            headers=list(each.headers),
        )
    assert producer.flush(PATIENCE_S) == 0
    assert failed == []


# Engage


class EngageOptions(TypedDict, total=False):
    """Those of SimulatorOptions that tests choose."""

    seed: int
    processing: str
    failing: float
    stuck: float
    moods: Moods
    unknown_orders: UnknownOrders
    requests_per_second: int
    faults: tuple[str, ...]
    slow: str
    valid_keys: frozenset[str] | None


class Engage:
    """The simulator on a thread of its own; it may go down and come up again, at the same address with the same world.

    Processes at once, takes any key and has no limit, unless told otherwise.
    """

    def __init__(self, **options: Unpack[EngageOptions]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engage", daemon=True)
        self._thread.start()
        self._up = False
        defaults: EngageOptions = {"processing": "instant", "requests_per_second": 0}
        chosen: EngageOptions = {**defaults, **options}
        for port in random.sample(PORTS, 50):  # below the ephemeral ports: nobody takes it while we are down
            self._simulator = Simulator(SimulatorOptions(listen=f"127.0.0.1:{port}", **chosen))
            try:
                self.up()
            except OSError:
                continue
            break
        self.url = self._simulator.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def up(self) -> None:
        asyncio.run_coroutine_threadsafe(self._simulator.__aenter__(), self._loop).result(PATIENCE_S)
        self._up = True

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._up:
            self._up = False
            leaving = self._simulator.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leaving, self._loop).result(PATIENCE_S)

    def _on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE_S)

    def submit(
        self, order: str, *, contact: bool = True, takes_s: float | None = None, fate: Fate | None = None
    ) -> str:
        """Do what the commerce platform does before it publishes an event; returns the job's id."""
        return self._on_loop(lambda: self._simulator.submit_order(order, contact=contact, takes_s=takes_s, fate=fate))

    def tag(self, order: str) -> str:
        """Return the order's versionTag."""
        tag = self._on_loop(lambda: self._simulator.world.current_tag(order, time.time()))
        assert tag is not None
        return tag

    def set_faults(self, *faults: str) -> None:
        self._on_loop(lambda: self._simulator.api.set_faults(faults))

    def set_keys(self, *valid: str, forbidden: Sequence[str] = ()) -> None:
        """Take these keys only; none: any but the forbidden ones."""
        self._on_loop(lambda: self._simulator.api.set_keys(valid or None, forbidden))

    @property
    def accepted(self) -> list[AcceptedAction]:
        """Every action that was accepted, in that order."""
        return self._on_loop(lambda: list(self._simulator.world.account.accepted))

    def accepted_of(self, order: str) -> list[AcceptedAction]:
        return self._on_loop(lambda: self._simulator.world.account.of_order(order))

    def events_of(self, order: str) -> list[object]:
        """Return the numbers of the order's events in the order of their acceptance."""
        return [number_of(each.data) for each in self.accepted_of(order)]

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How often each call was answered how: `("action", "202")`."""
        return self._on_loop(lambda: Counter(self._simulator.world.account.requests))

    def actions_asked(self) -> int:
        """How often an action was sent, whatever became of it."""
        return sum(times for (call, _), times in self.requests.items() if call == "action")

    @property
    def faults(self) -> Counter[str]:
        """How often each fault befell a request."""
        return self._on_loop(lambda: Counter(self._simulator.world.account.faults))

    def most_in_a_second(self, key: str = API_KEY) -> int:
        return self._on_loop(lambda: self._simulator.world.account.most_in_a_second(key))


def number_of(data: object) -> object:
    """Return the event's number from an action's data."""
    return data.get("event") if isinstance(data, dict) else None


def doubled(accepted: Iterable[AcceptedAction]) -> Counter[tuple[str, object]]:
    """Return the events (order, number) that were accepted more than once, and how often too many."""
    times = Counter((each.order_id, number_of(each.data)) for each in accepted)
    return Counter({each: count - 1 for each, count in times.items() if count > 1})


@dataclass(frozen=True)
class Asked:
    """A request as it came, its headers' names in lower case."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """What is answered to it."""

    status: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


class LocalServer:
    """An HTTP server on this machine, on a thread of its own."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no news."""

        self._server = Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)


class ScriptedEngage(LocalServer):
    """Answers what the script says, and keeps every request's very line."""

    def __init__(self, script: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, body, headers)
                outer.asked.append(asked)
                reply = script(asked)
                body = b"" if reply.body is None else json.dumps(reply.body).encode()
                self.send_response_only(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Answering)

    def actions(self) -> list[Asked]:
        return [each for each in self.asked if each.path.endswith("/action")]


def tagged_order(asked: Asked) -> Reply:
    """Answer every question for an order or job with a tag, and take every action."""
    return Reply(202) if asked.method == "POST" else Reply(200, {"status": "Completed", "versionTag": "tag-1"})


# Kafka's books


@dataclass(frozen=True)
class Letter:
    """A dead letter: the original record, and why."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    why: DeadLetterHeaders

    @property
    def reason(self) -> Reason:
        return self.why.reason


class Books:
    """What a place's delay and dead-letter topics hold, read on from call to call. `history` is every delay record."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._reader = Consumer(clients.reader(place.properties), logger=clients.LOGGER)
        numbers = range(place.partitions)
        self._source = [(place.topics.source, n) for n in numbers]
        self._next = {(topic, n): 0 for topic in (place.topics.delay, place.topics.dead_letters) for n in numbers}
        for topic in (place.topics.delay, place.topics.dead_letters):
            self._reader.list_topics(topic, timeout=PATIENCE_S)  # else librdkafka looks for them once a second
        self._reader.assign([TopicPartition(*each, 0) for each in self._next])
        self.live: dict[tuple[int, bytes], PendingAction] = {}
        self.letters: list[Letter] = []
        self.history: defaultdict[tuple[int, bytes], list[PendingAction | None]] = defaultdict(list)
        self.most_live = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self) -> Self:
        """Read on to the present end, open transactions awaited."""
        ends = watermarks(self._place.admin, self._next)
        deadline = time.monotonic() + PATIENCE_S
        while any(self._next[each] < end for each, (_, end) in ends.items()):
            assert time.monotonic() < deadline, "the delay and dead-letter topics cannot be read to their end"
            for record in self._reader.consume(1000, 0.05):
                self._take(record)
        return self

    def _take(self, record: Message) -> None:
        at, error, offset = (record.topic() or "", record.partition() or 0), record.error(), record.offset() or 0
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._next[at] = max(self._next[at], offset)
            return
        self._next[at] = offset + 1
        key, value = record.key(), record.value()
        assert not isinstance(key, str)
        assert not isinstance(value, str)
        if at[0] == self._place.topics.dead_letters:
            self.letters.append(_letter(record, key, value))
        elif key is not None and key != POSITION_KEY:
            pending = None if value is None else PendingAction.model_validate_json(value)
            self.history[at[1], key].append(pending)
            if pending is None:
                self.live.pop((at[1], key), None)
            else:
                self.live[at[1], key] = pending
            self.most_live = max(self.most_live, len(self.live))

    def settled(self) -> bool:
        """Tell whether every event was taken and nothing is owed any more, as Kafka knows it."""
        ends = watermarks(self._place.admin, self._source)
        taken = self.taken()
        if any(taken.get(each, 0) < end for each, (_, end) in ends.items()):
            return False
        return not self.read().live

    def taken(self) -> dict[tuple[str, int], int]:
        """Return how far the group has come in the source. Raises KafkaException where Kafka does not answer."""
        return committed_offsets(self._reader, self._source)

    def wait_until_settled(self, patience_s: float = PATIENCE_S) -> Self:
        until(self.settled, "every event is taken and nothing is owed any more", patience_s)
        return self

    @property
    def intents(self) -> set[tuple[str, object]]:
        """The events (order, number) whose intent has no outcome now."""
        return {_event_of(each) for each in self.live.values() if each.state == "sending"}

    @property
    def resends(self) -> Counter[tuple[str, object]]:
        """How often each event (order, number) was sent again, with the same tag, while an earlier send was in doubt.

        (With another tag: after a 404, whose record the group commit may have left out.)
        """
        found: Counter[tuple[str, object]] = Counter()
        for records in self.history.values():
            for before, after in pairwise(records):
                if (
                    before
                    and after
                    and after.sends > before.sends
                    and _tag_sent(before) == _tag_sent(after) is not None
                ):
                    found[_event_of(after)] += after.sends - before.sends
        return found

    @property
    def resent(self) -> set[tuple[str, object]]:
        """The events of `resends`."""
        return set(self.resends)


def _tag_sent(pending: PendingAction) -> str | None:
    """Return the tag of an intent; None where it is none."""
    return pending.version_tag if pending.state == "sending" else None


def _event_of(pending: PendingAction) -> tuple[str, object]:
    return pending.routed.order_id, number_of(pending.routed.data)


def _letter(record: Message, key: bytes | None, value: bytes | None) -> Letter:
    headers = record.headers() or []
    assert not isinstance(headers, dict)
    pairs = [(name, raw.encode() if isinstance(raw, str) else raw) for name, raw in headers]
    return Letter(key, value, pairs, record.timestamp()[1], DeadLetterHeaders.from_kafka(pairs))


# The relay in this process


def _settled_start(place: Place) -> bool:
    try:
        settle_start(place.properties, [place.topics], "earliest")
    except KafkaException:  # the group's coordinator is not there yet; run waits for it, too
        return False
    return True


class RelayThread:
    """The Relay as consumer/run.py makes it, on a thread with an event loop of its own, and in a hurry."""

    def __init__(
        self,
        place: Place,
        engages: Mapping[str, str] | str,
        *,
        policy: Policy = QUICK,
        rules: Mapping[str, RouteRule] = BUILT_IN_ROUTES,
        loop_factory: LoopFactory = uvloop.new_event_loop,
        requests_per_second: float = 400.0,
        timeout_s: float = 20.0,
        most_pending: int = 100_000,
        api_key: Callable[[], str] = lambda: API_KEY,
    ) -> None:
        until(lambda: _settled_start(place), "the start is written down")
        urls = {"default": engages} if isinstance(engages, str) else engages
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        rate = requests_per_second

        def connection(name: str, url: str) -> Connection:
            client = EngageClient(
                base_url=url,
                api_key=api_key,
                user_agent="engage-relay/tests",
                timeout_s=timeout_s,
                on_request=partial(metrics.request, name),
            )
            return Connection(name, client, Pace(rate), api_key, slots_of(rate), ahead_of(rate))

        self._relay = Relay(
            properties=place.properties,
            topics=place.relay_topics,
            partition_counts={place.topics.source: place.partitions},
            transactional_id=place.transactional_id,
            connections=[connection(name, url) for name, url in urls.items()],
            router=Router(compile_routes(rules), urls),
            policy=policy,
            most_pending=most_pending,
            clock=steady_clock(),
            jitter=random.Random(1).random,
            metrics=metrics,
            heartbeats=Heartbeats(),
        )
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._running = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(loop_factory,), name="relay", daemon=True)

    def _run(self, loop_factory: LoopFactory) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(self._work())
        except Exception as error:  # noqa: BLE001 - raised where the test waits
            self._error = error
            _deaths.append(error)

    async def _work(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._running.set()
        await self._relay.run(self._stop)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._running.wait(PATIENCE_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        _deaths.clear()
        if kind is None and self._error is not None:
            raise self._error

    def wait_until_restored(self) -> Self:
        """Wait until it owns its partitions and consumes them."""
        until(lambda: self.metric("restore_duration_seconds_count"), "the relay has restored its partitions")
        return self

    def stop(self) -> None:
        """Stop as SIGTERM does, and wait for the end. Raises what ended it otherwise."""
        self._end()
        if self._error is not None:
            raise self._error

    def fail(self, error: Exception) -> None:
        """Have something end it."""
        self._relay.from_thread(self._relay.fail, error)

    def failure(self) -> BaseException:
        """Wait until it ends by itself; returns with what."""
        self._thread.join(PATIENCE_S)
        assert self._error is not None
        error, self._error = self._error, None
        _deaths.remove(error)
        return error

    def _end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive(), "the relay does not end"

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"engage_relay_{name}", labels) or 0.0


# The relay as a process


def configuration(place: Place, engage_url: str, **sections: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration for a place; `kafka`, `connection`, `limits` ... add to it."""
    connection = {"base_url": engage_url, "api_key": API_KEY, "requests_per_second": 400}
    return {
        "kafka": {**place.properties, **sections.pop("kafka", {})},
        "source": {"topics": [place.topics.source]},
        "engage": {"connections": {"default": {**connection, **sections.pop("connection", {})}}},
        "polling": {"initial": "50ms", "max_interval": "300ms", "not_found_grace": "1s"},
        "admin": {"listen": "127.0.0.1:0"},
        **sections,
    }


def written(directory: Path, configured: Mapping[str, object], name: str = "relay") -> Path:
    """Write a configuration file (JSON is YAML)."""
    file = directory / f"{name}.yaml"
    file.write_text(json.dumps(configured))
    return file


class RelayProcess:
    """`engage-relay run` as a process. Its log is JSON lines in a file; see rule 3."""

    def __init__(
        self,
        directory: Path,
        config: Path | None,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        impatient: bool = False,
        program: str | None = None,
    ) -> None:
        """`impatient`: waits between retries of a fraction of a second instead of 10 s and more (`program` decides)."""
        self._log = directory / f"relay-{random.randrange(1 << 32):08x}.log"
        module = program or ("tests.support.relay" if impatient else "consumer.cli")
        given = [] if config is None else ["--config", str(config)]
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "run", *given, *arguments],
                cwd=ROOT,
                env={**clean, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if error is not None:
            error.add_note(f"the relay's log:\n{self.text[-4000:]}")
        else:
            self.assert_discreet()

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def log(self) -> list[dict[str, object]]:
        """The log's lines."""
        lines = [line for line in self.text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
        return [json.loads(line) for line in lines]

    def assert_discreet(self) -> None:
        said = self.text
        for secret in (API_KEY, CUSTOMER, SECRET_ID):
            assert secret not in said, f"{secret} was logged"

    def said(self, line: str) -> list[dict[str, object]]:
        """Return the log's entries of this text."""
        return [each for each in self.log if each.get("event") == line]

    def _alive(self) -> None:
        assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.text[-4000:]}"

    @property
    def admin_port(self) -> int:
        def port() -> object:
            starts = self.said("engage-relay starts")
            if not starts:
                self._alive()
            return starts[0]["admin_port"] if starts else None

        return int(str(until(port, "the relay starts")))

    def get(self, path: str) -> tuple[int, str]:
        """Ask the admin server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> Self:
        def ready() -> bool:
            self._alive()
            return self.get("/readyz")[0] == 200

        until(ready, "the relay is ready")
        return self

    def metric(self, name: str) -> float:
        """Return the sum of a metric's series."""
        rows = (line.rsplit(" ", 1) for line in self.get("/metrics")[1].splitlines() if not line.startswith("#"))
        return sum(float(value) for series, value in rows if series.partition("{")[0] == f"engage_relay_{name}")

    @property
    def partitions(self) -> int:
        """How many it owns (it says so once a second); 0 while it starts."""
        return int(self.metric("partitions_owned")) if self.said("engage-relay starts") else 0

    def wait_until_owning(self, partitions: int) -> None:
        """Wait until it owns so many partitions (it says so once a second)."""
        until(lambda: self.metric("partitions_owned") == partitions, f"the relay owns {partitions} partitions")

    def _send(self, number: signal.Signals) -> None:
        self._alive()
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._send(signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def terminate(self) -> None:
        """Ask it to stop."""
        self._send(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to stop and wait for the end; returns the exit code."""
        self.terminate()
        return self.wait()

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the end; returns the exit code."""
        return self._process.wait(patience_s)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)


def main() -> None:
    """Be the command line, in a hurry."""
    vars(running)["PollSchedule"] = partial(PollSchedule, backoff_s=(0.5, 1.0))
    cli.main()


if __name__ == "__main__":
    main()
