"""Three instances at a busy moment, one of which does not answer: for the tests of the fleet's page and its picture."""

from __future__ import annotations

from dataclasses import replace

from consumer.admin.fleet import Instance, View
from consumer.admin.status import status_of
from consumer.admin.status_model import Identity
from consumer.telemetry.snapshot import PartitionFigures
from tests.unit.admin import status_sample


def _instance(number: int, owned: range, pending: int) -> Instance:
    name = f"engage-relay-7d9f8c6b5-{'x2kqv' if number else 'h8w4n'}"
    shown = replace(
        status_sample.snapshot(),
        partitions={("orders", each): PartitionFigures("open", pending // len(owned)) for each in owned},
        lag={("orders", owned[0]): 3 * number},
        overdue=41 * number,
    )
    status = status_of(
        (shown, status_sample.flow(number + 3)),
        version="0.2.0",
        age_s=0.4,
        joined=True,
        identity=Identity(name, "engage-relay", "kafka-1"),
    )
    return Instance(f"http://10.42.0.{17 + number}:8080", status)


def view() -> View:
    """Return what an instance knows of all of them; partition 3 changes hands."""
    gone = "http://10.42.1.9:8080"
    silent = Instance(gone, None, f"nobody answers at {gone}: connection refused")
    return View([_instance(0, range(4), 122), _instance(1, range(3, 7), 88), silent], [])
