"""The sections that name topics: `source`, and what belongs to it: `delay`, `dead_letters`, `outcomes`, `control`.

A name may be a template. No two of the topics that it comes to may be the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from consumer.config.sections.section import Section, error_at, errors_at
from consumer.events.durations import UNITS_S, PositiveSeconds
from consumer.events.formats.formats import TopicFormat
from consumer.events.routing.router import TOMBSTONES, Tombstone

_TOPIC = re.compile(r"[a-zA-Z0-9._-]+")
MAX_TOPIC_LENGTH = 249  # Kafka's own limit
SOURCE = "{source}"
GROUP = "{group}"
NO_TOPIC = "none"
_NO_SOURCE = "must be one of source.topics"


def _source_topic(name: str) -> str:
    if (why := topic_error(name)) is not None:
        raise ValueError(why)
    return name


def _some_and_all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("must not be empty")
    if len(set(names)) < len(names):
        raise ValueError("must not name a topic twice")
    return names


class Source(Section):
    """Where the events come from."""

    topics: Annotated[
        tuple[Annotated[str, AfterValidator(_source_topic)], ...],
        AfterValidator(_some_and_all_different),  # not pydantic's length: it counts only the good ones
        Field(
            description="The topics that hold the events. Patterns are not supported.",
            json_schema_extra={"minItems": 1, "uniqueItems": True},
        ),
    ] = ("orders",)
    formats: dict[str, TopicFormat] = Field(
        default_factory=dict,
        description="What the values of a topic look like, by its name. Default: JSON.",
    )
    tombstones: Annotated[tuple[Tombstone, ...], Field(json_schema_extra={"uniqueItems": True})] = Field(
        TOMBSTONES,
        description="Values that stand for a deletion and are ignored: `absent` (none at all), `empty` (no bytes),"
        " `literal_null` (the JSON text null). One that is not in the list becomes a dead letter.",
    )
    compacted: Literal["refuse", "accept"] = Field(
        "refuse",
        description="What to do where a source topic is compacted, which deletes an order's earlier events, also those "
        "that were not read yet.",
    )
    removed: Literal["deliver", "leave"] = Field(
        "deliver",
        description="What to do with actions that are pending of a topic that is not in `topics` any more. `deliver` "
        "sends them, and reads nothing from the topic.",
    )

    @field_validator("formats")
    @classmethod
    def _of_its_topics(cls, formats: dict[str, TopicFormat], info: ValidationInfo) -> dict[str, TopicFormat]:
        topics = info.data.get("topics")
        if topics is not None and (strange := [error_at(name, _NO_SOURCE) for name in formats if name not in topics]):
            raise errors_at(strange)
        return formats


class Delay(Section):
    """The topic of the pending actions, one per source topic."""

    topic: str = Field(
        "{source}.engage.delay",
        description="The topic that holds the pending actions. {source} stands for the source topic's name.",
    )


class DeadLetters(Section):
    """The topic of the dead letters."""

    topic: str = Field(
        "{source}.engage.dead-letters",
        description="The topic that holds the dead letters. {source} stands for the source topic's name.",
    )
    keep: PositiveSeconds = Field(
        30 * UNITS_S["d"],
        description="Dead letters must live at least so long: a topic with a shorter retention is refused.",
    )


def or_off(schema: dict[str, Any]) -> None:
    """Let a section's JSON Schema take `off` as well."""
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "off"}, {"const": False}]


class Outcomes(Section):
    """The topic of the outcomes: what became of each action."""

    topic: str = Field(
        "{source}.engage.outcomes",
        description="The topic that holds the outcomes. {source} stands for the source topic's name; `none`: no"
        " outcomes are written, and commands that read them say so.",
    )
    retention: PositiveSeconds = Field(
        90 * UNITS_S["d"],
        description="How long `topics create` keeps outcomes. A topic with a shorter retention is refused.",
    )

    def name_for(self, source: str) -> str | None:
        """Return the topic of a source's outcomes; None where none are written."""
        return None if self.topic == NO_TOPIC else self.topic.replace(SOURCE, source)


class Control(Section):
    """The topic through which a person tells all instances something: quiet mode."""

    topic: str = Field(
        "{group}.engage.control",
        description="The topic that holds the pauses (`engage-relay pause`). {group} stands for kafka.group.id; `none`:"
        " there is no such topic, and nothing can be paused.",
    )


def topic_error(name: str) -> str | None:
    """Say why this is no topic's name; None: it is one."""
    if name.startswith("^"):
        return "must be a topic's own name: patterns are not supported, list each topic"
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        return "must be a topic's name: letters, digits, '.', '_' and '-'"
    return f"must be at most {MAX_TOPIC_LENGTH} characters" if len(name) > MAX_TOPIC_LENGTH else None


def template_error(template: str, sources: tuple[str, ...], taken: dict[str, tuple[str, ...]]) -> str | None:
    """Say why a template gives no topics of its own; None: it does. `taken`: by kind."""
    names = names_of(template, sources)
    for name in names:
        if (why := topic_error(name)) is not None:
            return f"{why} (in braces only {SOURCE} has a meaning)" if "{" in name or "}" in name else why
    return next((f"must not be a {kind} topic" for kind, others in taken.items() if set(names) & set(others)), None)


def names_of(template: str, sources: tuple[str, ...]) -> tuple[str, ...]:
    """Return the topics of these source topics."""
    return tuple(template.replace(SOURCE, source) for source in sources)


def of_group(template: str, kafka: Mapping[str, object]) -> str:
    """Return the topic of the group."""
    return template.replace(GROUP, str(kafka["group.id"]))
