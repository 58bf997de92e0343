"""EDGE. Tokens for Amazon MSK's IAM, signed by AWS's own signer with the credentials that its SDK finds. Extra `msk`.

Rules:
 1. confluent-kafka asks for a token when a client is made, and again at 80 % of the token's life, on librdkafka's
    background thread: no poll waits for AWS, and none is needed.
 2. All clients of the process share one signer. While AWS cannot be asked, they get its last token as long as that is
    valid. Without one librdkafka asks again every 10 seconds.
 3. A failure is said with who has to act. No text holds a token or a credential.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec

import structlog

MECHANISM = "AWS_MSK_IAM"  # as Kafka's Java clients call it
REGION = "aws.region"
MISSING = "its signer is not installed: pip install 'engage-relay[msk]'"
MIN_LEFT_S = 30.0  # an old token that is worth giving out: longer than a connection takes
LOG_INTERVAL_S = 60.0  # for a failure that stays the same

_HOST_OF_MSK = re.compile(r"\.kafka(?:-serverless)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com")
_WHO_ACTS = {
    "NoCredentialsError": "AWS's SDK finds no credentials: give the pod a role, or set AWS_ACCESS_KEY_ID",
    "PartialCredentialsError": "AWS's SDK finds only a part of the credentials: set all of them",
    "CredentialRetrievalError": "AWS's SDK cannot get credentials from their source",
    "ProfileNotFound": "AWS_PROFILE names a profile that is not there",
    "ClientError": "AWS refuses our role: whoever keeps the AWS account has to allow it",
    "UnauthorizedSSOTokenError": "AWS's single sign-on has expired: sign in again",
    "TokenRetrievalError": "AWS's single sign-on has expired: sign in again",
}
_UNREACHABLE = "AWS cannot be reached for credentials"

Sign = Callable[[str], tuple[str, int]]
"""Sign a token for a region: the token, and when it expires, in milliseconds since 1970. It may wait."""

_LOG = structlog.stdlib.get_logger(__name__)


class TokenError(Exception):
    """No token could be signed; the text says why, in an operator's words."""


def region_of(kafka: Mapping[str, object]) -> str | None:
    """Return the region that the properties name: themselves, or by the brokers' addresses."""
    if (named := kafka.get(REGION)) is not None:
        return str(named)
    found = set(_HOST_OF_MSK.findall(str(kafka.get("bootstrap.servers", ""))))
    return found.pop() if len(found) == 1 else None


def is_installed() -> bool:
    """Whether the extra `msk` is there."""
    return find_spec("aws_msk_iam_sasl_signer") is not None


class Signer:
    """What librdkafka asks for tokens: confluent-kafka's `oauth_cb`. May be called from any thread."""

    def __init__(self, region: str, sign: Sign, now: Callable[[], float] = time.time) -> None:
        self.failure: str | None = None
        self._region = region
        self._sign = sign
        self._now = now
        self._last: tuple[str, float] = ("", 0.0)
        self._said: tuple[str, float] = ("", 0.0)
        self._lock = threading.Lock()

    def __call__(self, _: str | None = None) -> tuple[str, float]:
        """Return a token and when it expires, in seconds since 1970. Raises TokenError where there is none."""
        with self._lock:
            try:
                token, expires_ms = self._sign(self._region)
            except Exception as error:  # noqa: BLE001 - AWS's SDK, with whatever is behind it
                return self._without(error)
            if self.failure is not None:
                _LOG.info("AWS signs tokens for MSK again")
            self.failure = None
            self._last = token, expires_ms / 1000
            return self._last

    def _without(self, error: Exception) -> tuple[str, float]:
        """Return the last token while it is of use, and say what is wrong."""
        name = type(error).__name__
        why = self.failure = f"no token for MSK in {self._region}: {_WHO_ACTS.get(name, _UNREACHABLE)} ({name})"
        now = self._now()
        if why != self._said[0] or now - self._said[1] >= LOG_INTERVAL_S:
            self._said = why, now
            _LOG.warning("no token for MSK could be signed; connections that are open stay", why=why)
        if self._last[1] - now > MIN_LEFT_S:
            return self._last
        raise TokenError(why) from None


@cache
def signer(region: str) -> Signer:
    """Return the process's signer for a region. The extra is installed: config/login.py asks `is_installed`."""
    from aws_msk_iam_sasl_signer.MSKAuthTokenProvider import generate_auth_token  # noqa: PLC0415 - an extra

    return Signer(region, generate_auth_token)
