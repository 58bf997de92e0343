"""What a configuration says of an order's sequence: which routes supersede which, and which step follows which. Pure.

What follows from it, core/sequences.py does. Rules:
 1. A name that is no route's or no action's is an error: a misspelt one would never withdraw anything, and say nothing.
 2. No route supersedes itself, nor in a circle: of two events that come together, each would withdraw the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from consumer.events.routing.rules import RouteRule
from schemas.engage import DOCUMENTED_ACTIONS


def wrong_superseding(routes: Mapping[str, RouteRule]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with `superseded_by`: the route that says it, and why."""
    for name, rule in routes.items():
        if not rule.superseded_by:
            continue
        for number, each in enumerate(rule.superseded_by, 1):
            if each not in routes:
                yield name, f"name {number} is no route's{_meant(each, routes)}"
        if name in rule.superseded_by:
            yield name, "a route cannot supersede itself: `repeats` withholds what comes twice"
        elif (circle := _circle_of(name, routes)) is not None:
            yield name, f"supersede each other in a circle: {', '.join(circle)}"
        if (twice := _twice(rule.superseded_by)) in routes:
            yield name, f"names the route {twice} twice"


def wrong_steps(steps: Sequence[str], routes: Mapping[str, RouteRule]) -> str | None:
    """Say what is wrong with an order of actions; None: nothing is."""
    if len(steps) == 1:
        return "must name at least two actions: one alone is in no sequence"
    if (twice := _twice(steps)) is not None:
        return f"name {len(steps) - steps[::-1].index(twice)} was named before: each action is one step"
    known = {*DOCUMENTED_ACTIONS, *(rule.action for rule in routes.values())}
    names_others = any(rule.action_name is not None for rule in routes.values())
    for number, each in enumerate(steps, 1):
        meant = _meant(each, known)
        if each not in known and (meant or not names_others):
            return f"no route sends the action of name {number}{meant}"
    return None


def may_lose_a_parcel(steps: Sequence[str]) -> bool:
    """Tell whether an order's second parcel may be a step backwards behind the first one's delivery."""
    return {"ConfirmShipment", "ConfirmDelivery"} <= set(steps)


def _circle_of(name: str, routes: Mapping[str, RouteRule]) -> list[str] | None:
    """Return the routes through which a route supersedes itself, as far as it is the first of them."""
    paths = [[name]]
    seen = {name}
    for path in paths:
        rule = routes.get(path[-1])
        for each in () if rule is None else rule.superseded_by:
            if each == name:
                return [*path, name] if min(path) == name else None
            if each not in seen:
                seen.add(each)
                paths.append([*path, each])
    return None


def _twice(names: Sequence[str]) -> str | None:
    return next((each for number, each in enumerate(names) if each in names[:number]), None)


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
