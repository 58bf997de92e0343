"""The inbox: what the edges' threads report reaches the loop once, and in order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from consumer.kafka.facts import ClientError, Fact, Fenced
from consumer.relay.inbox import Inbox

MANY = 2000


def said(facts: list[Fact]) -> list[str]:
    return [fact.why for fact in facts if isinstance(fact, ClientError)]


def test_facts_of_one_thread_are_read_in_their_order() -> None:
    async def read() -> list[Fact]:
        inbox, taken, all_read = Inbox(), list[Fact](), asyncio.Event()

        def take(fact: Fact) -> None:
            taken.append(fact)
            if len(taken) == 4 * MANY:
                all_read.set()

        def report(name: str) -> None:
            for number in range(MANY):
                inbox.put(ClientError(f"{name}{number}"))

        inbox.open(take)
        threads = [threading.Thread(target=report, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        await asyncio.wait_for(all_read.wait(), 30)
        for thread in threads:
            thread.join()
        return taken

    taken = said(asyncio.run(read()))
    for name in "abcd":
        assert [why for why in taken if why[0] == name] == [f"{name}{number}" for number in range(MANY)]


def test_a_fact_that_came_before_the_loop_is_not_lost() -> None:
    async def read() -> list[Fact]:
        inbox, taken = Inbox(), list[Fact]()
        inbox.put(ClientError("early"))
        inbox.open(taken.append)
        inbox.put(ClientError("late"))
        await asyncio.sleep(0)
        return taken

    assert said(asyncio.run(read())) == ["early", "late"]


def test_a_fact_that_cannot_be_taken_does_not_hold_up_those_behind_it() -> None:
    """Taking it ends the process: what is in flight is finished first, and that takes the facts behind it."""
    errors: list[object] = []

    async def read() -> list[Fact]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
        inbox, taken = Inbox(), list[Fact]()

        def take(fact: Fact) -> None:
            if isinstance(fact, Fenced):
                raise ValueError(fact.why)
            taken.append(fact)

        inbox.open(take)
        for fact in (ClientError("before"), Fenced("broken"), ClientError("behind")):
            inbox.put(fact)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return taken

    assert said(asyncio.run(read())) == ["before", "behind"]
    assert [str(error) for error in errors] == ["broken"]


def test_an_edge_that_outlives_the_loop_still_reports_to_nobody(recwarn: pytest.WarningsRecorder) -> None:
    inbox = Inbox()

    async def work() -> None:
        inbox.open(lambda _: None)

    asyncio.run(work())
    inbox.put(ClientError("nobody hears this"))
    inbox.put(ClientError("nor this"))
    assert not recwarn.list
