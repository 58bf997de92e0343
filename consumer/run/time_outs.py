"""The time-outs that follow from other settings, each with its sum."""

from __future__ import annotations

import math
from collections.abc import Iterable

from consumer.config.sections.connections import Connection as ConnectionSettings
from consumer.config.settings import Settings
from consumer.kafka import clients
from consumer.kafka.source.membership import MIN_HAND_OVER_S
from consumer.relay.dispatch import LEASE_OF_SESSION, MAX_LEASE_S, lease_of

HAND_OVER_SLACK_S = 1.0  # for the journal, when the last outcome is known
DEFAULT_HEARTBEAT_MS = 3_000  # librdkafka's


def hand_over_of(settings: Settings) -> float:
    """Return how many seconds a hand-over waits: until every request under way has ended, and one more second.

    A request ends after twice its time-out T; an action after T/2 to connect and `action_timeout` for the answer: with
    the defaults 5 + 30 + 1 = 36 s.
    """
    calls_s = [max(2 * each.timeout, each.timeout / 2 + each.action_timeout) for each in _connections_of(settings)]
    return max(MIN_HAND_OVER_S, max(calls_s) + HAND_OVER_SLACK_S)


def _connections_of(settings: Settings) -> Iterable[ConnectionSettings]:
    return settings.engage.connections.values()


def short_session(settings: Settings) -> str | None:
    """Say why `session.timeout.ms` is too short for an action, with the sum; None where it is long enough.

    An action may leave until its intent's lease ends, and its answer takes `action_timeout` at most. It must be over
    before another instance can own the partition, which is one session after the last heartbeat.
    """
    kafka = settings.kafka
    if str(kafka.get("group.protocol", "classic")).lower() == "consumer":  # the session is the broker's to set
        return None
    session_s = clients.session_s(kafka)
    heartbeat_s = float(kafka.get("heartbeat.interval.ms", DEFAULT_HEARTBEAT_MS)) / 1000
    name, answer_s = max(
        ((name, each.action_timeout) for name, each in settings.engage.connections.items()), key=lambda each: each[1]
    )
    lease = lease_of(kafka)
    if lease + answer_s <= session_s - heartbeat_s:
        return None
    enough_s = min((answer_s + heartbeat_s) / (1 - LEASE_OF_SESSION), answer_s + heartbeat_s + MAX_LEASE_S)
    shorter_s = max(0.0, session_s - heartbeat_s - lease)
    return (
        f"kafka.session.timeout.ms: {session_s * 1000:.0f} is too short: an intent's lease of {lease:g} s and "
        f"action_timeout of {answer_s:g} s (connection {name}) are {lease + answer_s:g} s, but after "
        f"{session_s - heartbeat_s:g} s (less heartbeat.interval.ms) another instance may own the partition; "
        f"make it at least {math.ceil(enough_s * 1000)}, or action_timeout at most {shorter_s:g}s"
    )
