"""What all sections of the configuration have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError


class Section(BaseModel):
    """A section of the file: its keys, and no others."""

    # hide_input: a wrong value may be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    guards: ClassVar[frozenset[str]] = frozenset()
    """Keys that keep mails back. Without a value they would be off, and nobody would know: `written_out` refuses it."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_written(cls, values: object) -> object:
        """A section or key without a value (all of it in comments, say) is one that was left out."""
        if not isinstance(values, dict):
            return {} if values is None else values
        kept = cls.guards | values.keys() - cls.model_fields.keys()
        return {key: value for key, value in values.items() if value is not None or key in kept}


def errors_at(details: list[InitErrorDetails]) -> ValidationError:
    """Make the error that a validator raises for keys below its own field; pydantic puts the field's path before."""
    return ValidationError.from_exception_data("settings", details, hide_input=True)


def error_at(key: str, text: str) -> InitErrorDetails:
    """Say what is wrong with a key below a validator's own field."""
    return InitErrorDetails(type=PydanticCustomError("wrong", "{text}", {"text": text}), loc=(key,), input=None)


def number(value: object) -> object:
    """Refuse true and false where a number is meant: to Python, true is 1."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value
