"""The user's configuration, from a file and the environment, as one validated model.

Rules:
 1. All errors are reported at once, a line each, with their position: file, line and column, or variable.
 2. An error says what to write instead, in an operator's words. It never holds a value, which may be a secret.
 3. A `Settings` is valid and need not be checked again. Loading opens only the configuration file, so it does not
    check what only a broker, Engage or a secret's file can show.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticKnownError

from consumer.config import environment, kafka_properties, login, yaml_file
from consumer.config.errors import Errors
from consumer.config.registry import Registry
from consumer.config.section import Section as _Section
from consumer.config.section import errors_at as _errors_at
from consumer.config.section import wrong as _wrong
from consumer.config.yaml_file import ConfigurationFile, UnreadableFileError
from consumer.core.sequences import Sequences
from consumer.engage import headers as http_headers
from consumer.engage.api_key import LEGAL_KEY, ApiKey
from consumer.engage.http import Origin
from consumer.engage.proxies import DIRECT, Proxy, proxy_at, proxy_for
from consumer.errors import ConfigurationError
from consumer.events.durations import AS_DURATION, OFF, UNITS_S, PositiveSeconds, Seconds, SecondsOrOff, seconds
from consumer.events.expressions import ExpressionError, Tables, compile_expression, wrong_constant
from consumer.events.formats.formats import TopicFormat
from consumer.events.guards import Ages, OnlyFor, Shadow, TooOld
from consumer.events.routing.canonical import BUILT_IN_ROUTES
from consumer.events.routing.router import TOMBSTONES, Router, Tombstone
from consumer.events.routing.routes import compile_routes
from consumer.events.routing.rules import RouteRule, expressions_of
from consumer.events.sequences import wrong_steps, wrong_superseding
from consumer.kafka.topics.rules import TopicRules
from consumer.kafka.topics.topics import RelayTopics
from schemas import DIALECT
from schemas.engage import ActionName

STEPS_WINDOW_S = UNITS_S["d"]  # where no route has `repeats`

# Numbers


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")  # to Python, true is 1
    return value


InitialSeconds = Annotated[
    float | Literal["auto"],
    BeforeValidator(lambda value: value if value == "auto" else seconds(value)),
    WithJsonSchema({"anyOf": [{"const": "auto"}, *AS_DURATION]}),
]


# kafka


def _properties(written: object) -> object:
    if not isinstance(written, dict | None):
        return written  # the type's own error
    properties = {"group.id": "engage-relay", **(written or {})}
    wrong = [
        _wrong(name, text)
        for name, value in properties.items()
        if (text := kafka_properties.error(name, value)) is not None
    ]
    if not wrong:
        wrong = [_wrong(name, text) for name, text in login.errors(properties)]
    if "bootstrap.servers" not in properties:
        wrong.append(InitErrorDetails(type="missing", loc=("bootstrap.servers",), input=None))
    if wrong:
        raise _errors_at(wrong)
    return properties


KafkaProperties = Annotated[dict[str, str | int | float | bool], BeforeValidator(_properties)]


# source, delay, dead_letters: topics

_TOPIC = re.compile(r"[a-zA-Z0-9._-]+")
MAX_TOPIC_LENGTH = 249  # Kafka's own limit
SOURCE = "{source}"


def _topic_error(name: str) -> str | None:
    if name.startswith("^"):
        return "must be a topic's own name: patterns are not supported, list each topic"
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        return "must be a topic's name: letters, digits, '.', '_' and '-'"
    return f"must be at most {MAX_TOPIC_LENGTH} characters" if len(name) > MAX_TOPIC_LENGTH else None


def _source_topic(name: str) -> str:
    if (why := _topic_error(name)) is not None:
        raise ValueError(why)
    return name


def _some_and_all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("must not be empty")
    if len(set(names)) < len(names):
        raise ValueError("must not name a topic twice")
    return names


class Source(_Section):
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
        if topics is not None and (strange := [_wrong(name, _NO_TOPIC) for name in formats if name not in topics]):
            raise _errors_at(strange)
        return formats


_NO_TOPIC = "must be one of source.topics"


def _of_group(template: str, kafka: Mapping[str, object]) -> str:
    return template.replace(GROUP, str(kafka["group.id"]))


def _names(template: str, sources: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template.replace(SOURCE, source) for source in sources)


def _template_error(template: str, sources: tuple[str, ...], taken: dict[str, tuple[str, ...]]) -> str | None:
    names = _names(template, sources)
    for name in names:
        if (why := _topic_error(name)) is not None:
            return f"{why} (in braces only {SOURCE} has a meaning)" if "{" in name or "}" in name else why
    return next((f"must not be a {kind} topic" for kind, others in taken.items() if set(names) & set(others)), None)


class Delay(_Section):
    """The topic of the pending actions, one per source topic."""

    topic: str = Field(
        "{source}.engage.delay",
        description="The topic that holds the pending actions. {source} stands for the source topic's name.",
    )


class DeadLetters(_Section):
    """The topic of the dead letters."""

    topic: str = Field(
        "{source}.engage.dead-letters",
        description="The topic that holds the dead letters. {source} stands for the source topic's name.",
    )
    keep: PositiveSeconds = Field(
        30 * UNITS_S["d"],
        description="Dead letters must live at least so long: a topic with a shorter retention is refused.",
    )


NO_TOPIC = "none"


def _or_off(schema: dict[str, Any]) -> None:
    """Let a section's JSON Schema take `off` as well."""
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "off"}, {"const": False}]


class Outcomes(_Section):
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


GROUP = "{group}"


class Control(_Section):
    """The topic through which a person tells all instances something: quiet mode."""

    topic: str = Field(
        "{group}.engage.control",
        description="The topic that holds the pauses (`engage-relay pause`). {group} stands for kafka.group.id; `none`:"
        " there is no such topic, and nothing can be paused.",
    )


# engage: connections

_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _legal_key(key: SecretStr) -> SecretStr:
    if not LEGAL_KEY.fullmatch(key.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return key


def _header_error(name: str) -> str | None:
    if not http_headers.NAME.fullmatch(name):
        return "must be the name of an HTTP header"
    return "must not be a header that the relay sets itself" if http_headers.is_reserved(name) else None


def _legal_header(name: str) -> str:
    if (why := _header_error(name)) is not None:
        raise ValueError(why)
    return name


def _legal_header_value(value: str) -> str:
    if not http_headers.VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII, with no space at either end")
    return value


HeaderValue = Annotated[str, AfterValidator(_legal_header_value)]


def _only_for(written: object) -> tuple[str, ...] | str:
    """Read the orders that a connection serves: their ids, or an expression. Raises ValueError."""
    if isinstance(written, str) and not written.startswith('["'):
        compile_expression(written)
        return written
    if isinstance(written, str):  # a variable's list; as an expression it would be true for every order
        written = json.loads(written)
    if not isinstance(written, list | tuple) or any(isinstance(each, bool) for each in written):
        raise ValueError("must be a list of order ids, or an expression over the event")
    if not all(isinstance(each, str | int) for each in written):
        raise ValueError("must be a list of order ids, or an expression over the event")
    return tuple(map(str, written))


class Connection(_Section):
    """One Engage tenant: its address, its key and its rate limit."""

    allow_insecure: bool = Field(False, description="Allow plain http to other hosts than this one.")
    base_url: str = Field(
        description="Address of the tenant: https://host[:port][/path], without /api/v3.",
        # For editors and Helm; `_safe` knows more.
        json_schema_extra={"pattern": r"^https?://[^\s/?#@]+(?:/[^\s?#]*)?$"},
    )
    api_key_file: Path | None = Field(None, description="File that holds the API key; read again when it changes.")
    api_key: Annotated[SecretStr, AfterValidator(_legal_key)] | None = Field(
        None, validate_default=True, description="The API key itself. Set either this or `api_key_file`."
    )
    api_key_header: Annotated[str, AfterValidator(_legal_header)] = Field(
        "apikey", description="The HTTP header that carries the API key."
    )
    requests_per_second: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Rate limit of the API key, shared by all instances. Engage recommends to stay below 50, and"
            " answers 429 above 200.",
        ),
        BeforeValidator(_number),
    ] = 50.0
    user_agent: HeaderValue | None = Field(
        None,
        description="Your system and its version, which Engage asks for, such as AcmePOS/1.5. The relay adds its own.",
    )
    headers: dict[str, HeaderValue] = Field(
        default_factory=dict,
        repr=False,  # may hold a gateway's secret
        description="More HTTP headers for each request, by name.",
    )
    timeout: PositiveSeconds = Field(
        10.0,
        description="The time-out T of a request: T/2 to connect, T without a byte of the answer, 2 T in all.",
    )
    action_timeout: PositiveSeconds = Field(
        30.0,
        description="How long Engage may take to answer an action: a late answer is likelier than a lost one. A longer"
        " time-out makes a stop and a hand-over longer, and may need a longer session.timeout.ms.",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the certificate authorities to trust instead of the public ones."
    )
    only_for: Annotated[
        tuple[str, ...] | str | None,
        PlainValidator(_only_for),
        WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": ["string", "integer"]}}, {"type": "string"}]}),
    ] = Field(
        None,
        repr=False,  # may hold a person's address
        description="The only orders that it serves: a list of their ids, or an expression over the event that is true"
        " for them. Other orders' actions are withheld: a test with production data that mails no customer.",
    )
    proxy: SecretStr | None = Field(
        None,
        description="HTTP proxy to reach Engage through: http://[user:password@]host[:port], or `none` for no proxy."
        " Default: what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.",
    )

    @field_validator("base_url")
    @classmethod
    def _safe(cls, base_url: str, info: ValidationInfo) -> str:
        try:
            origin = Origin(base_url)
        except ValueError:  # its text may hold a part of the URL, which may hold credentials
            origin = None
        if (
            origin is None
            or not base_url.isprintable()
            or not (_HOST_NAME.fullmatch(origin.host) or _address(origin.host))
        ):
            raise ValueError("must be https://host[:port][/path], without credentials, query or fragment")
        if re.search(rb"/api(/|$)", origin.prefix):
            raise ValueError("must end before /api/v3, which the relay adds")
        address = _address(origin.host)
        local = address.is_loopback if address is not None else origin.host.lower() == "localhost"
        if not (origin.secure or local or info.data.get("allow_insecure", True)):
            raise ValueError(
                "must be https: over plain http anybody on the way reads the API key (allow_insecure: true)"
            )
        return base_url

    @field_validator("api_key")
    @classmethod
    def _one_key(cls, api_key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "api_key_file" in info.data and (api_key is None) == (info.data["api_key_file"] is None):
            if api_key is None:
                raise PydanticKnownError("missing")
            raise ValueError("write either api_key or api_key_file, not both")
        return api_key

    @field_validator("headers")
    @classmethod
    def _no_header_of_ours(cls, headers: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        taken = {str(info.data.get("api_key_header", "")).lower()}
        wrong: list[InitErrorDetails] = []
        for name in headers:
            if (why := _header_error(name)) is None and name.lower() in taken:
                why = "must not be the key's header, nor one that is there already"
            taken.add(name.lower())
            if why is not None:
                wrong.append(_wrong(name, why))
        if wrong:
            raise _errors_at(wrong)
        return headers

    @field_validator("proxy")
    @classmethod
    def _legal_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is not None and proxy.get_secret_value() != DIRECT:
            try:
                proxy_at(proxy.get_secret_value())
            except ValueError as error:
                raise ValueError(f"{error}, or {DIRECT}") from None
        return proxy

    def proxy_in(self, environ: Mapping[str, str]) -> Proxy | None:
        """Return the proxy to go through. Raises ValueError, which names the environment's variable that is wrong."""
        if self.proxy is None:
            origin = Origin(self.base_url)
            return proxy_for(origin.host, origin.port, secure=origin.secure, environment=environ)
        return None if self.proxy.get_secret_value() == DIRECT else proxy_at(self.proxy.get_secret_value())

    def orders_served(self, tables: Tables | None) -> OnlyFor | None:
        """Return which orders it serves; None: all. Raises ExpressionError where a table is missing."""
        if self.only_for is None:
            return None
        if isinstance(self.only_for, str):
            return OnlyFor(expression=compile_expression(self.only_for, tables, is_condition=True))
        return OnlyFor(frozenset(self.only_for))

    def key(self) -> ApiKey:
        """Return the key's reader."""
        key = self.api_key or self.api_key_file
        assert key is not None  # noqa: S101 - `_one_key` saw to it
        return ApiKey(key)


class Engage(_Section):
    """Voyado Engage, one connection per tenant."""

    connections: Annotated[dict[str, Connection], Field(min_length=1)] = Field(
        default_factory=lambda: {"default": None},  # its errors then say what is missing
        validate_default=True,
    )


# polling, limits, admin


class Polling(_Section):
    """When to poll for a versionTag."""

    initial: InitialSeconds = Field(
        "auto",
        description="`auto` learns from each connection's processing times when to poll. A duration is the wait before"
        " the first poll; the waits after it grow by a fixed factor.",
    )
    max_interval: PositiveSeconds = Field(60.0, description="Longest wait between two polls for an action.")
    deadline: PositiveSeconds = Field(
        24 * 3600.0,
        description="An action that is not delivered by then becomes a dead letter, unless Engage as a whole cannot be"
        " reached or refuses the API key.",
    )
    not_found_grace: Seconds = Field(
        600.0,
        description="How long to poll for a job or order that Engage does not know. Then the action becomes a dead"
        " letter `not_found`.",
    )
    contact_grace: Seconds = Field(
        600.0,
        description="How long to send an action again whose order has no contact yet (422). Then it becomes a dead"
        " letter `no_contact`.",
    )


class Limits(_Section):
    """How much one instance holds at most."""

    pending: Annotated[
        int,
        Field(
            ge=1,
            description="How many open actions an instance holds in memory (of 2 KiB each). What a connection has "
            "beyond its share of them stays in the delay topic until there is room.",
        ),
        BeforeValidator(_number),
    ] = 100_000


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port to listen on; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Address:
        """Read `host:port` or `[IPv6]:port`. Raises ValueError."""
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", text) if isinstance(text, str) else None
        if match is not None and int(match[3]) <= 65_535:
            six = _address(match[1] or "")
            if (six is not None and six.version == 6) or _HOST_NAME.fullmatch(match[2] or ""):
                return cls(match[1] or match[2], int(match[3]))
        raise ValueError("must be host:port, such as 0.0.0.0:8080 or [::]:8080")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Admin(_Section):
    """The HTTP server of the status page, the metrics and the probes."""

    listen: Annotated[
        Address,
        PlainValidator(Address.parse),
        PlainSerializer(str),
        WithJsonSchema({"type": "string", "default": "0.0.0.0:8080"}),
    ] = Field(
        default_factory=lambda: Address("0.0.0.0", 8080),  # noqa: S104 - scraped and probed from other hosts
        description="host:port that serves /status, /metrics, /healthz and /readyz.",
    )
    instances: list[Annotated[str, Field(pattern="^https?://[^/]")]] = Field(
        default_factory=list,
        description="Where all instances are, for /fleet: URLs, as `status --all --url` takes them. A name stands for "
        "all of its addresses.",
    )


class Settings(_Section):
    """The whole configuration."""

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
    outcomes: Outcomes = Field(Outcomes(), validate_default=True, json_schema_extra=_or_off)
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
        if isinstance(source := info.data.get("source"), Source):
            why = _template_error(delay.topic, source.topics, {"source": source.topics})
            if why is None and len(source.topics) > 1 and SOURCE not in delay.topic:
                why = f"must hold {SOURCE}: each source topic needs a delay topic of its own"
            if why is not None:
                raise _errors_at([_wrong("topic", why)])
        return delay

    @field_validator("dead_letters")
    @classmethod
    def _dead_letter_topics_apart(cls, dead_letters: DeadLetters, info: ValidationInfo) -> DeadLetters:
        if isinstance(source := info.data.get("source"), Source):
            taken = {"source": source.topics}
            if isinstance(delay := info.data.get("delay"), Delay):
                taken["delay"] = _names(delay.topic, source.topics)
            if (why := _template_error(dead_letters.topic, source.topics, taken)) is not None:
                raise _errors_at([_wrong("topic", why)])
        return dead_letters

    @field_validator("outcomes", mode="before")
    @classmethod
    def _without_outcomes(cls, outcomes: object) -> object:
        """Read `outcomes: off`; a Helm chart's YAML makes it false."""
        return {"topic": NO_TOPIC} if outcomes == "off" or outcomes is False else outcomes

    @field_validator("outcomes")
    @classmethod
    def _outcome_topics_apart(cls, outcomes: Outcomes, info: ValidationInfo) -> Outcomes:
        if outcomes.topic != NO_TOPIC and isinstance(source := info.data.get("source"), Source):
            taken = {"source": source.topics}
            if isinstance(delay := info.data.get("delay"), Delay):
                taken["delay"] = _names(delay.topic, source.topics)
            if isinstance(dead_letters := info.data.get("dead_letters"), DeadLetters):
                taken["dead-letter"] = _names(dead_letters.topic, source.topics)
            why = _template_error(outcomes.topic, source.topics, taken)
            if why is None and len(source.topics) > 1 and SOURCE not in outcomes.topic:
                why = f"must hold {SOURCE}: each source topic needs an outcomes topic of its own"
            if why is not None:
                raise _errors_at([_wrong("topic", why)])
        return outcomes

    @field_validator("control")
    @classmethod
    def _control_topic_apart(cls, control: Control, info: ValidationInfo) -> Control:
        kafka, source = info.data.get("kafka"), info.data.get("source")
        if control.topic == NO_TOPIC or kafka is None or not isinstance(source, Source):
            return control
        name = _of_group(control.topic, kafka)
        why = _topic_error(name)
        if why is not None and GROUP in control.topic:
            why = f"{why}, with kafka.group.id in the place of {GROUP}: write a topic's name, or {NO_TOPIC}"
        taken = {"source": source.topics}
        for kind in ("delay", "dead_letters", "outcomes"):
            if (section := info.data.get(kind)) is not None:
                taken[kind.replace("_", "-")] = _names(section.topic, source.topics)
        if why is None:
            why = next((f"must not be a {kind} topic" for kind, others in taken.items() if name in others), None)
        if why is not None:
            raise _errors_at([_wrong("topic", why)])
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
                    wrong.append({**_wrong(key, str(error)), "loc": (name, key)})
                why = None if connections is None else wrong_constant(key, text, connections)
                if why is not None:
                    wrong.append({**_wrong(key, why), "loc": (name, key)})
        wrong += [
            {**_wrong("superseded_by", why), "loc": (name, "superseded_by")}
            for name, why in wrong_superseding(_effective(routes))
        ]
        if wrong:
            raise _errors_at(wrong)
        return routes

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
        return None if self.control.topic == NO_TOPIC else _of_group(self.control.topic, self.kafka)

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


def _effective(routes: Mapping[str, RouteRule | None]) -> dict[str, RouteRule]:
    named = {**routes, **{name: rule for name, rule in BUILT_IN_ROUTES.items() if name not in routes}}
    return {name: rule for name, rule in named.items() if rule is not None}


def load(path: Path | None, environ: Mapping[str, str], *, only_routes: bool = False) -> Settings:
    """Read the file, if there is one, and the environment over it. Raises ConfigurationError.

    `only_routes`: what concerns brokers and Engage may be missing or wrong. Such settings serve to decide, not to run.
    """
    try:
        file = ConfigurationFile({}, {}) if path is None else yaml_file.read(path)
    except UnreadableFileError as error:
        file = ConfigurationFile({}, {}, (error.error,), frozenset({()}))
    said, meaningless = environment.overrides(environ, Settings, file.values)
    sources = environment.apply(said, file.values)
    errors = Errors(str(path), file, sources, meaningless)
    settings = None
    try:
        settings = Settings.model_validate(_without_edges(file.values) if only_routes else file.values)
    except ValidationError as error:
        errors.add(error, Settings)
    lines = errors.lines() or (() if settings is None or only_routes else _wrong_proxies(settings, environ))
    if settings is None or lines:  # raised here, so that no traceback leads to pydantic's error
        raise ConfigurationError(lines)
    return settings


def _wrong_proxies(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    wrong: dict[str, None] = {}
    for connection in settings.engage.connections.values():
        try:
            connection.proxy_in(environ)
        except ValueError as error:
            wrong[str(error)] = None
    return tuple(wrong)


def _without_edges(values: Mapping[str, object]) -> dict[str, object]:
    """Leave out what only `run` needs: of the connections, a decision knows their names and `only_for`."""
    engage = values.get("engage")
    connections = engage.get("connections") if isinstance(engage, dict) else None
    named = connections if isinstance(connections, dict) and connections else {"default": None}
    stand_in = {"base_url": "https://localhost", "api_key": "none"}
    return {
        **values,
        "kafka": {"bootstrap.servers": "localhost:9092"},
        "engage": {"connections": {str(name): stand_in | _only_for_in(each) for name, each in named.items()}},
    }


def _only_for_in(connection: object) -> dict[str, object]:
    written = connection.get("only_for") if isinstance(connection, dict) else None
    return {} if written is None else {"only_for": written}


def json_schema() -> dict[str, Any]:
    """Return the file's JSON Schema (2020-12). What it requires may also come from the environment."""
    return {"$schema": DIALECT, "$id": "urn:engage-relay:configuration:1", **Settings.model_json_schema()}
