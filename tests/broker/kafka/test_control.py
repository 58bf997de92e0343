"""The control topic's reader on a real broker: all that is there before anything is reported, then each change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from consumer.core.pauses import Pause
from consumer.core.requests import Request, done
from consumer.kafka.control import asking, reader
from consumer.kafka.control.asking import TooManyOpenError, ask
from consumer.kafka.control.control import Record, new_id, read_controls, write_controls
from consumer.kafka.control.reader import ControlReader
from consumer.kafka.control.records import pause_key, pause_value, request_key, request_value
from consumer.kafka.facts import ControlNotRead, ControlRead, Fact
from consumer.kafka.topics.topics import create
from tests.support.sandbox import Sandbox, SandboxFactory, control_topic
from tests.support.waiting import until


def pause(name: str) -> Record:
    made = Pause(id=name, begun=1.0, reason="a test")
    return Record(pause_key(made), pause_value(made))


def topic_of(sandbox: Sandbox) -> str:
    return control_topic(sandbox.properties["group.id"])


@contextmanager
def reader_of(sandbox: Sandbox) -> Iterator[Callable[[], list[Fact]]]:
    """Run a reader; gives what it has reported."""
    reported: list[Fact] = []
    lock = threading.Lock()

    def report(fact: Fact) -> None:
        with lock:
            reported.append(fact)

    follower = ControlReader(sandbox.properties, topic_of(sandbox), report)
    follower.start()
    try:
        yield lambda: list(reported)
    finally:
        follower.stop()


def names(fact: Fact) -> set[str]:
    assert isinstance(fact, ControlRead)
    return {each.id for each in fact.pauses.known}


def test_what_the_topic_holds_is_reported_at_once_and_then_each_change(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    many = [pause(f"p{number}") for number in range(500)]
    write_controls(sandbox.properties, topic_of(sandbox), many)
    with reader_of(sandbox) as reported:
        until(reported, "the topic is read")
        assert len(names(reported()[0])) == 500, "a pause that is there holds the first poll, too"
        write_controls(sandbox.properties, topic_of(sandbox), [Record(many[0].key, None), pause("new")])
        until(lambda: "new" in names(reported()[-1]), "a change is heard of")
        assert len(names(reported()[-1])) == 500
    assert len(read_controls(sandbox.properties, topic_of(sandbox)).pauses.known) == 500


def test_an_empty_topic_is_read_as_well(sandboxes: SandboxFactory) -> None:
    with reader_of(sandboxes()) as reported:
        until(reported, "the topic is read")
        assert names(reported()[0]) == set()


def test_a_topic_that_is_not_there_is_said_and_read_once_it_is(sandboxes: SandboxFactory) -> None:
    sandbox = sandboxes()
    sandbox.admin.delete_topics([topic_of(sandbox)])[topic_of(sandbox)].result(30)
    until(lambda: topic_of(sandbox) not in sandbox.admin.list_topics(timeout=10).topics, "it is gone")
    with reader_of(sandbox) as reported:
        until(reported, "something is said")
        assert all(isinstance(each, ControlNotRead) for each in reported())
        create(sandbox.admin, [sandbox.topics], control=topic_of(sandbox))
        until(lambda: isinstance(reported()[-1], ControlRead), "it is read")


def test_a_topic_that_is_deleted_while_it_is_followed_is_said_and_read_once_it_is_there_again(
    sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOK_INTERVAL_S", 0.2)
    sandbox = sandboxes()
    write_controls(sandbox.properties, topic_of(sandbox), [pause("former")])
    with reader_of(sandbox) as reported:
        until(reported, "the topic is read")
        sandbox.admin.delete_topics([topic_of(sandbox)])[topic_of(sandbox)].result(30)
        until(lambda: isinstance(reported()[-1], ControlNotRead), "it is said")
        make_again(sandbox)
        until(lambda: isinstance(reported()[-1], ControlRead), "it is read")
        assert names(reported()[-1]) == set()


def test_a_recreated_topic_that_holds_more_than_was_read_of_the_former_one_is_read_from_its_beginning(
    sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its first pauses may never be heard of, and those of the former one would hold on."""
    sandbox = sandboxes()
    write_controls(sandbox.properties, topic_of(sandbox), [pause("former")])
    with reader_of(sandbox) as reported:
        until(reported, "the topic is read")
        sandbox.admin.delete_topics([topic_of(sandbox)])[topic_of(sandbox)].result(30)
        make_again(sandbox)
        write_controls(sandbox.properties, topic_of(sandbox), [pause(f"p{number}") for number in range(3)])
        monkeypatch.setattr(reader, "LOOK_INTERVAL_S", 0.2)  # not before: somebody is quicker than the next look
        until(lambda: reports(reported()[-1], {"p0", "p1", "p2"}), "what it holds now is known, and nothing else")


def reports(fact: Fact, pauses: set[str]) -> bool:
    return isinstance(fact, ControlRead) and names(fact) == pauses


def make_again(sandbox: Sandbox) -> None:
    """Be `engage-relay topics create`, once the deletion is over."""
    until(lambda: topic_of(sandbox) not in sandbox.admin.list_topics(timeout=10).topics, "it is gone")
    create(sandbox.admin, [sandbox.topics], control=topic_of(sandbox))


# -- what a command asks for ------------------------------------------------------------------------------------------


def requests(count: int) -> list[Request]:
    return [
        Request(
            id=new_id(float(number)),
            what="send_again",
            topic="orders",
            partition=0,
            offset=number,
            reason="a test",
            asked_by="redrive",
            asked=1.0,
        )
        for number in range(count)
    ]


def test_whoever_does_not_wait_writes_nothing_beyond_what_may_be_open(
    sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each relay keeps what is open in memory: `resend --withheld --no-wait` wrote whatever there was."""
    monkeypatch.setattr(asking, "MAX_OPEN", 3)
    sandbox = sandboxes()
    at = sandbox.properties, topic_of(sandbox)
    with pytest.raises(TooManyOpenError, match="these are 4 requests; 3 may be open at a time"):
        list(ask(*at, requests(4), wait_s=0))
    assert not read_controls(*at).requests
    assert [each.answer for each in ask(*at, requests(2), wait_s=0)] == [None, None]
    with pytest.raises(TooManyOpenError, match="these are 2 requests, and 2 are open"):
        list(ask(*at, requests(2), wait_s=0))
    for _ in range(2):  # one is always taken, also where no more may be open
        list(ask(*at, requests(1), wait_s=0))
    assert len(read_controls(*at).requests) == 4


def test_whoever_waits_asks_for_more_as_earlier_ones_are_answered_whoever_asked_for_them(
    sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_OPEN", 3)
    sandbox = sandboxes()
    at = sandbox.properties, topic_of(sandbox)
    another, *ours = requests(8)
    list(ask(*at, [another], wait_s=0))
    most_open, told = 0, []
    ended = threading.Event()

    def relay() -> None:
        """Answer what is open, now and then."""
        nonlocal most_open
        while not ended.is_set():
            open_ = read_controls(*at).requests
            most_open = max(most_open, len(open_))
            answered = [each for each in open_.values() if each != another][:2]
            write_controls(*at, [Record(request_key(each), request_value(each, done("yes"), 1.0)) for each in answered])

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        told = [each.answer for each in ask(*at, ours, wait_s=30)]
    finally:
        ended.set()
        thread.join()
    assert told == [done("yes")] * 7
    assert most_open == 3
    assert read_controls(*at).requests == {another.id: another}


def test_what_was_never_asked_for_is_not_called_open(
    sandboxes: SandboxFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_OPEN", 1)
    sandbox = sandboxes()
    at = sandbox.properties, topic_of(sandbox)
    first, second = ask(*at, requests(2), wait_s=0.5)
    assert first.answer is None
    assert second.answer is not None
    assert "it was not asked for: 1 requests are open, and nobody answers" in second.answer.detail
    assert list(read_controls(*at).requests) == [first.request.id]
