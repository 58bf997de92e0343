"""A topic is deleted while two relays share the partitions of two sources.

What cannot be served is set apart and named, and everything else goes on in both. What the deletion destroys is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer.kafka.topics.topics import create
from tests.support.books import Books
from tests.support.engage import Engage
from tests.support.events import event, order_id, publish
from tests.support.figures import Figures
from tests.support.relay_process import RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory, control_topic
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PARTITIONS = 4
OTHERS = 12  # orders of the other source, beside the deletion: some of each partition
APART = "partition set apart: it cannot be served, the others go on"
AGAIN = "partition restored"
STANDSTILL_S = 60.0  # of the others: some attempts of a transaction's time, which is 10 s


@dataclass
class Two:
    """Two relays that share the partitions of two sources, whose topics are their own."""

    kept: Sandbox
    hit: Sandbox
    engage: Engage
    relays: list[RelayProcess]
    published: int = 0

    def publish(self, sandbox: Sandbox, count: int = OTHERS, *, takes_s: float | None = None) -> list[str]:
        """Publish an event of each of so many new orders. `takes_s`: until Engage has processed them."""
        orders = [order_id(self.published + n) for n in range(count)]
        self.published += count
        jobs = {order: self.engage.submit(order, takes_s=takes_s) for order in orders}
        publish(sandbox, [(order, event(order, engage={"jobId": job})) for order, job in jobs.items()])
        return orders

    def until_accepted(self, orders: list[str], what: str, patience_s: float = 30.0) -> float:
        """Wait until each of these was accepted once; returns how long that took."""
        since = time.monotonic()
        self.until(lambda: all(self.engage.events_of(each) for each in orders), what, patience_s)
        took_s = time.monotonic() - since
        assert all(self.engage.events_of(each) == [1] for each in orders), "nobody is mailed twice"
        return took_s

    def until(self, condition: Callable[[], object], what: str, patience_s: float = 30.0) -> None:
        """Wait for something; if it never comes, say what the relays said."""
        try:
            until(condition, what, patience_s)
        except AssertionError as error:
            for relay in self.relays:
                error.add_note(f"the relay's log:\n{relay.text[-6000:]}")
            raise

    def others_go_on(self) -> float:
        """See that the other source is served, by both; returns how long it stood still."""
        return self.until_accepted(self.publish(self.kept), "the other source is served", STANDSTILL_S)

    def said(self, line: str) -> list[dict[str, object]]:
        return [each for relay in self.relays for each in relay.said(line)]

    def named(self, line: str = APART) -> set[tuple[object, object]]:
        return {(each["topic"], each["partition"]) for each in self.said(line)}

    def all_of_hit(self) -> set[tuple[object, object]]:
        return {(self.hit.topics.source, n) for n in range(PARTITIONS)}

    def until_pending(self, orders: list[str]) -> None:
        """Wait until the delay topic has them."""
        with Books(self.hit) as books:
            until(lambda: {each.payload.order_id for each in books.read().live.values()} >= set(orders), "all pend")

    def delete(self, topic: str) -> None:
        self.hit.admin.delete_topics([topic])[topic].result(30)

    def make_again(self) -> None:
        """Be `engage-relay topics create`."""
        control = control_topic(str(self.kept.properties["group.id"]))
        until(lambda: create(self.hit.admin, [self.hit.topics, self.kept.topics], control=control), "they are made")


@pytest.fixture
def two(sandboxes: SandboxFactory, tmp_path: Path) -> Iterator[Two]:
    kept = sandboxes(partitions=PARTITIONS)
    hit = sandboxes(partitions=PARTITIONS, group=kept.properties["group.id"])
    sources = {"topics": [kept.topics.source, hit.topics.source]}
    with Engage() as engage, ExitStack() as running:

        def start(number: int) -> RelayProcess:
            file = written(tmp_path, configuration(kept, engage.url, source=sources), f"relay-{number}")
            relay = RelayProcess(tmp_path, file, "--from", "earliest", impatient=True)
            return running.enter_context(relay)

        # The second one takes whole sources, the third one of both: it is given what each has too much.
        first, second = start(1), start(2)
        until(lambda: first.partitions == second.partitions == PARTITIONS, "each owns its half")
        third = start(3)
        until(lambda: third.partitions > 1, "the third one owns some")
        assert first.stop() == 0
        started = [second, third]
        until(lambda: all(each.partitions == PARTITIONS for each in started), "each owns its half")
        two = Two(kept, hit, engage, started)
        two.until_accepted(two.publish(kept) + two.publish(hit), "both sources are served")
        yield two
        assert all(each.running for each in started)
        for relay in started:
            assert relay.stop() == 0, relay.last_words


@pytest.mark.long
def test_of_two_sources_one_is_deleted(two: Two, figures: Figures) -> None:
    pending = two.publish(two.hit, 20, takes_s=5.0)
    two.until_pending(pending)
    two.delete(two.hit.topics.source)
    two.until(lambda: two.said("transaction aborted, trying again"), "a transaction is refused")
    stood_still_s = two.others_go_on()
    two.until(lambda: two.named() == two.all_of_hit(), "all of its partitions are named", 60)
    figures(the_others_stood_still_for=f"{stood_still_s:.1f} s", later_for=f"{two.others_go_on():.1f} s")


@pytest.mark.long
def test_the_delay_topic_of_one_source_is_deleted(two: Two, figures: Figures) -> None:
    """What was pending there goes with it once its partitions are set apart: that is said. No other event does."""
    pending = two.publish(two.hit, 20, takes_s=60.0)
    two.until_pending(pending)
    two.delete(two.hit.topics.delay)
    meanwhile = two.publish(two.hit)
    two.until(lambda: two.said("transaction aborted, trying again"), "a transaction is refused")
    stood_still_s = two.others_go_on()
    two.until(lambda: two.named() == two.all_of_hit(), "all of its partitions are named", 60)
    later_s = two.others_go_on()
    two.make_again()
    two.until_accepted(meanwhile, "what came meanwhile is served", 90)
    two.until_accepted(two.publish(two.hit), "what comes then is served")
    log = "".join(relay.text for relay in two.relays)
    assert all(log.count(f"{two.hit.topics.delay}[{n}] has no position") == 1 for n in range(PARTITIONS))
    figures(the_others_stood_still_for=f"{stood_still_s:.1f} s", later_for=f"{later_s:.1f} s")


@pytest.mark.long
def test_the_dead_letter_topic_of_one_source_is_deleted(two: Two, figures: Figures) -> None:
    """A dead letter is safe in the delay topic until then, and nothing else waits for it."""
    two.delete(two.hit.topics.dead_letters)
    orders = [order_id(f"bad-{n}") for n in range(8)]
    publish(two.hit, [(order, b"no JSON") for order in orders])
    two.until(
        lambda: two.said(
            "the dead-letter topic refuses a dead letter; the delay topic keeps it, and it is tried again"
        ),
        "kept",
    )
    stood_still_s = two.others_go_on()
    own_s = two.until_accepted(two.publish(two.hit), "what can be served of its own source is", STANDSTILL_S)
    assert two.named() == set()
    two.make_again()
    with Books(two.hit) as books:
        until(lambda: len(books.read().dead_letters) == len(orders), "all dead letters are written", 90)
        until(books.settled, "nothing is left")
    figures(the_others_stood_still_for=f"{stood_still_s:.1f} s", its_own_for=f"{own_s:.1f} s")


@pytest.mark.long
def test_the_outcomes_topic_of_one_source_is_deleted(two: Two, figures: Figures) -> None:
    """What Engage accepted meanwhile cannot end without its outcome. It is not sent again for that."""
    under_way = two.publish(two.hit, 20, takes_s=2.0)
    two.until_pending(under_way)
    outcomes = two.hit.topics.outcomes
    assert outcomes is not None
    two.delete(outcomes)
    two.until(lambda: all(each.said("transaction aborted, trying again") for each in two.relays), "both are refused")
    meanwhile = two.publish(two.kept) + two.publish(two.hit)
    two.make_again()
    back_s = two.until_accepted(under_way + meanwhile, "all are accepted", 120)
    with Books(two.hit) as books:
        books.wait_until_settled(60)
        assert books.dead_letters == []
    assert all(two.engage.events_of(each) == [1] for each in under_way + meanwhile), "nobody is mailed twice"
    figures(back_after=f"{back_s:.1f} s")


@pytest.mark.long
def test_the_control_topic_is_deleted(two: Two, figures: Figures) -> None:
    pending = two.publish(two.hit, 20, takes_s=3.0)
    two.delete(control_topic(str(two.kept.properties["group.id"])))
    stood_still_s = two.others_go_on()
    two.until_accepted(pending, "what was pending is sent")
    line = "the control topic cannot be read; the pauses that are known hold on"
    until(lambda: all(relay.said(line) for relay in two.relays), "both say so", 60)
    two.make_again()
    two.until_accepted(two.publish(two.hit), "all goes on")
    assert two.named() == set()
    figures(the_others_stood_still_for=f"{stood_still_s:.1f} s")
