"""Reads JSON behind a Schema Registry's frame, and holds it to its schema, by confluent-kafka's own deserialiser.

Rules:
 1. Numbers leave as they came: the deserialiser is given our parser.
 2. What a schema refers to (`$ref`) comes from the registry, by the names and ids under which it was registered. The
    deserialiser's own validation would fetch anything else from the network. So it validates nothing, and the library
    under it (jsonschema) is asked with the schemas that were fetched.
 3. A schema that names no draft is of draft 7, as Confluent's other clients take it.
 4. A `pattern` takes no longer than the text is long. One that needs look-around or back-references is not checked.
 5. A detail names the field and the rule that it breaks, and the value's type: never the value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urljoin

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from jsonschema import Draft7Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7

from consumer.events.decoding import SHOWN_CHARACTERS, Undecodable, decode, kind
from consumer.events.formats import debezium
from consumer.events.formats.formats import Named, Reader

# A value is read by the schema that its frame names, so no subject is asked for; rule 2 is why it does not validate.
_CONFIGURATION = {"subject.name.strategy": lambda *_: None, "validate": False}


class _NoJsonError(Exception):
    """The value behind the frame is no JSON."""

    def __init__(self, found: Undecodable) -> None:
        super().__init__()
        self.found = found


def json_reader(
    schema: Schema, references: Mapping[str, Schema], client: SchemaRegistryClient, *, is_validated: bool
) -> Reader:
    """Return what reads the values of a schema; `references` are by the names under which it refers to them.

    Raises ValueError and jsonschema's SchemaError where the schema is none.
    """
    parsed: object = json.loads(schema.schema_str or "")
    title = _title(parsed)
    deserialise = JSONDeserializer(None, None, client, _CONFIGURATION, None, None, _decoded)
    validator = _validator(parsed, references) if is_validated else None

    def read(value: bytes, *, as_change: bool) -> Named | Undecodable:
        try:
            event: object = deserialise(value)
        except _NoJsonError as error:
            return error.found
        except Exception as error:  # noqa: BLE001 - the library's decoder, given any bytes
            return Undecodable(f"its bytes are not what its schema says ({type(error).__name__})")
        if validator is not None and (why := _violation(validator, event)) is not None:
            return Undecodable(why)
        if as_change and isinstance(event := debezium.unwrapped(event), Undecodable):
            return event
        return Named(event, title)

    return read


def _title(parsed: object) -> str | None:
    """Return what Confluent's clients take for a JSON Schema's record name."""
    title = parsed.get("title") if isinstance(parsed, dict) else None
    return title if isinstance(title, str) else None


def _decoded(payload: bytes) -> object:
    event = decode(payload)
    if isinstance(event, Undecodable):
        raise _NoJsonError(event)
    return event


def _validator(parsed: Any, references: Mapping[str, Schema]) -> Validator:
    kind_of = validator_for(parsed, default=Draft7Validator)
    kind_of.check_schema(parsed)
    base = str(parsed.get("$id", "")) if isinstance(parsed, dict) else ""
    known = Registry[Any]()
    for name, each in references.items():
        resource = Resource.from_contents(json.loads(each.schema_str or ""), default_specification=DRAFT7)
        known = known.with_resources([(name, resource), (urljoin(base, name), resource)])
        if (own := resource.id()) is not None:
            known = known.with_resource(own, resource)
    with_patterns = cast("type[Validator]", cast("Any", extend)(kind_of, {"pattern": _pattern}))
    return with_patterns(parsed, registry=known.crawl())


def _violation(validator: Validator, event: object) -> str | None:
    """Return which field breaks which rule; None: none does."""
    try:
        error = best_match(validator.iter_errors(cast("Any", event)))
    except Unresolvable:
        return "its schema cannot be used: it refers to a schema that is not registered as its reference"
    except RecursionError:
        return "its schema cannot be used: it refers to itself without end"
    return None if error is None else f"it is not what its schema says: {_field(error)}: {_rule(error)}"


def _field(error: ValidationError) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return path.removeprefix(".")[:SHOWN_CHARACTERS] or "the value itself"


def _rule(error: ValidationError) -> str:
    match error.validator, error.validator_value, error.instance:
        case "required", list() as names, dict() as found:
            missing = ", ".join(str(name) for name in names if name not in found)
            return f"`required`, without {missing[:SHOWN_CHARACTERS]}"
        case rule, _, found:
            return f"`{rule or 'false'}`, found {kind(found)}"  # a schema that is `false` allows nothing


def _pattern(_: Validator, pattern: str, text: object, __: object) -> Iterator[ValidationError]:
    if isinstance(text, str) and (compiled := _linear(pattern)) is not None and not compiled.isinstance_python(text):
        yield ValidationError("pattern")


@lru_cache(1000)
def _linear(pattern: str) -> SchemaValidator | None:
    """Compile a pattern for an engine that does not go back (rule 4). None: it cannot be."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True))
    except SchemaError:
        return None
