"""Every line on stderr is one record, and none of them holds a secret or a customer."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from consumer import logs
from consumer.errors import TopicError
from tests.support.log_state import logs_as_they_were

CUSTOMER = "kim@example.com"
KEY = "1f0e-4711-secret"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    with logs_as_they_were():
        yield


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was written to stderr since the last call; stdout stays empty."""

    def read() -> str:
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return read


@pytest.fixture
def records(written: Callable[[], str]) -> Callable[[], list[dict[str, Any]]]:
    """Logs as JSON from `info` on; returns the records since the last call."""
    logs.configure("info")
    return lambda: [json.loads(line) for line in written().splitlines()]


def ours() -> structlog.stdlib.BoundLogger:
    return structlog.stdlib.get_logger("consumer.relay.loop")


def fail(error: BaseException) -> None:
    local_variable = CUSTOMER  # noqa: F841
    raise error


def caught(error: BaseException) -> BaseException:
    try:
        fail(error)
    except BaseException as raised:  # noqa: BLE001
        return raised
    raise AssertionError


# -- lines ------------------------------------------------------------------------------------------------------


def test_a_record_is_one_line_of_json(records: Callable[[], list[dict[str, Any]]]) -> None:
    ours().info("partitions assigned", topic="orders", partitions=[0, 1], note="two\nlines")
    (record,) = records()
    moment = datetime.fromisoformat(record.pop("timestamp"))
    assert moment.utcoffset() is not None
    assert not moment.utcoffset()
    assert record == {
        "level": "info",
        "logger": "consumer.relay.loop",
        "event": "partitions assigned",
        "topic": "orders",
        "partitions": [0, 1],
        "note": "two\nlines",
    }


def test_a_librarys_record_looks_like_our_own(records: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("librdkafka").info("REQTMOUT [%s]: %s", "rdkafka#consumer-1", "late")
    (record,) = records()
    assert datetime.fromisoformat(record.pop("timestamp")).utcoffset() is not None
    assert record == {"level": "info", "logger": "librdkafka", "event": "REQTMOUT [rdkafka#consumer-1]: late"}


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("name", ["consumer.relay.loop", "librdkafka"])
def test_the_level_is_that_of_our_records_and_of_librdkafkas(
    written: Callable[[], str], level: str, heard: list[str], name: str
) -> None:
    logs.configure(level)
    for each in ("debug", "info", "warning", "error"):
        getattr(structlog.stdlib.get_logger(name), each)("x")
    assert [json.loads(line)["level"] for line in written().splitlines()] == heard


def test_libraries_do_not_tell_of_requests_even_at_debug(written: Callable[[], str]) -> None:
    logs.configure("debug")
    logging.getLogger("httpx").info("HTTP Request: GET https://acme.voyado.com/api/v3/orders/A-1001")
    logging.getLogger("httpcore.http11").debug("send_request_headers.started")
    assert written() == ""


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        logs.configure("loud")


def test_configuring_twice_does_not_write_twice(records: Callable[[], list[dict[str, Any]]]) -> None:
    logs.configure("info")
    ours().info("once")
    assert len(records()) == 1


def test_a_warning_of_python_is_a_record(records: Callable[[], list[dict[str, Any]]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (record,) = records()
    assert record["logger"] == "py.warnings"
    assert record["event"].endswith("DeprecationWarning: old")


# -- on a terminal ----------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_text_in_colours(written: Callable[[], str]) -> None:
    logs.configure("info")
    ours().info("assigned", topic="orders")
    line = written()
    assert not line.startswith("{")
    assert "\x1b[" in line


@pytest.mark.usefixtures("terminal")
def test_no_color_is_respected(written: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure("info")
    ours().info("assigned", topic="orders")
    line = written()
    assert "\x1b" not in line
    assert "assigned" in line
    assert "topic='orders'" in line


@pytest.mark.usefixtures("terminal")
def test_json_can_be_had_on_a_terminal_too(written: Callable[[], str]) -> None:
    logs.configure("info", json=True)
    ours().info("assigned")
    assert json.loads(written())["event"] == "assigned"


def test_text_can_be_had_in_a_file_too_without_colours(written: Callable[[], str]) -> None:
    logs.configure("info", json=False)
    ours().error("gave up", exc_info=caught(TopicError("orders has 3 partitions")))
    text = written()
    assert "\x1b" not in text
    assert "consumer.errors.TopicError: orders has 3 partitions" in text


@pytest.mark.usefixtures("terminal")
def test_what_comes_from_outside_cannot_steer_the_terminal(
    written: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure("info")
    ours().info("assigned", topic="\x1b[2Jorders\nfake line")
    logging.getLogger("librdkafka").info("broker said \x1b[2J")
    text = written()
    assert "\x1b" not in text
    assert text.count("\n") == 2


# -- errors -----------------------------------------------------------------------------------------------------


def test_an_error_of_ours_is_reported_with_its_text_and_where_it_was_raised(
    records: Callable[[], list[dict[str, Any]]],
) -> None:
    ours().error("gave up", exc_info=caught(TopicError("orders has 3 partitions")))
    (record,) = records()
    (error,) = record["exception"]
    assert error["type"] == "consumer.errors.TopicError"
    assert error["text"] == "orders has 3 partitions"
    assert error["at"][-1].endswith(" fail")
    assert __file__ in error["at"][-1]


def test_an_exception_that_is_being_handled_is_reported(records: Callable[[], list[dict[str, Any]]]) -> None:
    try:
        fail(KeyError(CUSTOMER))
    except KeyError:
        ours().exception("gave up")
    (record,) = records()
    assert record["level"] == "error"
    assert record["exception"][0]["type"] == "KeyError"


class _Order(BaseModel):
    email: int


def _invalid() -> Exception:
    try:
        _Order.model_validate({"email": CUSTOMER})
    except ValueError as error:
        return error
    raise AssertionError


def _undecodable() -> Exception:
    try:
        (CUSTOMER.encode() + b"\xff").decode()
    except ValueError as error:
        return error
    raise AssertionError


FOREIGN = [
    KeyError(CUSTOMER),
    ValueError(f"{CUSTOMER} is no number"),
    ExceptionGroup(CUSTOMER, [RuntimeError(CUSTOMER)]),
    FileNotFoundError(2, "No such file or directory", CUSTOMER),
    OSError(CUSTOMER),
    _invalid(),
    _undecodable(),
]


@pytest.mark.parametrize("json_", [True, False])
@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_an_error_from_elsewhere_does_not_tell_of_a_customer(
    written: Callable[[], str], error: Exception, json_: bool
) -> None:
    logs.configure("debug", json=json_)
    ours().error("failed", exc_info=caught(error))
    logging.getLogger("consumer.admin.server").error("failed", exc_info=caught(error))
    text = written()
    assert text.count(type(error).__name__) >= 2
    assert CUSTOMER not in text


def test_what_is_safe_to_tell_of_errors_from_elsewhere_is_reported() -> None:
    kafka = KafkaException(KafkaError(KafkaError._TIMED_OUT, "Local: Timed out"))
    for error, text in (
        (kafka, "_TIMED_OUT: Local: Timed out"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (_invalid(), "_Order.email: int_parsing"),
    ):
        assert logs.describe(error)[0]["text"] == text


def test_causes_and_members_of_a_group_are_reported_once_each() -> None:
    first = caught(TopicError("first"))
    second = caught(TopicError("second"))
    first.__cause__, second.__context__ = second, first  # a circle
    group = ExceptionGroup("together", [TopicError("member"), Exception()])
    group.__cause__ = first
    assert [each.get("text", each["type"]) for each in logs.describe(group)] == [
        "ExceptionGroup",
        "member",
        "Exception",
        "first",
        "second",
    ]


def test_a_cause_that_was_cut_off_on_purpose_is_not_reported() -> None:
    def translate() -> None:
        try:
            fail(KeyError(CUSTOMER))
        except KeyError:
            raise TopicError("ours") from None

    with pytest.raises(TopicError) as raised:
        translate()
    assert [each["type"] for each in logs.describe(raised.value)] == ["consumer.errors.TopicError"]


def test_a_deep_recursion_is_reported_in_few_positions() -> None:
    def deeper(level: int) -> None:
        if level == 0:
            raise TopicError("bottom")
        deeper(level - 1)

    with pytest.raises(TopicError) as raised:
        deeper(100)
    positions = logs.describe(raised.value)[0]["at"]
    assert isinstance(positions, list)
    assert len(positions) == logs.MAX_FRAMES


# -- what nobody caught -----------------------------------------------------------------------------------------


def test_the_main_threads_end_is_a_record(records: Callable[[], list[dict[str, Any]]]) -> None:
    error = caught(ValueError(CUSTOMER))
    sys.excepthook(type(error), error, error.__traceback__)
    (record,) = records()
    assert (record["level"], record["event"]) == ("critical", "uncaught exception")
    assert record["exception"][0]["type"] == "ValueError"


def test_another_threads_end_is_a_record(records: Callable[[], list[dict[str, Any]]]) -> None:
    thread = threading.Thread(target=fail, args=(ValueError(CUSTOMER),), name="journal")
    thread.start()
    thread.join()
    (record,) = records()
    assert record["event"] == "uncaught exception in thread journal"
    assert record["exception"][0]["at"][-1].endswith(" fail")


def test_an_exception_in_a_destructor_is_a_record(records: Callable[[], list[dict[str, Any]]]) -> None:
    class Broken:
        def __del__(self) -> None:
            fail(ValueError(CUSTOMER))

    broken = Broken()
    del broken
    (record,) = records()
    assert record["event"] == "exception ignored"
    assert record["exception"][0]["type"] == "ValueError"


def test_a_task_that_nobody_awaited_does_not_tell_of_a_customer(written: Callable[[], str]) -> None:
    logs.configure("info")
    loop = asyncio.new_event_loop()
    error = caught(ValueError(CUSTOMER))
    task = loop.create_future()
    task.set_exception(error)
    loop.call_exception_handler({"message": "never retrieved", "exception": error, "future": task})
    task.exception()
    loop.close()
    text = written()
    assert json.loads(text)["event"] == "never retrieved"
    assert CUSTOMER not in text


def test_a_record_that_cannot_be_written_is_reported_without_its_contents(written: Callable[[], str]) -> None:
    logs.configure("info")
    logging.getLogger("somewhere").warning("%d orders", CUSTOMER)
    text = written()
    assert json.loads(text)["logger"] == "somewhere"
    assert CUSTOMER not in text


# -- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json_", [True, False])
def test_a_registered_secret_is_struck_wherever_it_appears(written: Callable[[], str], json_: bool) -> None:
    logs.configure("info", json=json_)
    logs.redact(KEY)
    ours().info(f"asked with {KEY}", headers={"apikey": KEY}, **{KEY: KEY})
    logging.getLogger("librdkafka").warning("sasl.password=%s", KEY)
    ours().error("failed", exc_info=caught(TopicError(f"with {KEY}")))
    text = written()
    assert KEY not in text
    assert text.count("***") == 6


def test_a_rotated_secret_and_one_inside_of_another_are_struck_too(written: Callable[[], str]) -> None:
    logs.configure("info")
    logs.redact(KEY)
    logs.redact(KEY + "-new")
    ours().info("x", old=KEY, new=KEY + "-new")
    record = json.loads(written())
    assert (record["old"], record["new"]) == ("***", "***")


def test_a_very_short_secret_does_not_make_the_log_unreadable(written: Callable[[], str]) -> None:
    logs.configure("info")
    logs.redact("")
    logs.redact("in")
    ours().info("in the log")
    assert json.loads(written())["event"] == "in the log"


@given(secret=st.text(min_size=logs.SHORTEST_SECRET, max_size=20))
def test_a_secret_is_struck_however_it_is_escaped(secret: str) -> None:
    logs._secrets = []
    logs.redact(secret)
    for shown in (secret, [secret], {"key": secret}, repr(secret)):
        for line in (json.dumps(shown), str(shown)):
            assert secret in line or "\\" in line
            struck = logs._strike_secrets(None, "", line)  # type: ignore[arg-type]  # rendered by now
            assert "***" in struck
            assert secret not in struck
