"""Writes the tables of docs/configuration.md: `python -m tools.configuration_reference` (`--check`: only compare).

Rules:
 1. Keys, types, defaults and variables come from the settings model, properties from what each Kafka client is given:
    nothing is copied by hand.
 2. A meaning is the model's own description. A key without one is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from consumer.config.environment import SHORT, variable_for
from consumer.config.sections import kafka_properties
from consumer.config.settings import json_schema
from consumer.events.durations import UNITS_S
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.kafka import clients
from tools.generated import write_or_check

FILE = Path(__file__).parents[1] / "docs" / "configuration.md"
NAME = "NAME"  # what the user calls a connection, a route or a property
JMESPATH_NOT = frozenset({"action", "on_unknown"})  # the keys of a route that are no expressions (routing.RouteRule)
Schema = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Setting:
    """A row: one key that can be written. `default` is None where there is none."""

    path: tuple[str, ...]
    kind: str
    default: str | None
    meaning: str

    @property
    def key(self) -> str:
        """The key as it is written, with dots."""
        return ".".join(self.path)


def settings() -> list[Setting]:
    """Return every key but Kafka's properties, in the model's order."""
    schema = json_schema()
    return list(_rows(schema, schema["$defs"], ()))


def _rows(section: Schema, definitions: Mapping[str, Schema], path: tuple[str, ...]) -> Iterator[Setting]:
    keys = section["properties"]
    required = section.get("required", ())
    assert isinstance(keys, dict) and isinstance(required, list | tuple)  # noqa: S101, PT018 - JSON Schema's own shape
    for key, schema in keys.items():
        at = (*path, key)
        if at == ("kafka",):
            continue
        if (inner := _section(schema, definitions)) is not None:
            yield from _rows(inner, definitions, at)
        elif (named := _section(schema.get("additionalProperties"), definitions)) is not None:
            yield from _rows(named, definitions, (*at, NAME))
        else:
            yield Setting(at, _kind(at, schema), _default(schema, required=key in required), str(schema["description"]))


def _section(schema: object, definitions: Mapping[str, Schema]) -> Schema | None:
    """Return the section that a schema refers to."""
    if not isinstance(schema, dict):
        return None
    for each in (schema, *schema.get("anyOf", ())):
        if "$ref" in each:
            return definitions[str(each["$ref"]).removeprefix("#/$defs/")]
    return None


def _kind(path: tuple[str, ...], schema: Schema) -> str:
    choices = list(_choices(schema))
    if any("pattern" in each for each in choices):
        return " or ".join([*(f"`{each['const']}`" for each in choices if each.get("const")), "duration"])
    if path[-1] == "only_for":
        return "list of text, or JMESPath"
    (choice,) = (each for each in choices if each["type"] != "null")
    match choice:
        case {"enum": names}:
            assert isinstance(names, list)  # noqa: S101 - JSON Schema's own shape
            return ", ".join(f"`{name}`" for name in names)
        case {"format": "path"}:
            return "path"
        case {"type": "array"}:
            return "list of text"
        case {"type": "object"}:
            return "text by name"
        case {"type": "string"} if path[0] == "routes" and path[-1] not in JMESPATH_NOT:
            return "JMESPath"
        case {"type": "string"}:
            return "text"
    return {"boolean": "true or false", "integer": "whole number", "number": "number"}[str(choice["type"])]


def _choices(schema: Schema) -> Iterator[Schema]:
    inner = schema.get("anyOf")
    for each in inner if isinstance(inner, list) else ():
        yield from _choices(each)
    if inner is None:
        yield schema


def _default(schema: Schema, *, required: bool) -> str | None:
    default = schema.get("default")
    if required or default is None:
        return None
    choices = schema.get("anyOf", ())
    if isinstance(default, float) and isinstance(choices, list) and any("pattern" in each for each in choices):
        return _duration(default)
    if isinstance(default, float):
        return f"{default:g}"
    return default if isinstance(default, str) else json.dumps(default)


def _duration(seconds: float) -> str:
    """Write a duration in hours or minutes where those are whole, else in seconds."""
    unit = next((each for each in ("h", "m") if not seconds % UNITS_S[each]), "s")
    return f"{seconds / UNITS_S[unit]:g}{unit}"


def settings_table() -> str:
    """Return the table of all keys."""
    rows = ["| key | type | default | meaning | variable |", "| --- | --- | --- | --- | --- |"]
    for each in settings():
        default = "" if each.default is None else f"`{_cell(each.default)}`"
        variable = f"`{variable_for(each.path)}`"
        rows.append(f"| `{each.key}` | {_cell(each.kind)} | {default} | {_cell(each.meaning)} | {variable} |")
    return "\n".join(rows) + "\n"


def short_table() -> str:
    """Return the table of variables with short names."""
    rows = [f"| `{variable}` | `{'.'.join(map(str, path))}` |" for variable, path in SHORT.items()]
    return "\n".join(["| variable | key |", "| --- | --- |", *rows]) + "\n"


def properties_table() -> str:
    """Return the table of the Kafka properties that the relay sets, and which of them the user may change."""
    given = {"bootstrap.servers": "b:9092"}
    by_client = {"source": clients.member(given), "journal": clients.producer(given, "t")}
    rows = ["| property | client | value | yours |", "| --- | --- | --- | --- |"]
    for client, made in by_client.items():
        for name, value in made.items():
            if name in given or name == "transactional.id":
                continue
            yours = {**given, name: "yours"}
            again = clients.member(yours) if client == "source" else clients.producer(yours, "t")
            refused = "or left out" in (kafka_properties.error(name, "yours") or "")
            fixed = "fixed" if refused or again[name] != "yours" else "may be changed"
            said = json.dumps(value) if isinstance(value, bool) else str(value)
            rows.append(f"| `{name}` | {client} | `{said}` | {fixed} |")
    return "\n".join(rows) + "\n"


def routes_table() -> str:
    """Return the table of the built-in routes."""
    rows = [f"| `{name}` | `{rule.when}` | `{rule.action}` |" for name, rule in BUILT_IN_ROUTES.items()]
    return "\n".join(["| route | when | action |", "| --- | --- | --- |", *rows]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


TABLES = {"keys": settings_table, "short": short_table, "properties": properties_table, "routes": routes_table}


def current(document: str) -> str:
    """Return the document with its tables rewritten."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, remainder = document.partition(begin)
        _, found, after = remainder.partition(end)
        if not found:
            raise ValueError(f"{FILE} has no markers for {name}: {begin.strip()} ... {end.strip()}")
        document = before + begin + table() + end + after
    return document


def main(arguments: list[str]) -> int:
    """Write the tables, or check them."""
    return write_or_check(FILE, current, arguments, by="tools.configuration_reference")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
