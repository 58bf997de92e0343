"""The format `cloudevents`, version 1.0 (https://github.com/cloudevents/spec), by its binding for Kafka.

Structured, batched and binary events come out alike: an object with the attributes and `data`; a batch is a list of
them. So one route reads `type`, `subject` and `data.orderId`, however the event travelled.

Rules:
 1. The header `content-type` tells structured and batched events, the header `ce_specversion` a binary one. Where
    neither is there (a tool dropped the headers), an object or list with the attributes is taken for what it is.
 2. The attributes that the specification requires must be there. A dead letter names the one that is not.
 3. `data_base64` becomes `data`: JSON where its type says so or says nothing, else text; bytes that are neither stay.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import cast

from consumer.events.decoding import Undecodable, decode, kind
from consumer.events.formats.text import Encoding, as_utf_8

Headers = Sequence[tuple[str, bytes | None]]

PREFIX = "ce_"
_SPEC_VERSION = "specversion"
_OTHER_PREFIXES = {"ce-": "HTTP", "cloudevents:": "AMQP", "cloudevents_": "AMQP"}
BATCH = "application/cloudevents-batch"
STRUCTURED = "application/cloudevents"
REQUIRED = (_SPEC_VERSION, "id", "source", "type")
_VERSIONS = ("1.0", "0.3")
_CHARSETS: dict[str, Encoding] = {
    **dict.fromkeys(("", "utf-8", "utf8", "us-ascii"), "utf-8"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-16"),
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "windows-1252"), "latin-1"),
}
_CHARSET = re.compile(r';\s*charset="?([\w.-]+)"?', re.IGNORECASE)


def read(value: bytes, headers: Headers) -> object | Undecodable:
    """Read an event, or a batch of them."""
    content_type = _content_type(headers)
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith((BATCH, STRUCTURED)):
        if not media.endswith("+json"):
            return Undecodable("a CloudEvent in another form than JSON")
        return _structured(value, content_type, batch=media.startswith(BATCH))
    attributes = _attributes(headers)
    if attributes:
        return _binary(value, attributes, content_type)
    event = _structured(value, content_type, batch=None)
    if isinstance(event, Undecodable) and (hint := _hint(headers)) is not None:
        return Undecodable(f"{event.detail}; {hint}")
    return event


def _hint(headers: Headers) -> str | None:
    """Say that another protocol's headers were copied as they are."""
    for name, _ in headers:
        for prefix, protocol in _OTHER_PREFIXES.items():
            if name.lower().startswith(prefix):
                return f"its headers begin with `{prefix}`, as in {protocol}: in Kafka they begin with `{PREFIX}`"
    return None


def is_binary(headers: Headers) -> bool:
    """Tell whether the headers hold an event's attributes. Its data may be missing: then its record has no value."""
    return _SPEC_VERSION in _attributes(headers)


def _content_type(headers: Headers) -> str:
    found = next((value for name, value in headers if name.lower() == "content-type" and value is not None), b"")
    return found.decode(errors="replace")


def _attributes(headers: Headers) -> dict[str, object]:
    """Return a binary event's attributes, without the prefix that they have as headers."""
    return {
        name[len(PREFIX) :].lower(): value.decode(errors="replace")
        for name, value in headers
        if name.lower().startswith(PREFIX) and value is not None
    }


def _text(value: bytes, content_type: str) -> bytes | Undecodable:
    charset = _CHARSET.search(content_type)
    encoding = _CHARSETS.get(charset[1].lower() if charset else "")
    return Undecodable("a charset that is not supported") if encoding is None else as_utf_8(value, encoding)


def _binary(value: bytes, attributes: dict[str, object], content_type: str) -> object | Undecodable:
    if content_type:
        attributes["datacontenttype"] = content_type
    if (wrong := _incomplete(attributes, "header ce_")) is not None:
        return wrong
    text = _text(value, content_type)
    if isinstance(text, Undecodable):
        return text
    data = _data(text, content_type)
    if isinstance(data, Undecodable):
        return data
    if data is None and text.strip() not in (b"", b"null"):
        return {**attributes, "data_base64": base64.b64encode(value).decode()}
    return {**attributes, "data": data}


def _structured(value: bytes, content_type: str, *, batch: bool | None) -> object | Undecodable:
    """`batch`: whether the content type says that it is one; None: it says nothing."""
    text = _text(value, content_type)
    event = text if isinstance(text, Undecodable) else decode(text)
    if isinstance(event, Undecodable):
        return event
    if isinstance(event, list) and batch is not False:
        return _batch(event)
    if batch:
        return Undecodable(f"no batch of CloudEvents: JSON, but {kind(event)}")
    return _complete(event)


def _batch(events: list[object]) -> object | Undecodable:
    found = []
    for number, event in enumerate(events):
        complete = _complete(event)
        if isinstance(complete, Undecodable):
            return Undecodable(f"item {number}: {complete.detail}")
        found.append(complete)
    return found


def _complete(event: object) -> object | Undecodable:
    if not isinstance(event, dict):
        return Undecodable(f"no CloudEvent: JSON, but {kind(event)}")
    if (wrong := _incomplete(event, "")) is not None:
        return wrong
    if event.get("data_base64") is None:  # some write what is not there as null
        return event
    if event.get("data") is not None:
        return Undecodable("a CloudEvent with both data and data_base64")
    return _from_base64(event)


def _from_base64(event: dict[str, object]) -> object | Undecodable:
    try:
        data = base64.b64decode(cast("str", event["data_base64"]), validate=True)
    except (binascii.Error, TypeError, ValueError):
        return Undecodable("data_base64: not base64")
    content_type = str(event.get("datacontenttype") or "")
    text = _text(data, content_type)
    found = None if isinstance(text, Undecodable) else _data(text, content_type)
    if isinstance(found, Undecodable):
        return Undecodable(f"data_base64: {found.detail}")
    if found is None:
        return event
    return {**{name: value for name, value in event.items() if name != "data_base64"}, "data": found}


def _incomplete(event: dict[str, object], prefix: str) -> Undecodable | None:
    for name in REQUIRED:
        found = event.get(name)
        if found is None or found == "":
            return Undecodable(f"no CloudEvent: {prefix}{name} is missing or empty")
        if not isinstance(found, str):
            return Undecodable(f"no CloudEvent: {prefix}{name} is {kind(found)}, not a text")
    if event[_SPEC_VERSION] not in _VERSIONS:
        return Undecodable(f"a CloudEvent of another version than {' and '.join(_VERSIONS)}")
    return None


def _data(text: bytes, content_type: str) -> object | Undecodable:
    """Read an event's data: JSON where its type says so, or says nothing; else text. None: bytes that are no text."""
    if not text:
        return None
    media = content_type.partition(";")[0].strip().lower()
    if media.endswith(("/json", "+json")):
        return decode(text)
    if not media and not isinstance(found := decode(text), Undecodable):
        return found
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None
