"""EDGE. Whether a broker answers, and if none does, why: by address, in librdkafka's own words.

librdkafka says why a connection fails only to a client's error callback. The call that waits for it just times out
("Local: Timed out"), whatever is wrong: a port where nobody listens, a name that nobody knows, a wrong password.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from consumer.errors import ConfigurationError, KafkaUnreachableError
from consumer.kafka import clients
from consumer.kafka.login_files import LoginFiles
from consumer.kafka.msk import Signer

FIRST_TRY_S = 1.0  # a broker at hand answers in milliseconds; after this somebody should know what we wait for
NEXT_TRY_S = 5.0
RETRY_S = 0.2
GIVE_UP_S = 5.0  # of a command, which somebody waits for
LOG_INTERVAL_S = 30.0  # for a cause that stays the same
MAX_CAUSE = 200  # characters

_FAILURE = re.compile(r"(?:\w+://)?(?P<address>[^ ]+?)/(?:bootstrap|-?\d+): (?P<text>.+)", re.DOTALL)
_AFTER = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")
_SHORT = (
    (re.compile(r"Connect to \S+ failed: (.+)"), lambda text: text[:1].lower() + text[1:]),
    (re.compile(r"Failed to resolve '[^']*': (.+)"), lambda text: f"unknown host ({text})"),
)

_LOG = structlog.stdlib.get_logger(__name__)
# What this client's log says of failed connections, its causes say, too.
_QUIET = logging.getLogger("librdkafka.reaching")
_QUIET.addFilter(lambda record: not record.getMessage().startswith(("FAIL ", "CONFWARN ")))


def cause_of(text: str) -> tuple[str, str] | None:
    """Read what librdkafka says of a connection: its address, and why it failed. None where it is about none."""
    match = _FAILURE.fullmatch(text.strip())
    if match is None:
        return None
    why = _AFTER.sub("", match["text"])
    for pattern, shorter in _SHORT:
        if (found := pattern.fullmatch(why)) is not None:
            why = shorter(found[1])
    return match["address"], why[:MAX_CAUSE]


class Causes:
    """Why connections failed: the last cause of each address. Told by a client when somebody polls it.

    `signer`: whose failure to log in is a cause, too.
    """

    def __init__(self, signer: Signer | None = None) -> None:
        self._by_address: dict[str, str] = {}
        self._signer = signer
        self.errors: dict[str, KafkaError] = {}  # the last one of each address

    def note(self, error: KafkaError) -> None:
        """Take what a client says."""
        if (found := cause_of(error.str())) is not None:
            self.errors[found[0]] = error
            self._by_address[found[0]] = found[1]
        elif error.code() == KafkaError._AUTHENTICATION:  # before there is any connection: no token could be had
            self._by_address["login"] = error.str()[:MAX_CAUSE]

    def explained(self, admin: AdminClient, error: KafkaException) -> KafkaException:
        """Return an error of a call with the causes before it, where there are any."""
        admin.poll(0)
        return clients.exception(clients.error_of(error), str(self)) if self._by_address else error

    def __str__(self) -> str:
        signing = None if self._signer is None else self._signer.failure
        return signing or "; ".join(f"{address}: {why}" for address, why in sorted(self._by_address.items()))


class NoTokenError(Exception):
    """A client could not be made, because nobody gave it a token. The text says why."""


def watched(kafka: clients.Properties) -> tuple[AdminClient, Causes]:
    """Return an admin client, and why its connections fail.

    Raises ConfigurationError where none can be made, NoTokenError where one can be made later.
    """
    causes = Causes()
    try:
        properties: dict[str, Any] = {**clients.base(kafka)}
        causes = Causes(properties.get("oauth_cb"))
        properties["error_cb"] = causes.note
        return AdminClient(properties, logger=_QUIET), causes
    except KafkaException as error:  # a file that cannot be read or holds something else; properties that do not fit
        if clients.error_of(error).code() == KafkaError.SASL_AUTHENTICATION_FAILED:
            raise NoTokenError(str(causes) or clients.error_of(error).str()) from None
        text = clients.error_of(error).str().removeprefix("Failed to create admin client: ")
        raise ConfigurationError((f"kafka: {text}",)) from None


def reached(
    kafka: clients.Properties,
    *,
    say: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    give_up_s: float = math.inf,
) -> tuple[AdminClient, Causes]:
    """Wait for a broker's answer. Returns the client that got it, and why its connections fail from now on.

    `say` is told again and again what the wait is for. Ends without an answer when `stopped`.
    Raises KafkaUnreachableError after `give_up_s`, ConfigurationError where no client can be made.
    """
    begun, patience_s = time.monotonic(), FIRST_TRY_S
    login = LoginFiles(kafka)
    while (found := _made(kafka, say)) is None:
        if stopped() or time.monotonic() - begun >= give_up_s:
            raise KafkaUnreachableError("Kafka was not asked: nobody gave us a token to log in with")
    admin, causes = found
    while not stopped():
        try:
            admin.list_topics(timeout=patience_s)  # of all calls the one that no missing right and no controller fails
        except KafkaException:
            admin.poll(0)
            where = str(causes) or f"{kafka['bootstrap.servers']}: no answer yet"
            if time.monotonic() - begun >= give_up_s:
                raise KafkaUnreachableError(f"Kafka does not answer at {where}") from None
            say(f"waiting for Kafka at {where}")
            patience_s = min(NEXT_TRY_S, max(give_up_s - (time.monotonic() - begun), RETRY_S))
            time.sleep(RETRY_S)
            if any(map(login.outdated_by, causes.errors.values())):
                present = LoginFiles(kafka)
                if (found := _made(kafka, say)) is not None:
                    login, (admin, causes) = present, found
        else:
            break
    return admin, causes


def _made(kafka: clients.Properties, say: Callable[[str], None]) -> tuple[AdminClient, Causes] | None:
    """Return what `watched` returns; None, and say so: nobody gives us a token yet. That takes confluent-kafka 10 s."""
    try:
        return watched(kafka)
    except NoTokenError as error:
        say(f"waiting for a login to Kafka: {error}")
        return None


class Waiting:
    """What a start waits for, for page and log. `say` may be called from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.text: str | None = None
        self._now = now
        self._said_at = -math.inf

    def say(self, text: str) -> None:
        """Say it: in the log where it is new, or was said long ago."""
        now = self._now()
        if text != self.text or now - self._said_at >= LOG_INTERVAL_S:
            self._said_at = now
            _LOG.warning(text)
        self.text = text

    def over(self) -> None:
        """Say that the wait is over."""
        if self.text is not None:
            _LOG.info("Kafka answers")
        self.text = None
