"""Chance without a generator: every draw depends on the seed and on what it is drawn for, and on nothing else.

So the same order takes the same time and meets the same faults in every run with one seed, however the
requests of different orders interleave.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist
from typing import Literal

_NORMAL = NormalDist()
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0}

Shape = Literal["fixed", "uniform", "lognormal", "exponential"]


def token(seed: int, *subject: str | int) -> str:
    """Return 16 hexadecimal digits that belong to this subject."""
    return blake2b(repr((seed, subject)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def draw(seed: int, *subject: str | int) -> float:
    """Return a number in [0, 1), uniform over subjects."""
    return (int(token(seed, *subject), 16) >> 11) / (1 << 53)


@dataclass(frozen=True, slots=True)
class Durations:
    """A distribution of durations in seconds, by its quantile function.

    `first` and `second`: fixed(value), uniform(least, most), lognormal(median, sigma), exponential(mean).
    """

    shape: Shape
    first: float
    second: float = 0.0

    def quantile(self, share: float) -> float:
        """Return the duration that a `share` in [0, 1) of all durations stays below."""
        match self.shape:
            case "fixed":
                return self.first
            case "uniform":
                return self.first + share * (self.second - self.first)
            case "exponential":
                return -self.first * math.log1p(-share)
            case "lognormal":
                # inv_cdf has no value at 0 itself.
                return self.first * math.exp(self.second * _NORMAL.inv_cdf(max(share, 2.0**-53)))


def parse_durations(text: str) -> Durations:
    """Read `instant`, `fixed:2s`, `uniform:1s..5s`, `lognormal:2s,0.8` (median, sigma) or `exponential:2s` (mean)."""
    shape, _, numbers = text.strip().partition(":")
    try:
        match shape:
            case "instant" if not numbers:
                return Durations("fixed", 0.0)
            case "fixed" | "exponential":
                return Durations(shape, parse_seconds(numbers))
            case "uniform":
                least, separator, most = numbers.partition("..")
                if separator and parse_seconds(least) <= parse_seconds(most):
                    return Durations(shape, parse_seconds(least), parse_seconds(most))
            case "lognormal":
                median, _, sigma = numbers.partition(",")
                if re.fullmatch(r"\d+(\.\d+)?", sigma.strip()):
                    return Durations(shape, parse_seconds(median), float(sigma))
    except ValueError as error:
        raise ValueError(f"durations {text!r}: {error}") from None
    raise ValueError(
        f"durations {text!r}: expected instant, fixed:2s, uniform:1s..5s, lognormal:2s,0.8 or exponential:2s"
    )


def parse_seconds(text: str) -> float:
    """Read `500ms`, `2s`, `1.5m` as seconds."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text.strip()!r} is no duration; expected a number and ms, s or m, as in 500ms")
    return float(found[1]) * _UNITS_S[found[2]]


def parse_probability(text: str) -> float:
    """Read a number from 0 to 1."""
    try:
        probability = float(text)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise ValueError(f"{text.strip()!r} is no probability; expected a number from 0 to 1")
    return probability
