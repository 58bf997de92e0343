"""Which ids may be put into a URL: the ids of orders and jobs come from outside.

There is one rule for all: routing checks it before an event is taken (a bad id is the sender's error, named by field),
and the code that builds a URL checks it again. An id that the rule allows is, percent-encoded, one path segment. It
stays one even with a server that decodes it (twice) before it looks at the path.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

MAX_ID_CHARACTERS = 1024  # ids in use have tens; percent-encoded (9 bytes a character) a URL stays below 10 kB

_ORDINARY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_CHARACTERS}}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_INVISIBLE = frozenset({"Cf", "Zs"})  # joiners and marks of direction, and spaces but the usual one
_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK"})
_LIKE_LATIN = frozenset("АВЕЅІЈКМНОРСТУХЬабеѕіјорсухΑΒΕΖΗΙΚΜΝΟΡΤΥΧορν")  # noqa: RUF001 - Cyrillic and Greek
_ABSENT = frozenset(
    {"null", "undefined", "none", "nil", "nan", "[object object]", "0", "00000000-0000-0000-0000-000000000000"}
)
# As Java's structures and JSON's texts, objects and lists are written: a key's converter, mostly.
_WHOLE_VALUE = re.compile(r"Struct\{.*|\".*\"|\{.*\}|\[.*\]")
_SEPARATOR = re.compile(r"[/\\]")


def why_unusable(raw_id: str) -> str | None:
    """Say, in words that follow the field's name and never repeat the id, why it cannot be used; None: it can."""
    if _ORDINARY.fullmatch(raw_id):
        return None
    if not raw_id:
        return "is empty"
    if len(raw_id) > MAX_ID_CHARACTERS:
        return f"is longer than {MAX_ID_CHARACTERS} characters"
    if raw_id.isspace():
        return "is blank"
    if raw_id.startswith("\0"):
        return "begins with byte 0, as a Schema Registry's frame or a binary number does"
    if _CONTROL.search(raw_id):
        return "has a control character or line break"
    if any("\ud800" <= character <= "\udfff" for character in raw_id):
        return "has half a surrogate pair"
    return "would be more than one path segment" if _climbs(raw_id) else None


def hint_on(raw_id: str) -> str | None:
    """Say, in words that follow the field's name, why Engage may know this id by another spelling; None: it is plain.

    Such an id is sent as it is. The words stand in dead letters and in the dry run, where they may explain a 404.
    """
    if _ORDINARY.fullmatch(raw_id) and raw_id.lower() not in _ABSENT:
        return None
    if raw_id != raw_id.strip():
        return "has white space around it"
    if raw_id.lower() not in _ABSENT and _WHOLE_VALUE.fullmatch(raw_id):
        return "is a whole value as a converter writes it: json() reads one of JSON"
    if not unicodedata.is_normalized("NFC", raw_id):
        return "is not in Unicode's composed form (NFC)"
    if any(unicodedata.category(each) in _INVISIBLE and each != " " for each in raw_id):
        return "has characters that cannot be seen"
    if unicodedata.normalize("NFKC", raw_id) != raw_id:
        return "has characters that look like plain ones"
    if raw_id.lower() in _ABSENT:
        return "is what programs write for what is not there"
    if not _LIKE_LATIN.isdisjoint(raw_id) and all(each in _LIKE_LATIN for each in raw_id if each.isalpha()):
        return "has letters of another alphabet that look like Latin ones"
    alphabets = {unicodedata.name(each, "").partition(" ")[0] for each in raw_id if each.isalpha()}
    return "mixes alphabets whose letters look alike" if len(alphabets & _ALIKE) > 1 else None


def _climbs(raw_id: str) -> bool:
    decoded, before = raw_id, ""
    while decoded != before:
        if any(part in ("", ".", "..") for part in _SEPARATOR.split(decoded)):
            return True
        decoded, before = unquote(decoded), decoded
    return False
