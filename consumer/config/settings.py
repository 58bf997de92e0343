"""The user's configuration as one validated model: its sections, and what no section alone can say.

A `Settings` is valid and need not be checked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails

from consumer.config.sections.admin import Admin
from consumer.config.sections.connections import Engage
from consumer.config.sections.kafka import KafkaProperties
from consumer.config.sections.limits import Limits
from consumer.config.sections.polling import Polling
from consumer.config.sections.registry import Registry
from consumer.config.sections.section import Section, error_at, errors_at
from consumer.config.sections.topics import (
    GROUP,
    NO_TOPIC,
    SOURCE,
    Control,
    DeadLetters,
    Delay,
    Outcomes,
    Source,
    names_of,
    of_group,
    or_off,
    template_error,
    topic_error,
)
from consumer.core.sequences import Sequences
from consumer.events.durations import OFF, UNITS_S, SecondsOrOff
from consumer.events.expressions import ExpressionError, compile_expression, wrong_use
from consumer.events.guards import Ages, Shadow, TooOld, written_out
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.router import Router
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.sequences import wrong_steps, wrong_superseding
from consumer.kafka.topics.rules import TopicRules
from consumer.kafka.topics.topics import RelayTopics
from schemas import DIALECT
from schemas.engage import ActionName

STEPS_WINDOW_S = UNITS_S["d"]  # where no route has `repeats`


class Settings(Section):
    """The whole configuration."""

    guards = frozenset({"max_age", "steps"})
    kafka: KafkaProperties = Field(
        default_factory=dict,
        validate_default=True,
        repr=False,  # holds passwords
        description="Any librdkafka property, under its own name. bootstrap.servers is required.",
    )
    source: Source = Source()
    registry: Registry | None = Field(
        None, validate_default=True, description="The Schema Registry, for topics whose values are framed."
    )
    delay: Delay = Field(Delay(), validate_default=True)
    dead_letters: DeadLetters = Field(DeadLetters(), validate_default=True)
    outcomes: Outcomes = Field(Outcomes(), validate_default=True, json_schema_extra=or_off)
    control: Control = Field(Control(), validate_default=True)
    engage: Engage = Field(default_factory=dict, validate_default=True)
    polling: Polling = Polling()
    limits: Limits = Limits()
    admin: Admin = Admin()
    max_age: SecondsOrOff | None = Field(
        None,
        description="The oldest event, by a route's `event_time`, whose action is sent. `off`: events may be as old as"
        " they like, and `run --from earliest` asks no more. A route may have its own.",
    )
    too_old: TooOld = Field(
        "dead_letter",
        description="What becomes of an older event: `dead_letter`, with the reason `too_old`, or `ignore`.",
    )
    repeats: SecondsOrOff = Field(
        24 * 3600.0,
        description="For how long the same fact of an order (a route's `fact`) is not sent again; `off`: each event is"
        " sent. A route may have its own.",
    )
    tables: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        validate_default=True,
        description="Tables by name, for `lookup('NAME', key)` in the routes: keys and what they stand for.",
    )
    routes: dict[str, RouteRule | None] = Field(
        default_factory=dict,
        description="Your routes by name. The relay tries them in this order, before the built-in ones; null switches"
        " a built-in route off.",
    )
    steps: tuple[ActionName, ...] = Field(
        (),
        description="An order's actions in their sequence, such as [ConfirmOrder, ConfirmDelivery]. An action is not"
        " sent after a later one of the same order was sent, for as long as `repeats` says (24h where that is off)."
        " Default: actions are sent as their events come.",
    )

    @field_validator("registry")
    @classmethod
    def _where_it_is_needed(cls, registry: Registry | None, info: ValidationInfo) -> Registry | None:
        if registry is None and isinstance(source := info.data.get("source"), Source):
            framed = [name for name, each in source.formats.items() if each.format == "confluent"]
            if framed:
                raise ValueError(f"missing: source.formats.{framed[0]} needs the address of a Schema Registry")
        return registry

    @field_validator("delay")
    @classmethod
    def _delay_topics_apart(cls, delay: Delay, info: ValidationInfo) -> Delay:
        _check_topics(delay.topic, info, of_its_own="a delay topic")
        return delay

    @field_validator("dead_letters")
    @classmethod
    def _dead_letter_topics_apart(cls, dead_letters: DeadLetters, info: ValidationInfo) -> DeadLetters:
        _check_topics(dead_letters.topic, info)
        return dead_letters

    @field_validator("outcomes", mode="before")
    @classmethod
    def _without_outcomes(cls, outcomes: object) -> object:
        """Read `outcomes: off`; a Helm chart's YAML makes it false."""
        return {"topic": NO_TOPIC} if outcomes == "off" or outcomes is False else outcomes

    @field_validator("outcomes")
    @classmethod
    def _outcome_topics_apart(cls, outcomes: Outcomes, info: ValidationInfo) -> Outcomes:
        if outcomes.topic != NO_TOPIC:
            _check_topics(outcomes.topic, info, of_its_own="an outcomes topic")
        return outcomes

    @field_validator("control")
    @classmethod
    def _control_topic_apart(cls, control: Control, info: ValidationInfo) -> Control:
        kafka, source = info.data.get("kafka"), info.data.get("source")
        if control.topic == NO_TOPIC or kafka is None or not isinstance(source, Source):
            return control
        name = of_group(control.topic, kafka)
        why = topic_error(name)
        if why is not None and GROUP in control.topic:
            why = f"{why}, with kafka.group.id in the place of {GROUP}: write a topic's name, or {NO_TOPIC}"
        if why is None:
            taken = _taken(info, source)
            why = next((f"must not be a {kind} topic" for kind, others in taken.items() if name in others), None)
        if why is not None:
            raise errors_at([error_at("topic", why)])
        return control

    @field_validator("routes")
    @classmethod
    def _with_tables(cls, routes: dict[str, RouteRule | None], info: ValidationInfo) -> dict[str, RouteRule | None]:
        """Check what an expression alone does not show: whether what it names is there, and what its key is for."""
        tables, engage = info.data.get("tables"), info.data.get("engage")
        connections = None if engage is None else tuple(engage.connections)
        wrong: list[InitErrorDetails] = []
        for name, rule in routes.items():
            for key, text in ({} if rule is None or tables is None else expressions_of(rule)).items():
                try:
                    compile_expression(text, tables)
                except ExpressionError as error:
                    wrong.append({**error_at(key, str(error)), "loc": (name, key)})
                why = None if connections is None else wrong_use(key, text, connections)
                if why is not None:
                    wrong.append({**error_at(key, why), "loc": (name, key)})
        wrong += [error_at(name, why) for name, why in _meant_as_built_in(routes)]
        wrong += [
            {**error_at("superseded_by", why), "loc": (name, "superseded_by")}
            for name, why in wrong_superseding(_effective(routes))
        ]
        if wrong:
            raise errors_at(wrong)
        return routes

    _written_out = field_validator("max_age", "steps", mode="before")(written_out)

    @field_validator("steps")
    @classmethod
    def _of_known_actions(cls, steps: tuple[ActionName, ...], info: ValidationInfo) -> tuple[ActionName, ...]:
        routes = info.data.get("routes")
        if routes is not None and (why := wrong_steps(steps, _effective(routes))) is not None:
            raise ValueError(why)
        return steps

    @property
    def topics(self) -> tuple[RelayTopics, ...]:
        """Each source topic with those that belong to it."""
        return tuple(map(self.topics_of, self.source.topics))

    def topics_of(self, source: str) -> RelayTopics:
        """Return a source topic, configured or not any more, with those that belong to it."""
        delay, dead_letters = (each.topic.replace(SOURCE, source) for each in (self.delay, self.dead_letters))
        return RelayTopics(source, delay, dead_letters, self.outcomes.name_for(source))

    @property
    def control_topic(self) -> str | None:
        """The control topic; None where there is none."""
        return None if self.control.topic == NO_TOPIC else of_group(self.control.topic, self.kafka)

    @property
    def topic_rules(self) -> TopicRules:
        """What is asked of those topics' configuration."""
        accepted = self.source.compacted == "accept"
        return TopicRules(self.dead_letters.keep, accepted, self.outcomes.retention, self.longest_window_s)

    @property
    def effective_routes(self) -> dict[str, RouteRule]:
        """The routes in the order in which they are tried: the user's, then what is left of the built-in ones."""
        return _effective(self.routes)

    @field_validator("tables")
    @classmethod
    def _of_only_for(cls, tables: dict[str, dict[str, str]], info: ValidationInfo) -> dict[str, dict[str, str]]:
        """Check what an `only_for` alone does not show: whether the tables are there that it looks up."""
        engage = info.data.get("engage")
        for name, connection in (engage.connections if isinstance(engage, Engage) else {}).items():
            try:
                connection.orders_served(tables)
            except ExpressionError as error:
                raise ValueError(f"engage.connections.{name}.only_for: {error}") from None
        return tables

    @property
    def longest_repeats_s(self) -> float | None:
        """The longest window of the routes; None: each event is sent."""
        named = [self.repeats if each.repeats is None else each.repeats for each in self.effective_routes.values()]
        return max((each for each in named if isinstance(each, float)), default=None)

    @property
    def sequences(self) -> Sequences:
        """What an order's later actions do to its earlier ones."""
        superseded_by = {name: rule.superseded_by for name, rule in self.effective_routes.items()}
        return Sequences(superseded_by, self.steps, self.longest_window_s or 0.0)

    @property
    def longest_window_s(self) -> float | None:
        """How long what was sent is remembered, for `repeats` and `steps`; None: it is not."""
        return self.longest_repeats_s or (STEPS_WINDOW_S if self.steps else None)

    @property
    def ages(self) -> Ages:
        """How old events may be, where their route says nothing of its own."""
        return Ages(max_age_s=None if self.max_age in (None, OFF) else float(self.max_age), too_old=self.too_old)

    @property
    def router(self) -> Router:
        """What decides over the events: the same for `run` and for a dry run."""
        return self.router_of(None)

    def router_of(self, shadow: Shadow | None) -> Router:
        """Return the router of a run that sends nothing, where it is one (`run --shadow`)."""
        only_for = {
            name: served
            for name, each in self.engage.connections.items()
            if (served := each.orders_served(self.tables)) is not None
        }
        repeats_s = None if self.repeats == OFF else float(self.repeats)
        routes = compile_routes(self.effective_routes, self.tables, self.ages, repeats_s)
        return Router(routes, self.engage.connections, self.source.tombstones, only_for=only_for, shadow=shadow)

    @property
    def dead_letter_topics(self) -> frozenset[str]:
        """The topics of our own dead letters."""
        return frozenset(each.dead_letters for each in self.topics)


def _check_topics(template: str, info: ValidationInfo, *, of_its_own: str | None = None) -> None:
    """Raise where the topics of a section are none, or another section's. `of_its_own`: what each source needs."""
    if isinstance(source := info.data.get("source"), Source):
        why = template_error(template, source.topics, _taken(info, source))
        if why is None and of_its_own is not None and len(source.topics) > 1 and SOURCE not in template:
            why = f"must hold {SOURCE}: each source topic needs {of_its_own} of its own"
        if why is not None:
            raise errors_at([error_at("topic", why)])


def _taken(info: ValidationInfo, source: Source) -> dict[str, tuple[str, ...]]:
    """Return the topics of the sections before this one, by kind."""
    taken = {"source": source.topics}
    for kind in ("delay", "dead_letters", "outcomes"):
        if (section := info.data.get(kind)) is not None:
            taken[kind.replace("_", "-")] = names_of(section.topic, source.topics)
    return taken


def _meant_as_built_in(routes: Mapping[str, RouteRule | None]) -> Iterator[tuple[str, str]]:
    """Find names that switch nothing off, and are nearly a built-in route's: that one would go on sending."""
    sending = BUILT_IN_ROUTES.keys() - routes.keys()
    for name in [name for name, rule in routes.items() if rule is None and name not in BUILT_IN_ROUTES]:
        if near := get_close_matches(name.lower(), sending, n=1, cutoff=0.8):
            yield name, f"switches no route off, did you mean {near[0]}?"


def _effective(routes: Mapping[str, RouteRule | None]) -> dict[str, RouteRule]:
    named = {**routes, **{name: rule for name, rule in BUILT_IN_ROUTES.items() if name not in routes}}
    return {name: rule for name, rule in named.items() if rule is not None}


def json_schema() -> dict[str, Any]:
    """Return the file's JSON Schema (2020-12). What it requires may also come from the environment."""
    return {"$schema": DIALECT, "$id": "urn:engage-relay:configuration:1", **Settings.model_json_schema()}
