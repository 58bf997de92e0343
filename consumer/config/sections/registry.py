"""The section `registry`: where the Schema Registry is, and how to log in to it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from consumer.config.sections.section import Section
from consumer.events.durations import PositiveSeconds, Seconds

_HOST = re.compile(r"[A-Za-z0-9_.-]+")


class Registry(Section):
    """A Schema Registry: Confluent's, Karapace, Apicurio's (`/apis/ccompat/v7`), Redpanda's."""

    url: str = Field(
        description="Address of the Schema Registry: https://host[:port][/path]. Several, separated by commas, are"
        " asked in turn.",
        json_schema_extra={"pattern": r"^https?://[^\s/?#@]+"},
    )
    allow_insecure: bool = Field(
        False, description="Allow to send a password or token over plain http to other hosts than this one."
    )
    username: str | None = Field(None, description="User name, or Confluent Cloud's API key, for basic authentication.")
    password: SecretStr | None = Field(None, description="The password itself. Set either this or `password_file`.")
    password_file: Path | None = Field(None, description="File that holds the password; read for each schema.")
    token: SecretStr | None = Field(None, description="The bearer token itself. Set either this or `token_file`.")
    token_file: Path | None = Field(None, description="File that holds the bearer token; read for each schema.")
    logical_cluster: str | None = Field(
        None, description="With a token, Confluent Cloud's logical cluster, such as lsrc-abc123."
    )
    identity_pool: str | None = Field(
        None, description="With a token, Confluent Cloud's identity pool, such as pool-ab1."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the certificate authorities to trust instead of the public ones."
    )
    certificate_file: Path | None = Field(None, description="PEM file of the client's certificate, for mutual TLS.")
    key_file: Path | None = Field(None, description="PEM file of that certificate's key.")
    timeout: PositiveSeconds = Field(10.0, description="How long an answer may take.")
    validate_json: bool = Field(
        True,
        description="Hold values of JSON Schema to it; one that breaks it becomes a dead letter `undecodable`."
        " `false` where producers do not keep to what they registered.",
    )
    unknown_schema_grace: Seconds = Field(
        300.0,
        description="How long a partition waits while the registry says that it has no schema of an event's id. Then"
        " the event becomes a dead letter `unknown_schema`. A registry that cannot be asked is waited for without end.",
    )

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        if not all(map(_is_address, _each(url))) or not url.strip():
            raise ValueError("must be https://host[:port][/path], without credentials, query or fragment")
        return url

    @model_validator(mode="after")
    def _one_login(self) -> Registry:
        by_password = [each for each in (self.password, self.password_file) if each is not None]
        by_token = [each for each in (self.token, self.token_file) if each is not None]
        if len(by_password) + len(by_token) > 1:
            raise ValueError("write one of password, password_file, token and token_file")
        if (self.username is None) != (not by_password):
            raise ValueError("username and a password belong together")
        if not by_token and (self.logical_cluster is not None or self.identity_pool is not None):
            raise ValueError("logical_cluster and identity_pool belong to a token")
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file belongs to a certificate_file")
        if (by_password or by_token) and not self.allow_insecure and not all(map(_is_safe, _each(self.url))):
            raise ValueError(
                "url must be https: over plain http anybody on the way reads the password (allow_insecure: true)"
            )
        return self

    @property
    def has_token(self) -> bool:
        """Whether it logs in by a bearer token."""
        return self.token is not None or self.token_file is not None

    def secret(self) -> str:
        """Return the password or the token as it is now; empty where there is none. Raises OSError, ValueError."""
        if (held := self.token if self.has_token else self.password) is not None:
            return held.get_secret_value()
        file = self.token_file if self.has_token else self.password_file
        return "" if file is None else file.read_text("utf-8-sig").rstrip("\r\n")

    def files(self) -> Iterator[tuple[str, Path]]:
        """Return the files that it names, by their keys."""
        for name in ("password_file", "token_file", "ca_file", "certificate_file", "key_file"):
            if (file := getattr(self, name)) is not None:
                yield name, file

    def properties(self) -> dict[str, object]:
        """Return the properties of confluent-kafka's client, with the secrets as they are now. Raises OSError."""
        found: dict[str, object] = {"url": self.url, "timeout": self.timeout}
        if self.username is not None:
            found["basic.auth.user.info"] = f"{self.username}:{self.secret()}"
        if self.has_token:
            found |= {
                "bearer.auth.credentials.source": "STATIC_TOKEN",
                "bearer.auth.token": self.secret(),
                "bearer.auth.logical.cluster": self.logical_cluster or "",
            }
        if self.identity_pool is not None:
            found["bearer.auth.identity.pool.id"] = self.identity_pool
        for name, file in (
            ("ssl.ca.location", self.ca_file),
            ("ssl.certificate.location", self.certificate_file),
            ("ssl.key.location", self.key_file),
        ):
            if file is not None:
                found[name] = str(file)
        return found


def _each(url: str) -> list[str]:
    return [each.strip() for each in url.split(",")]


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    known = parts.scheme in ("http", "https") and (bool(_HOST.fullmatch(host)) or _is_ip(host)) and port != 0
    return known and url.isprintable() and " " not in url and not (parts.username or parts.query or parts.fragment)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return parts.scheme == "https" or host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)
