"""When an event happened: a figure for the metrics, unless `max_age` is set. Then it decides whether mail leaves."""

from __future__ import annotations

from consumer.events.decoding import kind
from consumer.events.routing.results import Dropped
from consumer.events.routing.routes import Route
from consumer.events.routing.scope import Scope
from consumer.events.routing.values import UnusableError, moment_of, optional_value
from consumer.events.times import Unreadable, milliseconds, plausible, plausible_ms, read_time

UNKNOWN_TIME_MS = 0
"""`event_time_ms` where neither the event nor its record has a time."""


def event_time_ms(route: Route, scope: Scope, dropped: list[Dropped]) -> int:
    """Return when it happened: a figure for the metrics, so nothing that is wrong with it stops the action.

    With `max_age` it decides: then it must be readable, and only where the event has none its record's time serves.
    """
    record_ms = plausible_ms(scope.record.timestamp_ms)
    otherwise_ms = UNKNOWN_TIME_MS if record_ms is None else record_ms
    if route.ages.max_age_s is not None:
        return _deciding_time_ms(route, scope, record_ms)
    value = optional_value("event_time", route.event_time, scope, dropped)
    if value is None:
        return otherwise_ms
    moment = read_time(value, route.time_zone)
    if isinstance(moment, Unreadable):
        dropped.append(Dropped("event_time", f"{route.event_time} gave {kind(value)} that {moment.why}"))
        return otherwise_ms
    if not plausible(moment, record_ms):
        dropped.append(Dropped("event_time", f"{route.event_time} gave an implausible time"))
        return otherwise_ms
    return milliseconds(moment)


def _deciding_time_ms(route: Route, scope: Scope, record_ms: int | None) -> int:
    moment = moment_of("event_time", route.event_time, scope, route.time_zone)
    if moment is not None and plausible(moment, record_ms):
        return milliseconds(moment)
    if record_ms is None:  # then the event has none either: `moment_of` gives a plausible one
        raise UnusableError(f"event_time: {route.event_time} gave nothing, its record has no time, and max_age asks")
    return record_ms  # the event's own is ahead of it, as by a clock that is wrong: it is not old
