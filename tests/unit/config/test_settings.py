"""What no section alone can say: the routes, the steps, the JSON Schema."""

from __future__ import annotations

import pytest
import yaml
from jsonschema import Draft202012Validator

from consumer.config.settings import json_schema
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from tests.unit.config.workspace import EXAMPLE, THREE, Workspace


def test_the_users_routes_come_first_and_null_switches_a_built_in_off(relay: Workspace) -> None:
    routes = "routes: {vip: {action: Custom}, shipped: null, confirmed: {action: Custom}, gone: null}"

    effective = relay.load(routes, THREE).effective_routes

    left = [name for name in BUILT_IN_ROUTES if name not in ("shipped", "confirmed")]
    assert list(effective) == ["vip", "confirmed", *left]
    assert effective["confirmed"].action == "Custom"


@pytest.mark.parametrize(("name", "meant"), [("shiped", "shipped"), ("Shipped", "shipped"), ("canceled", "cancelled")])
def test_a_route_that_is_switched_off_by_a_misspelt_name_is_refused(relay: Workspace, name: str, meant: str) -> None:
    (error,) = relay.errors(f"routes: {{{name}: null}}", THREE)
    assert f"routes.{name}: switches no route off, did you mean {meant}?" in error
    relay.load(f"routes: {{{name}: null, {meant}: null}}", THREE)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"when": "'order.shipped'"}, "when: takes every event: a text by itself is true"),
        ({"when": "true"}, "when: `true` names a field here"),
        ({"order_id": "'A-1'"}, "order_id: is the same order for every event"),
        ({"connection": "default"}, "connection: `default` names a field here: a text stands in single quotes"),
        ({"order_id": "refs[?kind == 'order'].value"}, "order_id: gives a list, never a text: put brackets around"),
        ({"language": "[locale]"}, "language: gives a list, never a text: put brackets around (… | [0])"),
        ({"order": "orders[] | [?open]"}, "order: gives a list, never an object: put brackets around (… | [0])"),
        ({"connection": "'defualt'"}, "connection: 'defualt' is not configured; there are default"),
    ],
)
def test_what_no_event_can_make_right_is_refused_in_its_key(relay: Workspace, keys: dict[str, str], why: str) -> None:
    (error,) = relay.errors(yaml.safe_dump({"routes": {"mine": {"action": "ConfirmOrder", **keys}}}), THREE)
    assert f"routes.mine.{why}" in error


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("engage: {connections: {default: {base_url: https://x, api_key: k, only_for: }}}", "default.only_for"),
        ("max_age:", "max_age"),
        ("steps:", "steps"),
        ("routes: {mine: {action: ConfirmOrder, when: }}", "routes.mine.when"),
        ("routes: {mine: {action: ConfirmOrder, max_age: }}", "routes.mine.max_age"),
    ],
)
def test_a_guard_without_a_value_is_refused(relay: Workspace, text: str, key: str) -> None:
    """A template whose value is not set writes it so. An `only_for` without orders served all customers."""
    (error,) = relay.errors(text + "\n", THREE)
    assert error.endswith(f"{key}: is empty, and would keep nothing back: leave the key out if that is meant")


def test_another_key_without_a_value_is_one_that_was_left_out(relay: Workspace) -> None:
    relay.load("repeats:\nlimits:\npolling: {deadline: }\nroutes: {mine: {action: ConfirmOrder, language: }}\n", THREE)


def test_a_route_without_a_connection_needs_the_one_that_is_called_default(relay: Workspace) -> None:
    connections = "engage: {connections: {se: {base_url: https://se, api_key: k}}}\n"
    (error,) = relay.errors(connections + "routes: {mine: {action: ConfirmOrder}}", {"KAFKA_BOOTSTRAP_SERVERS": "x:1"})
    assert error.endswith("routes.mine.connection: 'default' is not configured; there are se")
    relay.load(
        connections + "routes: {mine: {action: ConfirmOrder, connection: \"'se'\"}}", {"KAFKA_BOOTSTRAP_SERVERS": "x:1"}
    )


def test_what_is_wrong_with_an_orders_sequence_is_told_at_its_place(relay: Workspace) -> None:
    routes = "routes:\n  mine: {action: ConfirmOrder, superseded_by: [canceled]}\n"
    (error,) = relay.errors(routes, THREE)
    assert error.endswith("2:32 routes.mine.superseded_by: name 1 is no route's; did you mean cancelled?")
    (error,) = relay.errors("steps: [ConfirmOrder, ConfirmOrder]", THREE)
    assert error.endswith("1:1 steps: name 2 was named before: each action is one step")


def test_a_route_that_is_switched_off_supersedes_nothing(relay: Workspace) -> None:
    routes = "routes: {mine: {action: ConfirmOrder, superseded_by: [cancelled]}, cancelled: null}"
    assert "name 1 is no route's" in relay.errors(routes, THREE)[0]
    sequences = relay.load(routes.replace(", cancelled: null", ""), THREE).sequences
    assert sequences.superseded_by == {"mine": frozenset({"cancelled"})}


def test_the_json_schema_takes_the_example_and_refuses_a_misspelt_key() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    written = yaml.safe_load(EXAMPLE)

    validator.validate(written)
    written["polling"] = {"initial": 2, "max_interval": "sixty"}
    written["limit"] = {}
    assert {error.json_path for error in validator.iter_errors(written)} == {"$", "$.polling.max_interval"}


def test_the_json_schemas_defaults_are_what_one_would_write() -> None:
    sections = json_schema()["$defs"]

    assert sections["Admin"]["properties"]["listen"]["default"] == "0.0.0.0:8080"
    assert sections["Connection"]["properties"]["requests_per_second"]["exclusiveMinimum"] == 0
