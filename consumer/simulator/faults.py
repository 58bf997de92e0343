"""Faults: what can go wrong with a request, and which request it befalls.

Rules:
 1. At most one fault befalls a request. The probabilities of one call's faults therefore add up to 1 at most.
 2. A fault comes after the checks of the key, the User-Agent and the rate: it befalls only what would have been served.
 3. Which request it is depends on the seed, the call, the order or job id, and how often that was asked before.
 4. `FAULTS` is the whole truth of what each one does. A fault with several effects draws one, each as likely.

`processed` says whether Engage did the work (an action was accepted, a version made), whatever the client sees.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from consumer.simulator.answer import CALLS, Answer, Call, error_page, refuse
from consumer.simulator.chance import draw, parse_probability

Ending = Literal["answer", "late", "silence", "reset", "close", "cut", "garbage"]
FaultName = Literal[
    "unavailable",
    "error",
    "throttle",
    "hang",
    "slow",
    "reset-before",
    "reset-after",
    "close-after",
    "cut-body",
    "garbage",
    "html",
    "stale",
    "unauthorized",
    "lost-answer",
]


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of the request.

    `instead` replaces the answer. `new_version`: the order is changed just before. `ending`: answer; late (the answer
    after a drawn delay); silence (nothing, until the client closes); reset (TCP RST); close (TCP FIN without an
    answer); cut (status, full Content-Length, half of the body, FIN); garbage (bytes that are no HTTP, FIN).
    """

    processed: bool
    ending: Ending
    instead: Answer | None = None
    new_version: bool = False


FAULTS: dict[FaultName, tuple[Effect, ...]] = {
    # name:          processed?  the client sees
    "unavailable": (Effect(False, "answer", refuse(503, "the service is unavailable")),),
    "error": tuple(
        Effect(processed, "answer", refuse(status, "an unexpected error occurred"))
        for status in (500, 502, 504)
        for processed in (False, True)
    ),
    "throttle": (Effect(False, "answer", refuse(429, "too many requests", retry_after_s=1)),),
    "hang": (Effect(False, "silence"),),
    "slow": (Effect(True, "late"),),
    "reset-before": (Effect(False, "reset"),),
    "reset-after": (Effect(True, "reset"),),
    "close-after": (Effect(True, "close"),),
    "cut-body": (Effect(True, "cut"),),
    "garbage": (Effect(True, "garbage"),),
    "html": (Effect(False, "answer", error_page(Answer(status=502))),),
    "stale": (Effect(True, "answer", new_version=True),),  # actions only: the tag no longer matches, 404
    "unauthorized": (Effect(False, "answer", refuse(401, "the API key is not valid")),),
    "lost-answer": (Effect(True, "silence"),),
}


@dataclass(frozen=True, slots=True)
class FaultRule:
    """How often a fault befalls which calls."""

    fault: FaultName
    probability: float
    calls: tuple[Call, ...] = CALLS


class Faults:
    """Deals faults. Pure but for counting how often each thing was asked."""

    def __init__(self, seed: int, rules: tuple[FaultRule, ...] = ()) -> None:
        self._seed = seed
        self._asked: Counter[tuple[Call, str]] = Counter()
        self.follow(rules)

    def follow(self, rules: tuple[FaultRule, ...]) -> None:
        """Deal by these rules from now on. What was asked before still counts: else the same would be hit again."""
        self._rules = {call: [rule for rule in rules if call in rule.calls] for call in CALLS}

    def deal(self, call: Call, subject: str) -> tuple[FaultName, Effect] | None:
        """Say what befalls the next request of this call about this order or job id. Mostly nothing."""
        rules = self._rules.get(call)
        if not rules:
            return None
        self._asked[call, subject] += 1
        what = (call, subject, self._asked[call, subject])
        chance = draw(self._seed, "fault", *what)
        for rule in rules:
            chance -= rule.probability
            if chance < 0:
                effects = FAULTS[rule.fault]
                return rule.fault, effects[int(draw(self._seed, "effect", *what) * len(effects))]
        return None

    def start_again(self) -> None:
        """Forget what was asked: the same requests meet the same faults again."""
        self._asked.clear()


def parse_faults(texts: Iterable[str]) -> tuple[FaultRule, ...]:
    """Read `name=probability[,calls=action|job|order|document]`, several calls joined by `|` or `+`."""
    rules = tuple(map(_parse_fault, texts))
    for call in CALLS:
        total = sum(rule.probability for rule in rules if call in rule.calls)
        if total > 1 + 1e-9:
            raise ValueError(f"faults: the probabilities for call {call} add up to {total:g}, which is more than 1")
    return rules


def _parse_fault(text: str) -> FaultRule:
    found = re.fullmatch(r"\s*([^=,]+)=([^=,]+)(?:,\s*calls=([^=,]+))?\s*", text)
    if found is None:
        raise ValueError(f"fault {text!r}: expected name=probability[,calls=action|job|order|document]")
    name, probability, calls = found.groups()
    fault = next((known for known in get_args(FaultName) if known == name), None)
    if fault is None:
        raise ValueError(f"fault {text!r}: no fault is called {name!r}; there are {', '.join(FAULTS)}")
    try:
        return FaultRule(fault, parse_probability(probability), _parse_calls(fault, calls))
    except ValueError as error:
        raise ValueError(f"fault {text!r}: {error}") from None


def _parse_calls(fault: FaultName, text: str | None) -> tuple[Call, ...]:
    if text is None:
        return ("action",) if fault == "stale" else CALLS
    names = [name.strip() for name in re.split(r"[|+]", text)]
    calls = tuple(call for call in CALLS if call in names)
    if unknown := [name for name in names if name not in CALLS]:
        raise ValueError(f"no call is called {unknown[0]!r}; there are {', '.join(CALLS)}")
    if fault == "stale" and calls != ("action",):
        raise ValueError("stale befalls actions only")
    return calls
