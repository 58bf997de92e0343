"""The section `kafka`: any property of librdkafka, under its own name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import InitErrorDetails

from consumer.config.sections import kafka_properties, login
from consumer.config.sections.section import error_at, errors_at


def _properties(written: object) -> object:
    if not isinstance(written, dict | None):
        return written  # the type's own error
    properties = {"group.id": "engage-relay", **(written or {})}
    wrong = [
        error_at(name, text)
        for name, value in properties.items()
        if (text := kafka_properties.error(name, value)) is not None
    ]
    if not wrong:
        both = (*login.errors(properties), *kafka_properties.misfits(properties))
        wrong = [error_at(name, text) for name, text in both]
    if "bootstrap.servers" not in properties:
        wrong.append(InitErrorDetails(type="missing", loc=("bootstrap.servers",), input=None))
    if wrong:
        raise errors_at(wrong)
    return properties


KafkaProperties = Annotated[dict[str, str | int | float | bool], BeforeValidator(_properties)]
