"""The schema files say what the models do, and what is written can be read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from schemas.dead_letter import DeadLetterHeaders, Reason
from schemas.order_event import OrderEventType
from schemas.pending_action import Bytes, PendingAction
from tools import schemas

CONTRACTS = sorted(schemas.CONTRACTS)

SHIPPED = {
    "version": 1,
    "type": "order.shipped",
    "orderId": "A-1001",
    "occurredAt": "2025-11-03T09:30:00Z",
    "language": "sv-SE",
    "engage": {"jobId": "job-7", "connection": "default"},
    "data": {"trackingNumber": "JJSE00001"},
}
PENDING = {
    "version": 2,
    "state": "pending",
    "first_seen_ms": 1_762_162_200_000,
    "due_ms": 1_762_162_202_000,
    "attempts": 3,
    "payload": {
        "route": "shipped",
        "connection": "default",
        "order_id": "A-1001",
        "action": "ConfirmShipment",
        "tag_source": {"kind": "job", "job_id": "job-7"},
        "event_time_ms": 1_762_162_200_000,
        "source": {
            "topic": "orders",
            "partition": 0,
            "offset": 17,
            "key": {"text": "A-1001"},
            "value": {"base64": "/w=="},
            "headers": [["trace", {"text": "x"}], ["empty", None]],
        },
    },
}
DEAD_LETTER = {
    "reason": "rejected",
    "detail": "400: language is unknown",
    "source_topic": "orders",
    "source_partition": 0,
    "source_offset": 17,
    "failed_at_ms": 1_762_162_200_000,
}
REQUEST = {"action": "ConfirmShipment", "versionTag": "t-1"}

VALID: list[tuple[str, dict[str, Any]]] = [
    *[("order-event", {"version": 1, "type": kind, "orderId": "A-1001"}) for kind in get_args(OrderEventType)],
    ("order-event", SHIPPED),
    ("order-event", {"type": "order.confirmed", "orderId": "A-1001"}),
    ("order-event", {**SHIPPED, "engage": None, "data": None, "order": {"orderId": "A-1001", "items": []}}),
    ("order-event", {**SHIPPED, "engage": {"versionTag": "t-1", "newField": 1}, "newField": {"a": [1]}}),
    ("pending-action", PENDING),
    ("pending-action", {**PENDING, "state": "sending", "version_tag": "t-1", "sends": 1, "from_a_newer_relay": 1}),
    *[("dead-letter-headers", {**DEAD_LETTER, "reason": reason.value}) for reason in Reason],
    ("engage-action-request", REQUEST),
    ("engage-action-request", {**REQUEST, "action": "Återbetalning av köp"}),
    ("engage-action-request", {**REQUEST, "language": None, "data": [1, "two", {"three": 3}]}),
    ("engage-job-answer", {}),
    ("engage-job-answer", {"jobId": "job-7", "status": "Completed", "versionTag": "t-1", "new": True}),
    ("engage-order-answer", {"orderId": "A-1001", "versionTag": None}),
]


def without(document: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != field}


INVALID: list[tuple[str, Any]] = [
    ("order-event", {**SHIPPED, "version": 2}),
    ("order-event", {**SHIPPED, "action": ""}),
    ("order-event", {**SHIPPED, "action": "n" * 201}),
    ("order-event", {**SHIPPED, "version": "1"}),
    ("order-event", {**SHIPPED, "type": "order.exploded"}),
    ("order-event", without(SHIPPED, "type")),
    ("order-event", without(SHIPPED, "orderId")),
    ("order-event", {**without(SHIPPED, "orderId"), "order_id": "A-1001"}),
    ("order-event", {**SHIPPED, "orderId": ""}),
    ("order-event", {**SHIPPED, "orderId": 1001}),
    ("order-event", {**SHIPPED, "language": ["sv-SE"]}),
    ("order-event", {**SHIPPED, "engage": "job-7"}),
    ("order-event", {**SHIPPED, "engage": {"jobId": 7}}),
    ("order-event", {**SHIPPED, "data": "free text"}),
    ("order-event", {**SHIPPED, "order": [SHIPPED]}),
    ("order-event", [SHIPPED]),
    ("order-event", None),
    ("pending-action", {**PENDING, "version": 1}),
    ("pending-action", {**PENDING, "state": "sent"}),
    ("pending-action", without(PENDING, "payload")),
    ("pending-action", {**PENDING, "payload": {**PENDING["payload"], "tag_source": {"kind": "guess"}}}),  # type: ignore[dict-item]
    ("dead-letter-headers", {**DEAD_LETTER, "reason": "bad luck"}),
    ("dead-letter-headers", without(DEAD_LETTER, "source_offset")),
    ("engage-action-request", {**REQUEST, "action": ""}),
    ("engage-action-request", {"action": "ConfirmOrder"}),
    ("engage-job-answer", {"jobId": 7}),
    ("engage-order-answer", "A-1001"),
]


def test_the_schema_files_have_not_drifted_from_the_models() -> None:
    assert [file.name for file in schemas.drifted()] == [], "run `make generated`"


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_file_is_a_valid_schema_with_a_name_of_its_own(contract: str) -> None:
    schema = json.loads(schemas.file_of(contract).read_text())

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$schema"]
    assert schema["$id"] == f"urn:engage-relay:{contract}:1"


@pytest.mark.parametrize(("contract", "document"), VALID)
def test_what_a_model_accepts_its_schema_accepts(contract: str, document: dict[str, Any]) -> None:
    schemas.CONTRACTS[contract].model_validate_json(json.dumps(document))
    Draft202012Validator(schemas.schema_of(contract)).validate(document)


@pytest.mark.parametrize(("contract", "document"), INVALID)
def test_what_a_model_refuses_its_schema_refuses(contract: str, document: object) -> None:
    with pytest.raises(ValidationError):
        schemas.CONTRACTS[contract].model_validate_json(json.dumps(document))
    assert not Draft202012Validator(schemas.schema_of(contract)).is_valid(document)


def test_a_written_pending_action_matches_its_schema() -> None:
    written = PendingAction.model_validate(PENDING).model_dump_json(exclude_none=True)
    Draft202012Validator(schemas.schema_of("pending-action")).validate(json.loads(written))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(schemas, "HERE", tmp_path)
    return tmp_path


def test_a_check_names_each_file_that_drifted_and_writes_nothing(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert schemas.main([]) == 0
    edited, missing, stray = (elsewhere / f"{name}.schema.json" for name in ("order_event", "pending_action", "stray"))
    edited.write_text("{}\n")
    missing.unlink()
    stray.write_text("{}\n")
    capsys.readouterr()

    assert schemas.main(["--check"]) == 1

    named = capsys.readouterr().err
    assert all(file.name in named for file in (edited, missing, stray))
    assert len(named.splitlines()) == 3
    assert edited.read_text() == "{}\n"
    assert not missing.exists()


def test_writing_settles_every_drift(elsewhere: Path) -> None:
    (elsewhere / "stray.schema.json").write_text("{}\n")

    assert schemas.main([]) == 0
    assert schemas.main(["--check"]) == 0
    assert len(list(elsewhere.iterdir())) == len(CONTRACTS)


TEXT = st.text(st.characters(codec="utf-8"))
NUMBER = st.integers(min_value=0, max_value=2**63 - 1)


@given(
    st.builds(
        DeadLetterHeaders,
        reason=st.sampled_from(Reason),
        detail=TEXT,
        errors=st.none() | TEXT,
        source_topic=TEXT,
        source_partition=NUMBER,
        source_offset=NUMBER,
        route=st.none() | TEXT,
        action=st.none() | TEXT,
        connection=st.none() | TEXT,
        attempts=NUMBER,
        sends=NUMBER,
        failed_at_ms=NUMBER,
    )
)
def test_a_dead_letters_headers_survive_kafka(headers: DeadLetterHeaders) -> None:
    foreign: list[tuple[str, bytes | None]] = [("traceparent", b"\xff"), ("engage-relay-unset", None)]
    assert DeadLetterHeaders.from_kafka([*foreign, *headers.to_kafka()]) == headers


def test_a_dead_letters_headers_have_readable_names_and_leave_out_what_is_absent() -> None:
    names = [name for name, _ in DeadLetterHeaders.model_validate(DEAD_LETTER).to_kafka()]
    assert "engage-relay-source-offset" in names
    assert "engage-relay-route" not in names


def test_headers_of_another_kind_are_no_dead_letters() -> None:
    with pytest.raises(ValidationError):
        DeadLetterHeaders.from_kafka([("content-type", b"application/json")])


@given(st.binary())
def test_any_bytes_survive_the_delay_topic(raw: bytes) -> None:
    assert Bytes.model_validate_json(Bytes.of(raw).model_dump_json()).raw() == raw


@given(TEXT)
def test_text_stays_readable_in_the_delay_topic(text: str) -> None:
    assert Bytes.of(text.encode()).text == text
