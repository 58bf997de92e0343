"""The section `engage`: each connection's address, key, rate limit and time-outs, and what its requests carry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticKnownError

from consumer.config.sections.hosts import HOST_NAME, ip_address
from consumer.config.sections.section import Section, error_at, errors_at, number
from consumer.engage import headers as http_headers
from consumer.engage.api_key import LEGAL_KEY, ApiKey
from consumer.engage.http import Origin
from consumer.engage.proxies import DIRECT, Proxy, proxy_at, proxy_for
from consumer.events.durations import PositiveSeconds
from consumer.events.expressions import Tables, compile_expression
from consumer.events.guards import OnlyFor, written_out


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


RECOMMENDED_REQUESTS_PER_SECOND = 50.0  # with one key, by Engage's documentation


def _only_for(written: object) -> tuple[str, ...] | str:
    """Read the orders that a connection serves: their ids, or an expression. Raises ValueError."""
    written_out(written)
    if isinstance(written, str) and not written.startswith('["'):
        compile_expression(written, is_condition=True)
        return written
    if isinstance(written, str):  # a variable's list; as an expression it would be true for every order
        written = json.loads(written)
    if not isinstance(written, list | tuple) or any(isinstance(each, bool) for each in written):
        raise ValueError("must be a list of order ids, or an expression over the event")
    if not all(isinstance(each, str | int) for each in written):
        raise ValueError("must be a list of order ids, or an expression over the event")
    return tuple(map(str, written))


class Connection(Section):
    """One Engage tenant: its address, its key and its rate limit."""

    guards = frozenset({"only_for"})
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
        BeforeValidator(number),
    ] = RECOMMENDED_REQUESTS_PER_SECOND
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
            or not (HOST_NAME.fullmatch(origin.host) or ip_address(origin.host))
        ):
            raise ValueError("must be https://host[:port][/path], without credentials, query or fragment")
        if re.search(rb"/api(/|$)", origin.prefix):
            raise ValueError("must end before /api/v3, which the relay adds")
        address = ip_address(origin.host)
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
                wrong.append(error_at(name, why))
        if wrong:
            raise errors_at(wrong)
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


class Engage(Section):
    """Voyado Engage, one connection per tenant."""

    connections: Annotated[dict[str, Connection], Field(min_length=1)] = Field(
        default_factory=lambda: {"default": None},  # its errors then say what is missing
        validate_default=True,
    )
