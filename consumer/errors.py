"""What ends the process: one class for each reason, with its exit code and, where a person must act, what to do."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process ends with; documented in README."""

    OK = 0
    FAILED = 1  # an error that a restart may fix; the last log line names it
    CONFIGURATION = 2  # the operator: the configuration, by itself or for these brokers, or an address that is taken
    TOPICS = 3  # the operator: a topic is missing or does not fit
    START = 4  # the operator has not said where to start (`--from`)
    OFFSET_OUT_OF_RANGE = 5  # the operator: the source no longer holds the next offset
    IDENTITY = 6  # the operator: the delay topic belongs to another source, group or cluster


class FatalError(Exception):
    """Ends the process with its exit code. `advice` says what the operator can do."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    advice: str | None = None


class ConfigurationError(FatalError):
    """The configuration cannot be used. `errors` holds all that is wrong, a line each, in the file's order."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class KafkaUnreachableError(FatalError):
    """No broker answers; the text says at which addresses, and why."""


class ListenError(FatalError):
    """The admin server cannot listen at the configured address."""

    exit_code = ExitCode.CONFIGURATION


class TopicError(FatalError):
    """A topic is missing or does not fit. Holds everything that is wrong, one per line."""

    exit_code = ExitCode.TOPICS
    advice = "create a source topic yourself, the others with `engage-relay topics create` or --create-topics"


class StartRefusedError(FatalError):
    """The source holds records, and the operator has not said where to start."""

    exit_code = ExitCode.START
    advice = "decide with --from earliest (replay all of it) or --from latest (skip it)"


class OldEventsError(FatalError):
    """A start from the beginning would send actions for old events, and the operator has not said whether it may."""

    exit_code = ExitCode.CONFIGURATION
    advice = (
        "decide with --max-age, such as --max-age 2d (older ones become dead letters), or --no-max-age (send them "
        "all); or with max_age in the configuration"
    )


class StartUnknownError(FatalError):
    """There is no committed offset and no position record, and the topic holds records: the operator decides."""

    exit_code = ExitCode.START
    advice = "decide with --from earliest or --from latest"


class ConsumerFailedError(FatalError):
    """The Kafka consumer met an error from which it cannot recover: the group does not take this member any more."""

    advice = (
        "start it again; if it ends again and again, give each instance its own group.instance.id, "
        "let all instances have the same group.protocol, and look at the rights on the group and its limit of members "
        "(group.consumer.max.size)"
    )


class LoginReplacedError(FatalError):
    """The brokers refuse a login whose file holds another one by now. Who starts reads that one."""

    advice = "start it again: it reads the files then"


class IdentityError(FatalError):
    """What the delay topic holds belongs to another source than this: its offsets say nothing about this one.

    The source was recreated or renamed, the group or the cluster is another one, or two relays name one delay topic.
    """

    exit_code = ExitCode.IDENTITY

    def __init__(self, why: str, *sources: str) -> None:
        """`sources`: the topics that it is about."""
        super().__init__(why)
        source = sources[0] if sources else "SOURCE"
        self.advice = (
            "if it is the delay topic of another relay, give this one its own (delay.topic); if this relay takes its "
            f"place, stop all instances and run: engage-relay topics adopt {source} --from earliest (the source's "
            "events are all new), latest (skip those that are there) or recorded (the offsets are the same)"
        )


class AdoptionRefusedError(FatalError):
    """`topics adopt` was asked for what cannot be right."""

    exit_code = ExitCode.IDENTITY


class OffsetOutOfRangeError(FatalError):
    """The next offset is not in the source: retention overran the relay, or the topic was recreated."""

    exit_code = ExitCode.OFFSET_OUT_OF_RANGE
    advice = (
        "choose the next offset with Kafka's own tool, while no instance runs: "
        "kafka-consumer-groups.sh --reset-offsets --group <group.id> --topic <source>"
    )
