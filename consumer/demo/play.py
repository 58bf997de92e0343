"""The demo's run: it publishes the events, waits until the relay has settled them, and makes the tally.

Progress goes to stderr (drawn on a terminal, plain lines elsewhere), the tally to stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import httpx
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.config.settings import Settings
from consumer.demo import stage
from consumer.demo.engage import AccountFigures, Engage, engage_at, simulator_options
from consumer.demo.figures import RelayFigures, read_figures
from consumer.demo.show import Show, print_tally, say
from consumer.demo.stage import StageError
from consumer.demo.story import Event, tell
from consumer.demo.tally import DeadLettered, Tally, of_account, of_metrics
from consumer.engage.transport import async_client
from consumer.errors import ConfigurationError
from consumer.kafka import clients as kafka_clients
from consumer.kafka.dead_letters.redrive import DeadLetter, Selection, dead_letters
from consumer.kafka.topics.topics import RelayTopics
from consumer.simulator import Simulator

# The simulator takes 200 requests/s, and a real Engage recommends 50 at the most. An event costs about two.
SIMULATOR_REQUESTS_PER_S, REAL_REQUESTS_PER_S = 180.0, 50.0
SIMULATOR_ORDERS_PER_S, REAL_ORDERS_PER_S = 14.0, 4.0
LOOK_EVERY_S = 0.25
SETTLED_FOR_S = 2.5  # the relay's states are published once a second: so two of them say the same
# Without any change. Three failed calls in a row bring a wait of 60 s and a fifth.
PATIENCE_S = 90.0
FLUSH_S = 15.0
ADMIN_TIMEOUT_S = 5.0


def run_demo(orders: int = 300, seed: int = 1, kafka: str | None = None, base_url: str | None = None) -> int:
    """Run the demo; returns the exit code: 0 where all adds up, 1 where it does not, 2 for a wrong configuration.

    `kafka` names real brokers, `base_url` another Engage (its key in ENGAGE_API_KEY); else both are simulated.
    Broken off by a signal it returns 128 + its number, and nothing is left behind.
    """
    broken_off: list[int] = []
    try:
        return asyncio.run(_play_until_told(orders, seed, kafka, base_url, broken_off))
    except ConfigurationError as error:
        say(str(error))
        return 2
    except StageError as error:
        say(str(error))
        return 1
    except KafkaException as error:
        say(f"Kafka: {kafka_clients.error_of(error).str()}")
        return 1
    except httpx.HTTPError as error:
        say(f"the simulator does not answer: {type(error).__name__}")
        return 1
    except asyncio.CancelledError:
        say("broken off; everything is taken down")
        return 128 + broken_off[0]


async def _play_until_told(
    orders: int, seed: int, kafka: str | None, base_url: str | None, broken_off: list[int]
) -> int:
    playing = asyncio.current_task()
    assert playing is not None  # noqa: S101 - a coroutine runs in a task

    def break_off(number: int) -> None:
        broken_off.append(number)
        playing.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, break_off, number)
    name = f"engage-relay-demo-{secrets.token_hex(4)}"
    with stage.scratch(name) as (configuration, log):
        async with contextlib.AsyncExitStack() as put_up:
            if base_url is None:
                simulator = await put_up.enter_async_context(Simulator(simulator_options(seed)))
                api_key = "demo-key"
            else:
                api_key = os.environ.get("ENGAGE_API_KEY", "")
                if not api_key:
                    raise StageError("with --base-url, ENGAGE_API_KEY must hold the API key")
            url = base_url or simulator.url
            engage = await put_up.enter_async_context(engage_at(url))
            topics = RelayTopics(name, f"{name}.engage.delay", f"{name}.engage.dead-letters", f"{name}.engage.outcomes")
            brokers = kafka or put_up.enter_context(stage.mock_cluster(topics, f"{name}.engage.control"))
            stage.write_configuration(
                configuration,
                bootstrap_servers=brokers,
                name=name,
                base_url=url,
                requests_per_second=SIMULATOR_REQUESTS_PER_S if engage.has_account else REAL_REQUESTS_PER_S,
            )
            environ = stage.environment(os.environ, api_key, real_kafka=kafka is not None)
            settings = stage.settings_of(configuration, environ)
            if kafka is not None:
                put_up.enter_context(stage.real_topics(settings))
            where_kafka, where_engage = f"librdkafka's mock cluster, {brokers}", f"the simulator, {url}"
            say(f"Kafka:  {kafka or where_kafka}; topic {name}")
            say(f"Engage: {base_url or where_engage}")
            # What befalls an order in our own simulator depends on its id: the same seed, the same faults.
            prefix = "order" if base_url is None else name
            if engage.has_account:
                story = tell(orders, seed, prefix, orders_per_second=SIMULATOR_ORDERS_PER_S)
            else:
                story = tell(orders, seed, prefix, orders_per_second=REAL_ORDERS_PER_S, tag_from="document")
            before = await engage.figures() if engage.has_account else AccountFigures()
            play = _Play(settings=settings, engage=engage, prefix=prefix, events=story)
            async with stage.relay(configuration, environ, log) as relay:
                await play.perform(relay)
            if relay.process.returncode:
                raise StageError(f"the relay ended with exit code {relay.process.returncode}; its log is {log}")
            tally, faults = await play.judged(before)
    print_tally(tally, faults)
    say(f"the relay's log: {log}")
    return 0 if tally.adds_up else 1


@dataclass(slots=True, kw_only=True)
class _Play:
    """One performance. `written`: each event's coordinates in the source, by its number."""

    settings: Settings
    engage: Engage
    prefix: str
    events: Sequence[Event]
    written: dict[int, tuple[int, int]] = field(default_factory=dict)
    written_at: dict[int, float] = field(default_factory=dict)
    figures: RelayFigures = field(default_factory=RelayFigures)

    async def perform(self, relay: stage.Relay) -> None:
        """Publish the events, and wait until the relay has settled them all, or nothing moves any more."""
        async with async_client(base_url=relay.admin_url, timeout_s=ADMIN_TIMEOUT_S) as admin:
            with Show(len(self.events)) as show:
                await self._joined(admin, relay)
                publishing = asyncio.create_task(self._publish())
                try:
                    await self._watch(admin, relay, publishing, show)
                except httpx.HTTPError as error:
                    why = f"the relay or the simulator does not answer ({type(error).__name__})"
                    raise StageError(f"{why}; the relay's log is {relay.log}") from None
                finally:
                    publishing.cancel()

    async def judged(self, before: AccountFigures) -> tuple[Tally, Counter[str]]:
        """Make the tally, now that the relay has ended; with the faults that Engage dealt."""
        dead_lettered = await asyncio.to_thread(lambda: list(self._give_up()))
        events = [event for event in self.events if event.number in self.written]
        if not self.engage.has_account:
            return of_metrics(events, self.figures.accepted, dead_lettered, self.figures.asked), Counter()
        account = (await self.engage.figures()).since(before)
        tally = of_account(
            events,
            self.written_at,
            await self.engage.acceptances(f"{self.prefix}-"),
            dead_lettered,
            requests=account.asked,
            answers_lost=account.answers_lost,
        )
        return tally, account.faults

    async def _joined(self, admin: httpx.AsyncClient, relay: stage.Relay) -> None:
        until = time.monotonic() + stage.START_S
        while (await admin.get("/readyz")).status_code != httpx.codes.OK:
            _check_runs(relay)
            if time.monotonic() > until:
                raise StageError(f"the relay did not join its group within {stage.START_S:g} s; its log is {relay.log}")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _publish(self) -> None:
        properties = {**kafka_clients.base(self.settings.kafka), "enable.idempotence": True, "linger.ms": 1}
        producer = Producer(properties, logger=kafka_clients.LOGGER)
        (topic,) = self.settings.source.topics
        began_at = time.monotonic()
        for event in self.events:
            await asyncio.sleep(max(0.0, began_at + event.at_s - time.monotonic()))
            if event.registers_contact and self.engage.has_account:
                await self.engage.register_contact(event)
            job_id = await self.engage.submit(event) if event.submits and self.engage.has_account else None
            self.written_at[event.number] = time.time()
            producer.produce(topic, event.value(job_id), event.order_id, on_delivery=partial(self._wrote, event))
            producer.poll(0)
        if await asyncio.to_thread(producer.flush, FLUSH_S) or len(self.written) < len(self.events):
            raise StageError("Kafka did not take all events")

    def _wrote(self, event: Event, error: KafkaError | None, record: Message) -> None:
        partition, offset = record.partition(), record.offset()
        if error is None and partition is not None and offset is not None:
            self.written[event.number] = (partition, offset)

    async def _watch(
        self, admin: httpx.AsyncClient, relay: stage.Relay, publishing: asyncio.Task[None], show: Show
    ) -> None:
        settled_at = changed_at = time.monotonic()
        while True:
            _check_runs(relay)
            if publishing.done():
                publishing.result()
            now = time.monotonic()
            figures = read_figures((await admin.get("/metrics")).text)
            if figures != self.figures:
                changed_at = now
            self.figures = figures
            accepted = (await self.engage.figures()).accepted if self.engage.has_account else figures.accepted.total()
            show.update(
                len(self.written),
                figures.accepted.total() + figures.dead_letters + figures.ignored,
                f"{accepted} accepted, {figures.dead_letters} dead letters, {figures.pending} pending, "
                f"{figures.in_doubt} in doubt",
            )
            if not (publishing.done() and figures.settled and figures.consumed >= len(self.written)):
                settled_at = now
            elif now - settled_at > SETTLED_FOR_S:
                return
            if now - changed_at > PATIENCE_S:
                say(f"nothing has moved for {PATIENCE_S:g} s")
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _give_up(self) -> Iterator[DeadLettered]:
        numbers = {coordinates: number for number, coordinates in self.written.items()}
        for found in dead_letters(self.settings.kafka, self.settings.topics, Selection()):
            if not isinstance(found, DeadLetter):
                raise StageError(f"the dead letters cannot be read: {found}")
            why = found.why
            yield DeadLettered(numbers.get((why.source_partition, why.source_offset)), why.reason)


def _check_runs(relay: stage.Relay) -> None:
    if relay.process.returncode is not None:
        raise StageError(f"the relay ended with exit code {relay.process.returncode}; its log is {relay.log}")
