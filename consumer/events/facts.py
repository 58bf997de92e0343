"""Facts: what an order's action says to the customer. Within a window, a fact is sent once.

Rules:
 1. A fact always has the connection, the order and the action. So a route's own `fact` tells two facts of an order
    apart, and never makes two orders one.
 2. By default it also has the item (`each`: its `id`, in any spelling), and the parcel that the route's `data` names.
    An order may have two parcels in a day, and each of them is news to the customer. Where neither an id nor a number
    names the parcel, it has all of the item: what changes in it later is news, too.
 3. An action of the merchant's own says what its data says: nobody else knows how many of them an order may have, as
    of refunds. So by default such a fact has all of the `data`, where no item tells it apart. An order is confirmed,
    cancelled and completed once.
 4. What is kept of a fact is a digest: it may hold personal data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b

from pydantic_core import to_json

from consumer.events.field_names import plain
from consumer.events.numbers import written
from schemas.engage import DOCUMENTED_ACTIONS

DIGEST_BYTES = 12
"""Two of a billion facts of a partition are the same by chance once in 10^10 relays."""

_KNOWN = frozenset(DOCUMENTED_ACTIONS) - {"Custom"}
_ONCE = frozenset({"ConfirmOrder", "ConfirmCompletion"})

PARCEL_NAMES = frozenset(
    first + last
    for first in ("tracking", "parcel", "package", "shipment", "fulfillment", "fulfilment", "consignment", "delivery")
    for last in ("", "id", "number", "no", "code", "reference", "uri", "url")
)
"""Fields of `data` that name a parcel: in lower case, without `_` and `-`."""


def default_parts(action: str, item: tuple[object, ...], data: object) -> list[object]:
    """Return what tells an action's default fact apart from others of its order (rules 2 and 3)."""
    item = () if action in _ONCE else item
    if not item and action not in _KNOWN:
        return [] if data is None else [sorted_fields(data)]
    parcels = list(_parcels(data))
    if item and action in _KNOWN and _names_its_parcel(data) and not any(map(_has_id, item)):
        return parcels
    return [*(_identity(each) for each in item), *parcels]


def own_parts(value: object, item: tuple[object, ...]) -> list[object]:
    """Return what a route's own `fact` tells apart. Where it gives nothing for an item, the item does."""
    if value is None or (item and not _is_set(value) and not isinstance(value, int)):
        return [_identity(each) for each in item]
    return [sorted_fields(value)]


def sorted_fields(value: object) -> object:
    """Return a value with the fields of its objects in order: programs write them in any."""
    if isinstance(value, dict):
        return {name: sorted_fields(value[name]) for name in sorted(value)}
    return [sorted_fields(each) for each in value] if isinstance(value, list) else value


def text_of(order_id: str, action: str, parts: list[object]) -> str:
    """Return a fact as a person reads it in a dry run."""
    return " ".join([action, order_id, *(written(each).decode() for each in parts)])


def digest_of(connection: str, fact: str) -> str:
    """Return what is kept of a fact, in hexadecimal."""
    return blake2b(to_json([connection, fact]), digest_size=DIGEST_BYTES).hexdigest()


@lru_cache(maxsize=1024)
def names_a_parcel(field: str) -> bool:
    """Tell whether a field of `data` names a parcel, or several, in whatever spelling."""
    name = plain(field)
    return name in PARCEL_NAMES or (name.endswith("s") and name[:-1] in PARCEL_NAMES)


def _identity(item: object) -> object:
    if isinstance(item, dict):
        own = _id_of(item)
        return sorted_fields(item) if own is None else own
    return [_identity(each) for each in item] if isinstance(item, list) else item


def _id_of(item: dict[str, object]) -> object:
    return next((value for name, value in item.items() if _is_id(name) and _is_set(value)), None)


def _has_id(item: object) -> bool:
    return isinstance(item, dict) and _id_of(item) is not None


def _names_its_parcel(data: object) -> bool:
    """Tell whether a field of `data` is certainly a parcel's number or id: `delivery` may be how it is delivered."""
    return isinstance(data, dict) and any(
        _is_set(value) and isinstance(value, str | int) and _names_one_parcel(name) for name, value in data.items()
    )


@lru_cache(maxsize=1024)
def _names_one_parcel(field: str) -> bool:
    name = plain(field)
    return name in PARCEL_NAMES and (name.startswith("tracking") or name.endswith(_NUMBERS))


def _is_id(field: str) -> bool:
    return field.lstrip("_@$").lower() == "id"


def _is_set(value: object) -> bool:
    """Tell whether an id was set: programs write 0, an empty text or zeros for one that was not.

    Taken for an id, it would make all items of an order one fact.
    """
    return value not in (None, [], {}) and not (isinstance(value, str | int) and _ZEROS.fullmatch(str(value).strip()))


_NUMBERS = ("id", "number", "no", "code", "reference")
_ZEROS = re.compile(r"[0-]*")


def _parcels(data: object) -> Iterator[object]:
    if isinstance(data, dict):
        for name in sorted(filter(names_a_parcel, data)):
            if data[name] not in (None, "", [], {}):
                yield _parcel(data[name])


def _parcel(value: object) -> object:
    """Return what tells a parcel apart: its id or number, where it is an object that has one."""
    if isinstance(value, list):
        return [_parcel(each) for each in value]
    own = _id_of(value) or _number_of(value) if isinstance(value, dict) else None
    return _identity(value) if own is None else own


def _number_of(parcel: dict[str, object]) -> object:
    names = (name for name in sorted(parcel) if plain(name) == "number" or _names_one_parcel(name))
    return next((parcel[name] for name in names if _is_set(parcel[name])), None)
