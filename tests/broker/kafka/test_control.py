"""The control topic's reader on a real broker: all that is there before anything is reported, then each change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from consumer.core.pauses import Pause
from consumer.kafka.control.control import Record, read_controls, write_controls
from consumer.kafka.control.reader import ControlReader
from consumer.kafka.control.records import pause_key, pause_value
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

    reader = ControlReader(sandbox.properties, topic_of(sandbox), report)
    reader.start()
    try:
        yield lambda: list(reported)
    finally:
        reader.stop()


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
