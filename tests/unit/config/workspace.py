"""A configuration file and what loading it comes to, for the tests of the configuration."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from consumer.config.loading import load
from consumer.config.settings import Settings
from consumer.errors import ConfigurationError

SECRET = "hunter2!"
THREE = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": SECRET,
}
EXAMPLE = """\
kafka:                          # any librdkafka property, under its own name
  bootstrap.servers: localhost:9092
  group.id: engage-relay
source:
  topics: [orders]
delay:
  topic: "{source}.engage.delay"
dead_letters:
  topic: "{source}.engage.dead-letters"
engage:
  connections:
    default:
      base_url: https://acme.voyado.com
      api_key_file: /run/secrets/engage-api-key     # or api_key
      api_key_header: apikey
      requests_per_second: 50
      timeout: 10s
polling:
  initial: auto                 # or 2s
  max_interval: 60s
  deadline: 24h
limits:
  pending: 100000               # per instance; above it the source is paused
admin:
  listen: 0.0.0.0:8080          # /metrics /healthz /readyz
routes:                         # by name, first match wins (at most one action per event); expressions are JMESPath over the event
  shipped:
    when: "type == 'order.shipped'"
    action: ConfirmShipment     # or Custom …
    order_id: orderId
    job_id: engage.jobId        # any of version_tag, job_id, order (the document)
    language: language
    data: "{tracking: data.trackingNumber, carrier: data.carrier}"
    connection: engage.connection || 'default'
    on_unknown: resend          # or dead_letter
"""  # noqa: E501


class Workspace:
    """A folder that holds relay.yaml; errors are shown as if we stood in it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "relay.yaml"

    def load(self, text: str, environ: dict[str, str] | None = None) -> Settings:
        self.file.write_text(dedent(text), encoding="utf-8")
        return load(self.file, environ or {})

    def errors(self, text: str, environ: dict[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigurationError) as raised:
            self.load(text, environ)
        return [line.removeprefix(f"{self.file.parent}/") for line in raised.value.errors]


def errors_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        load(None, environ)
    return list(raised.value.errors)
