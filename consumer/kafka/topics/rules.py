"""What the configuration of the topics must be, so that nothing is lost in them and nothing stops for them.

Rules:
 1. The delay topic is compacted, and nothing else: retention would delete pending actions.
 2. The dead-letter topic is not compacted: compaction refuses a record without a key, which stops the journal, and it
    keeps one dead letter per key only.
 3. A dead letter lives until a person has dealt with it: for ever, or at least `dead_letters.keep`. A limit in bytes
    says nothing about time, so there must be none.
 4. None of the relay's topics refuses a record for its time. Its time is the host's, whose clock may be wrong; the
    broker's own (LogAppendTime) cannot be. Limits from MIN_CLOCK_LIMIT_MS up are left alone.
 5. The dead-letter topic takes whatever its source takes, with the headers that say why.
 6. Outcomes live as long as `outcomes.retention` says. Their topic is not compacted: an action has a record of its own,
    and some have no key.
 7. Outcomes that live shorter than the window of `repeats` void that promise after a restart, and no other: it is said,
    and the topic is not refused.
 8. The control topic is compacted, and nothing else: retention would end pauses that nobody ended.
 9. A compacted source loses events that were not read yet: it is refused unless that is accepted.
10. Compaction keeps a tombstone for long enough. Who has read a record, and finds its tombstone gone, takes for pending
    what has ended.
11. What the brokers acknowledged of the relay's own topics survives a broker. Where it does not, it is said, and the
    topic is not refused: a test's brokers may be so.

All of it is pure: what the broker says goes in as `Entries`, what is wrong comes out as `Misfit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Entries = Mapping[str, str | None]

DAY_S = 24 * 3600
MIN_CLOCK_LIMIT_MS = DAY_S * 1000
MAX_MESSAGE_BYTES = 8 * 1024 * 1024  # what the relay's producer sends at most (clients.producer)
# Engage's list of errors is cut at 8 KiB; the other headers are names and numbers.
HEADERS_BYTES = 64 * 1024
# A restore of a million records takes half a minute; who lost the brokers in the middle of it goes on where it was.
MIN_TOMBSTONE_S = 3600.0

# Kafka before 3.6 has one limit for both directions.
_CLOCK_LIMITS = {
    "message.timestamp.before.max.ms": "behind",
    "message.timestamp.after.max.ms": "ahead of",
    "message.timestamp.difference.max.ms": "away from",
}

CONTROL = {
    "cleanup.policy": "compact",
    # Whoever reads it from its beginning must still see that a pause was forgotten.
    "delete.retention.ms": str(24 * 3600 * 1000),
    "segment.ms": str(24 * 3600 * 1000),
    "message.timestamp.type": "LogAppendTime",
}
COMPACTED = {
    "cleanup.policy": "compact",
    # Tombstones stay readable for a day: a reader that started before one must still see it.
    "delete.retention.ms": str(24 * 3600 * 1000),
    # A pending record is its event plus the routed action; the broker's default limit is 1 MiB.
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
    "segment.ms": str(3600 * 1000),
    "message.timestamp.type": "LogAppendTime",
}
DEAD_LETTERS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",  # a dead letter goes when a person says so
    "retention.bytes": "-1",
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
    "message.timestamp.type": "LogAppendTime",
}

MIN_OUTCOME_BYTES = 16 * 1024  # names, ids and numbers: an outcome has a few hundred bytes


@dataclass(frozen=True, slots=True)
class TopicRules:
    """What the operator decides: how long dead letters and outcomes live, and whether a source may be compacted.

    `repeats_s`: the longest window in which a fact is sent once; None: each event is sent.
    """

    keep_dead_letters_s: float = 30 * DAY_S
    compacted_source: bool = False
    keep_outcomes_s: float = 90 * DAY_S
    repeats_s: float | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """One thing that is wrong with a topic. `cure`: the properties to set; empty where none would help.

    `loses`: the cure deletes records of a topic that is somebody else's, so a person has to apply it.
    """

    topic: str
    why: str
    cure: Mapping[str, str]
    loses: bool = False

    def __str__(self) -> str:
        return f"topic {self.topic} {self.why}"


def delay_misfits(topic: str, entries: Entries) -> list[Misfit]:
    """Return what is wrong with a delay topic."""
    policy = entries.get("cleanup.policy")
    found = [*_tombstone_misfits(topic, entries, COMPACTED), *_clock_misfits(topic, entries)]
    if policy is not None and policy != "compact":
        why = f"has cleanup.policy={policy}: it would lose pending actions"
        found.insert(0, Misfit(topic, why, {"cleanup.policy": "compact"}, loses=True))
    return found


def control_misfits(topic: str, entries: Entries) -> list[Misfit]:
    """Return what is wrong with the control topic."""
    policy = entries.get("cleanup.policy")
    found = [*_tombstone_misfits(topic, entries, CONTROL), *_clock_misfits(topic, entries)]
    if policy is not None and policy != "compact":
        why = f"has cleanup.policy={policy}: it would forget pauses that nobody ended"
        found.insert(0, Misfit(topic, why, {"cleanup.policy": "compact"}, loses=True))
    return found


def dead_letter_misfits(topic: str, entries: Entries, source: Entries, rules: TopicRules) -> list[Misfit]:
    """Return what is wrong with a dead-letter topic; `source`: its source's configuration."""
    found: list[Misfit] = []
    policies = _policies(entries)
    if "compact" in policies:
        # With `delete` alone, a broker's default retention would take what compaction has left.
        cure = {name: DEAD_LETTERS[name] for name in ("cleanup.policy", "retention.ms", "retention.bytes")}
        why = (
            f"has cleanup.policy={','.join(policies)}: it would keep one dead letter per key and refuse those "
            "without a key"
        )
        found.append(Misfit(topic, why, cure, loses=True))
    elif "delete" in policies:
        kept = _Kept("dead letters", rules.keep_dead_letters_s, "dead_letters.keep", DEAD_LETTERS["retention.ms"])
        found += _retention_misfits(topic, entries, kept)
    found += _clock_misfits(topic, entries)
    taken, needed = _number(entries, "max.message.bytes"), _number(source, "max.message.bytes")
    if taken is not None and needed is not None and taken < (needed := min(needed + HEADERS_BYTES, MAX_MESSAGE_BYTES)):
        why = (
            f"takes records of at most {taken} bytes (max.message.bytes), its source's need {needed}: "
            "a large dead letter would lose its value"
        )
        found.append(Misfit(topic, why, {"max.message.bytes": str(MAX_MESSAGE_BYTES)}))
    return found


def outcomes_configuration(rules: TopicRules) -> dict[str, str]:
    """Return the configuration of an outcomes topic that is created."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(round(rules.keep_outcomes_s * 1000)),
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
    }


def outcomes_misfits(topic: str, entries: Entries, rules: TopicRules) -> list[Misfit]:
    """Return what is wrong with an outcomes topic."""
    created = outcomes_configuration(rules)
    found = _clock_misfits(topic, entries)
    if "compact" in (policies := _policies(entries)):
        cure = {name: created[name] for name in ("cleanup.policy", "retention.ms", "retention.bytes")}
        why = (
            f"has cleanup.policy={','.join(policies)}: it would keep one outcome per key and refuse those without a key"
        )
        found.insert(0, Misfit(topic, why, cure, loses=True))
    elif "delete" in policies:
        kept = _Kept("outcomes", rules.keep_outcomes_s, "outcomes.retention", created["retention.ms"])
        found = [*_retention_misfits(topic, entries, kept), *found]
    taken = _number(entries, "max.message.bytes")
    if taken is not None and taken < MIN_OUTCOME_BYTES:
        why = f"takes records of at most {taken} bytes (max.message.bytes): an outcome that is refused stops the relay"
        found.append(Misfit(topic, why, {"max.message.bytes": str(MAX_MESSAGE_BYTES)}))
    return found


def forgotten_facts(topic: str, entries: Entries, rules: TopicRules) -> str | None:
    """Return what a restart forgets of an outcomes topic whose retention is shorter than the window; None: nothing."""
    retention_ms = _number(entries, "retention.ms")
    if rules.repeats_s is None or retention_ms is None or not 0 <= retention_ms < rules.repeats_s * 1000:
        return None
    if "delete" not in _policies(entries):
        return None
    return (
        f"topic {topic} deletes outcomes after {_days(retention_ms / 1000)} (retention.ms={retention_ms}), the longest "
        f"window of repeats is {_days(rules.repeats_s)}: after a restart, repeats of facts in between are sent"
    )


def fragile(topic: str, copies: int, brokers: int, entries: Entries) -> list[str]:
    """Return why a broker that is lost may take what it acknowledged of a topic (rule 11).

    `copies`: how many brokers have it, of the partition with the fewest. `brokers`: how many there are.
    """
    if brokers < 2:
        return []  # there is no other to keep it
    if copies == 1:
        return [
            f"topic {topic} has one copy, on one of {brokers} brokers: what the relay keeps there is lost with that "
            "broker (docs/guarantees.md, what it depends on)"
        ]
    found = []
    if _number(entries, "min.insync.replicas") == 1:
        found.append(
            f"topic {topic} has min.insync.replicas=1: what one broker has is acknowledged, and lost with it; set 2"
        )
    if entries.get("unclean.leader.election.enable") == "true":
        found.append(
            f"topic {topic} has unclean.leader.election.enable=true: a broker that was behind may lead, and what it "
            "lacks is lost; set false"
        )
    return found


def source_misfits(topic: str, entries: Entries, rules: TopicRules) -> list[Misfit]:
    """Return what is wrong with a source topic."""
    policies = _policies(entries)
    if "compact" not in policies or rules.compacted_source:
        return []
    why = (
        f"is a source and has cleanup.policy={','.join(policies)}: compaction deletes an order's earlier events, also "
        "those that were not read yet. Name a topic that is not compacted, or accept it (source.compacted: accept)"
    )
    return [Misfit(topic, why, {})]


def command(topic: str, cure: Mapping[str, str]) -> str:
    """Return the line of Kafka's own tool that applies a cure. Values with a comma are put in brackets, as it asks."""
    settings = ",".join(f"{name}=[{value}]" if "," in value else f"{name}={value}" for name, value in cure.items())
    return (
        "kafka-configs.sh --bootstrap-server BOOTSTRAP --alter --entity-type topics "
        f"--entity-name {topic} --add-config {settings}"
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a topic keeps, for how long at least, which setting says so, and the retention that cures it."""

    what: str
    keep_s: float
    setting: str
    retention_ms: str


def _retention_misfits(topic: str, entries: Entries, kept: _Kept) -> list[Misfit]:
    found: list[Misfit] = []
    retention_ms, size = _number(entries, "retention.ms"), _number(entries, "retention.bytes")
    if retention_ms is not None and 0 <= retention_ms < kept.keep_s * 1000:
        why = (
            f"deletes {kept.what} after {_days(retention_ms / 1000)} (retention.ms={retention_ms}); they must live "
            f"at least {_days(kept.keep_s)} ({kept.setting})"
        )
        found.append(Misfit(topic, why, {"retention.ms": kept.retention_ms}))
    if size is not None and size >= 0:
        why = f"deletes {kept.what} beyond {size} bytes (retention.bytes), however new they are"
        found.append(Misfit(topic, why, {"retention.bytes": "-1"}))
    return found


def _tombstone_misfits(topic: str, entries: Entries, created: Mapping[str, str]) -> list[Misfit]:
    kept_ms = _number(entries, "delete.retention.ms")
    if kept_ms is None or kept_ms >= MIN_TOMBSTONE_S * 1000:
        return []
    why = (
        f"deletes tombstones after {kept_ms / 1000:g} s (delete.retention.ms={kept_ms}): a reader that misses one "
        "takes for pending what has ended"
    )
    return [Misfit(topic, why, {"delete.retention.ms": created["delete.retention.ms"]})]


def _clock_misfits(topic: str, entries: Entries) -> list[Misfit]:
    if entries.get("message.timestamp.type") != "CreateTime":
        return []
    for name, direction in _CLOCK_LIMITS.items():
        limit_ms = _number(entries, name)
        if limit_ms is not None and limit_ms < MIN_CLOCK_LIMIT_MS:
            why = (
                f"refuses records whose time is more than {limit_ms / 1000:g} s {direction} the broker's "
                f"({name}={limit_ms}): a host's wrong clock would stop the relay"
            )
            return [Misfit(topic, why, {"message.timestamp.type": "LogAppendTime"})]
    return []


def _policies(entries: Entries) -> list[str]:
    return [each.strip() for each in (entries.get("cleanup.policy") or "").split(",") if each.strip()]


def _number(entries: Entries, name: str) -> int | None:
    value = entries.get(name)
    return None if value is None else int(value)


def _days(seconds: float) -> str:
    return f"{seconds / DAY_S:g} days" if seconds >= DAY_S else f"{seconds / 3600:g} hours"
