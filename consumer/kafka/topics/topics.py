"""EDGE. The topics that the relay needs: create them, and check them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from consumer.errors import TopicError
from consumer.kafka import clients
from consumer.kafka.topics.asking import (
    CALL_TIMEOUT_S,
    answer_of,
    configurations,
    copies,
    counts_of_existing,
    may_write,
    partition_counts,
)
from consumer.kafka.topics.offsets import watermarks
from consumer.kafka.topics.rules import (
    COMPACTED,
    CONTROL,
    DEAD_LETTERS,
    Entries,
    Misfit,
    TopicRules,
    command,
    control_misfits,
    dead_letter_misfits,
    delay_misfits,
    forgotten_facts,
    fragile,
    outcomes_configuration,
    outcomes_misfits,
    source_misfits,
)

VISIBLE_RETRY_S = 0.05
NEW_TOPIC_S = 3.0  # brokers learn of a new topic one after the other, on a busy machine within a second
Error = tuple[str, str]  # a topic, and what is wrong with it

_AS_BUILT = TopicRules()
CONTROL_RIGHTS = (AclOperation.READ, AclOperation.WRITE)  # to hear what people ask, and to answer


@dataclass(frozen=True, slots=True)
class RelayTopics:
    """A source topic and those that belong to it. `outcomes`: None where no outcomes are written.

    `drained`: it is no longer configured. What is pending is delivered, and nothing is read from it (removed.py).
    """

    source: str
    delay: str
    dead_letters: str
    outcomes: str | None = None
    drained: bool = False

    @property
    def own(self) -> tuple[str, ...]:
        """The relay's own topics beside the source."""
        return (self.delay, self.dead_letters, *([] if self.outcomes is None else [self.outcomes]))


def check(
    admin: AdminClient, topics: Iterable[RelayTopics], rules: TopicRules = _AS_BUILT, control: str | None = None
) -> list[str]:
    """Check that all topics are there and fit; returns what a person should know nevertheless, a line each.

    `control`: the control topic, where there is one.

    Those are what could not be checked, and a promise that the topics do not keep (rules.py, rule 7).

    Raises TopicError where a topic is missing, has too few partitions, does not fit (rules.py) or may not be
    written: an action whose end cannot be recorded must not be sent.
    """
    errors, notes = _looked_at(admin, topics, rules, control)
    if errors:
        raise TopicError("\n".join(why for _, why in errors))
    return notes


def unfit(
    admin: AdminClient, topics: Iterable[RelayTopics], rules: TopicRules = _AS_BUILT, control: str | None = None
) -> dict[str, list[str]]:
    """Return what `check` would refuse, by topic."""
    found: dict[str, list[str]] = {}
    for topic, why in _looked_at(admin, topics, rules, control)[0]:
        found.setdefault(topic, []).append(why)
    return found


def _looked_at(
    admin: AdminClient, topics: Iterable[RelayTopics], rules: TopicRules, control: str | None
) -> tuple[list[Error], list[str]]:
    """Return what is wrong, and what a person should know nevertheless."""
    errors: list[Error] = []
    notes: list[str] = []
    for each in topics:
        counts = _counts_of(admin, each, errors)
        if counts is None:
            continue
        wanted = counts[each.source]
        for name in each.own:
            if name not in counts:
                errors.append((name, f"topic {name} does not exist"))
            elif counts[name] < wanted:  # more: the source was recreated with fewer (adoption.py, rule 5)
                why = f"topic {name} has {counts[name]} partitions, its source {each.source} has {wanted}"
                errors.append((name, why))
        # What the others refuse is known before an action is sent. An outcome is written when it has been.
        if each.outcomes is not None and each.outcomes in counts and not may_write(admin, each.outcomes):
            why = f"topic {each.outcomes} may not be written: its rights do not include Write"
            errors.append((each.outcomes, why))
        entries = configurations(admin, counts)
        errors += [(misfit.topic, str(misfit)) for misfit in _misfits(each, entries, rules)]
        if each.outcomes in entries and (forgets := forgotten_facts(each.outcomes, entries[each.outcomes], rules)):
            notes.append(forgets)
        notes += [_unchecked(name) for name in counts if name not in entries]
        notes += _fragile(admin, each.own, entries)
    if control is not None:
        notes += _check_control(admin, control, errors)
    return errors, notes


def _unchecked(name: str) -> str:
    return f"topic {name}: its configuration was not checked, as its rights do not include DescribeConfigs"


def _check_control(admin: AdminClient, control: str, errors: list[Error]) -> list[str]:
    counts, forbidden = counts_of_existing(admin, (control,))
    errors += _refusals(forbidden)
    if control not in counts:
        errors += [] if forbidden else [(control, f"topic {control} does not exist")]
        return []
    entries = configurations(admin, (control,))
    if control not in entries:
        return [_unchecked(control)]
    errors += [(control, str(misfit)) for misfit in control_misfits(control, entries[control])]
    return _fragile(admin, (control,), entries)


def _fragile(admin: AdminClient, names: Collection[str], entries: Mapping[str, Entries]) -> list[str]:
    fewest, brokers = copies(admin, names)
    return [why for name, count in fewest.items() for why in fragile(name, count, brokers, entries.get(name, {}))]


def create(
    admin: AdminClient,
    topics: Iterable[RelayTopics],
    replication: int = -1,
    rules: TopicRules = _AS_BUILT,
    control: str | None = None,
) -> list[str]:
    """Create the delay, dead-letter, outcomes and control topics, or repair them.

    Creates what is missing, with the source's partition count (the `control` topic with one). Adds partitions where the
    source has more. Alters the configuration of existing topics, where no record can be lost by that.

    Returns what was done, a line each. Raises TopicError for what cannot be done. Its text says what was done, and
    which command of Kafka's own tools a person has to run.
    """
    done: list[str] = []
    errors: list[str] = []
    made: dict[str, int] = {}
    altered: dict[str, dict[str, str]] = {}
    for each in topics:
        unknown: list[Error] = []
        counts = _counts_of(admin, each, unknown)
        errors += [why for _, why in unknown]
        if counts is None:
            continue
        wanted = counts[each.source]
        for name, config in zip(each.own, (COMPACTED, DEAD_LETTERS, outcomes_configuration(rules)), strict=False):
            try:
                if name not in counts:
                    done.append(_create(admin, name, wanted, replication, config))
                    made[name] = wanted
                elif counts[name] < wanted:
                    _grow(admin, name, wanted)
                    made[name] = wanted
                    done.append(f"grew {name} from {counts[name]} to {wanted} partitions")
            except KafkaException as error:
                if clients.error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    errors.append(clients.error_of(error).str())
        misfits = _misfits(each, configurations(admin, counts), rules)
        errors += _cured(admin, misfits, counts, altered)
    if control is not None:
        counts, forbidden = counts_of_existing(admin, (control,))
        errors += [why for _, why in _refusals(forbidden)]
        if control not in counts and not forbidden:
            errors += _create_control(admin, control, replication, done, made)
        for name, entries in configurations(admin, counts).items():
            errors += _cured(admin, control_misfits(name, entries), counts, altered)
    done += [f"altered {name}: {', '.join(f'{k}={v}' for k, v in config.items())}" for name, config in altered.items()]
    if errors:
        raise TopicError("\n".join([*done, *errors]))
    _await_visible(admin, made, altered)
    return done


def _create(admin: AdminClient, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> str:
    """Create a topic; returns what was done."""
    new = NewTopic(name, partitions, replication, config=dict(config))
    answer_of(admin.create_topics([new], operation_timeout=CALL_TIMEOUT_S)[name], name)
    count = "1 partition" if partitions == 1 else f"{partitions} partitions"
    return f"created {name} with {count}, cleanup.policy={config['cleanup.policy']}"


def _create_control(
    admin: AdminClient, control: str, replication: int, done: list[str], made: dict[str, int]
) -> list[str]:
    """Create the control topic; returns why it cannot be created."""
    try:
        done.append(_create(admin, control, 1, replication, CONTROL))
        made[control] = 1
    except KafkaException as error:
        if clients.error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
            return [clients.error_of(error).str()]
    return []


def _cured(
    admin: AdminClient, misfits: Iterable[Misfit], counts: Mapping[str, int], altered: dict[str, dict[str, str]]
) -> list[str]:
    """Alter what does not fit, and note it in `altered`; returns what cannot be altered."""
    errors = []
    for misfit in misfits:
        if not misfit.cure:
            continue  # a source is its owner's
        refused = _cure(admin, misfit, counts[misfit.topic])
        if refused is None:
            altered.setdefault(misfit.topic, {}).update(misfit.cure)
        else:
            errors.append(f"{misfit}. {refused}")
    return errors


def _misfits(topics: RelayTopics, entries: Mapping[str, Entries], rules: TopicRules) -> list[Misfit]:
    """Return what is wrong with the topics whose configuration is known."""
    source = entries.get(topics.source, {})
    found = source_misfits(topics.source, source, rules)
    if topics.delay in entries:
        found += delay_misfits(topics.delay, entries[topics.delay])
    if topics.dead_letters in entries:
        found += dead_letter_misfits(topics.dead_letters, entries[topics.dead_letters], source, rules)
    if topics.outcomes is not None and topics.outcomes in entries:
        found += outcomes_misfits(topics.outcomes, entries[topics.outcomes], rules)
    return found


def _cure(admin: AdminClient, misfit: Misfit, partitions: int) -> str | None:
    """Alter what may be altered; else return why not, with the line that a person may run."""
    topic, line = misfit.topic, command(misfit.topic, misfit.cure)
    try:
        # The name may be an error, and the topic somebody else's: its records are not ours to delete.
        if misfit.loses and _holds_records(admin, topic, partitions):
            return f"It holds records; if it is the relay's, run: {line}"
        _alter(admin, topic, misfit.cure)
    except KafkaException as error:
        return f"{clients.error_of(error).str()}. Run: {line}"
    return None


def _holds_records(admin: AdminClient, topic: str, partitions: int) -> bool:
    return any(high > low for low, high in watermarks(admin, [(topic, n) for n in range(partitions)]).values())


def _alter(admin: AdminClient, topic: str, properties: Mapping[str, str]) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in properties.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    answer_of(admin.incremental_alter_configs([resource], request_timeout=CALL_TIMEOUT_S)[resource], topic)


def _counts_of(admin: AdminClient, topics: RelayTopics, errors: list[Error]) -> dict[str, int] | None:
    """Return the partition counts of those that exist; None, and the error, where nothing can be said of them.

    Asks for a source that is not there again for NEW_TOPIC_S: a script that has just made it had its answer from one
    broker, and another one answers here.
    """
    names = topics.source, *topics.own
    give_up_at = time.monotonic() + NEW_TOPIC_S
    counts, forbidden = counts_of_existing(admin, names)
    while not forbidden and topics.source not in counts and time.monotonic() < give_up_at:
        time.sleep(VISIBLE_RETRY_S)
        counts, forbidden = counts_of_existing(admin, names)
    if forbidden:
        errors += _refusals(forbidden)
    elif topics.source not in counts:
        errors.append((topics.source, f"source topic {topics.source} does not exist"))
    else:
        return counts
    return None


def _refusals(forbidden: Mapping[str, KafkaException]) -> list[Error]:
    return [(name, clients.error_of(error).str()) for name, error in forbidden.items()]


def _await_visible(admin: AdminClient, made: dict[str, int], altered: dict[str, dict[str, str]]) -> None:
    """Wait until the brokers' metadata show what was done: a client that asks at once would not find it."""
    give_up_at = time.monotonic() + CALL_TIMEOUT_S
    while made and partition_counts(admin, made) != made and time.monotonic() < give_up_at:
        time.sleep(VISIBLE_RETRY_S)
    while not _shows(configurations(admin, altered), altered) and time.monotonic() < give_up_at:
        time.sleep(VISIBLE_RETRY_S)


def _shows(entries: Mapping[str, Entries], altered: dict[str, dict[str, str]]) -> bool:
    return all(entries.get(name, {}).get(k) == v for name, config in altered.items() for k, v in config.items())


def _grow(admin: AdminClient, topic: str, partitions: int) -> None:
    answer_of(
        admin.create_partitions([NewPartitions(topic, partitions)], operation_timeout=CALL_TIMEOUT_S)[topic], topic
    )
