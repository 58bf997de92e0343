"""Writes the `*.schema.json` files beside the models: `python -m tools.schemas` (`--check`: only compare).

JSON Schema 2020-12, keys sorted, one file per contract. Edit the models, never the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from schemas import DIALECT
from schemas.control import PauseRecord, RequestRecord
from schemas.dead_letter import DeadLetterHeaders
from schemas.engage import ActionRequest, JobAnswer, OrderAnswer
from schemas.order_event import OrderEvent
from schemas.outcome import Outcome
from schemas.pending_action import PendingAction, RefusedDeadLetter

VERSION = 1
HERE = Path(__file__).parents[1] / "schemas"

CONTRACTS: dict[str, type[BaseModel]] = {
    "order-event": OrderEvent,
    "pending-action": PendingAction,
    "refused-dead-letter": RefusedDeadLetter,
    "dead-letter-headers": DeadLetterHeaders,
    "outcome": Outcome,
    "pause-record": PauseRecord,
    "request-record": RequestRecord,
    "engage-action-request": ActionRequest,
    "engage-job-answer": JobAnswer,
    "engage-order-answer": OrderAnswer,
}


class _Plain(GenerateJsonSchema):
    """Without the titles that only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False


def file_of(contract: str) -> Path:
    """Return where the contract's schema is kept."""
    return HERE / f"{contract.replace('-', '_')}.schema.json"


def schema_of(contract: str) -> dict[str, Any]:
    """Return the contract's JSON Schema, as what is accepted (names are those on the wire)."""
    schema = CONTRACTS[contract].model_json_schema(by_alias=True, mode="validation", schema_generator=_Plain)
    return {"$schema": DIALECT, "$id": f"urn:engage-relay:{contract}:{VERSION}", **schema}


def rendered(contract: str) -> str:
    """Return the file's text: the same for the same models, whatever order they were written in."""
    return json.dumps(schema_of(contract), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def drifted() -> list[Path]:
    """Return the files that are missing or differ from their models, and those of no contract."""
    wanted = {file_of(contract): rendered(contract) for contract in CONTRACTS}
    wrong = [file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    return wrong + sorted(set(HERE.glob("*.schema.json")) - set(wanted))


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` name those that have drifted (exit code 1)."""
    parser = argparse.ArgumentParser(prog="python -m tools.schemas", description="Write schemas/*.schema.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the files that drifted")
    check = parser.parse_args(arguments).check
    wrong = drifted()
    for file in wrong:
        if check:
            sys.stderr.write(f"{file.name}: differs from its model; run `make generated`\n")
        else:
            _settle(file)
            sys.stdout.write(f"{file.name}\n")
    return 1 if check and wrong else 0


def _settle(file: Path) -> None:
    for contract in CONTRACTS:
        if file_of(contract) == file:
            file.write_text(rendered(contract), encoding="utf-8")
            return
    file.unlink()


if __name__ == "__main__":
    sys.exit(main())
