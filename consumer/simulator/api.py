"""Engage's side of one HTTP request: what is answered, and how the connection ends. No I/O, no clock.

In this order: the path, the key (401, 403), the User-Agent (400), the Content-Type (500), the rate (429), a fault,
the model of Engage (world.py).
`/simulator/...` is not a part of Engage: it shows the account and changes the simulator while it runs. It needs no
key, and no fault is applied to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, unquote_to_bytes

from consumer.simulator.account import SlidingSecond
from consumer.simulator.answer import JSON, Answer, Call, error_page, json_answer, read_object, refuse
from consumer.simulator.chance import draw, parse_durations
from consumer.simulator.faults import Effect, Ending, Faults, parse_faults
from consumer.simulator.moods import Moods, read_moods
from consumer.simulator.options import SimulatorOptions
from consumer.simulator.world import World

MAX_BULK = 100_000
INTERNAL_HOST = "orders-7.engage.internal:8080"  # what a server behind a proxy may take for its own name

Headers = Sequence[tuple[bytes, bytes]]
_Serve = Callable[[bytes, float], Answer]  # body, now

# How a request that got no whole answer is counted.
_UNANSWERED: dict[Ending, str] = {
    "silence": "no answer",
    "reset": "reset",
    "close": "closed",
    "cut": "cut",
    "garbage": "garbage",
}


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the server does with a request. `delay_s` belongs to the ending `late`."""

    answer: Answer
    ending: Ending = "answer"
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Served:
    """A request whose path and method are known: which call, about what, and what serves it."""

    call: Call
    subject: str
    serve: _Serve


class Api:
    """Answers requests, one at a time."""

    def __init__(self, options: SimulatorOptions, world: World) -> None:
        self._world = world
        self._seed = options.seed
        self._limit = options.requests_per_second
        self._key_header = options.api_key_header.lower().encode("ascii")
        self._valid_keys = options.valid_keys
        self._forbidden_keys = options.forbidden_keys
        self._slow = parse_durations(options.slow)
        self._faults = Faults(options.seed, parse_faults(options.faults))
        self._served: dict[str, SlidingSecond] = {}  # by key: what was within the rate
        self._late = 0
        self._errors = 0
        self._html_errors = options.moods.html_errors

    def react(self, method: str, target: bytes, headers: Headers, body: bytes, now: float) -> Reaction:
        """Take one request. `headers` have lower-case names; `now` is seconds since 1970 and never goes back."""
        path, _, query = target.partition(b"?")
        if path.startswith(b"/simulator/"):
            return Reaction(self._control(method, path.decode("latin-1"), query.decode("latin-1"), body, now))
        served = self._route(method, path)
        if isinstance(served, Answer):
            self._world.account.requests["other", str(served.status)] += 1
            return Reaction(self._written(served, headers))
        reaction = self._gate(headers, now) or self._serve(served, body, now)
        status = _UNANSWERED.get(reaction.ending) or str(reaction.answer.status)
        self._world.account.requests[served.call, status] += 1
        written = self._written(reaction.answer, headers)
        return reaction if written is reaction.answer else replace(reaction, answer=written)

    # What is asked

    def _route(self, method: str, path: bytes) -> _Served | Answer:
        """Find the call. An id is exactly one segment, decoded once; a raw dot segment is refused."""
        raw = path.split(b"/")
        if b"." in raw or b".." in raw:
            return refuse(400, "the path holds a dot segment")
        try:
            segments = [unquote_to_bytes(segment).decode() for segment in raw]
        except UnicodeDecodeError:
            return refuse(400, "the path is not UTF-8")
        world = self._world
        match segments:
            case ["", "api", "v3", "orders"]:
                methods = {"POST": _Served("document", "", world.create_order)}
            case ["", "api", "v3", "orders", "jobs", job_id] if job_id and method == "GET":
                return _Served("job", job_id, lambda _, now: world.job(job_id, now))
            case ["", "api", "v3", "orders", order_id] if order_id:
                methods = {
                    "GET": _Served("order", order_id, lambda _, now: world.order(order_id, now)),
                    "PUT": _Served("document", order_id, lambda body, now: world.replace_order(order_id, body, now)),
                    "DELETE": _Served("document", order_id, lambda _, now: world.delete_order(order_id, now)),
                }
            case ["", "api", "v3", "orders", order_id, "action"] if order_id:
                methods = {"POST": _Served("action", order_id, lambda body, now: world.act(order_id, body, now))}
            case ["", "api", "v3", "orders", order_id, "change-status" | "change-delivery" as change] if order_id:
                methods = {
                    "POST": _Served(
                        "document", order_id, lambda body, now: world.change_order(order_id, change, body, now)
                    )
                }
            case _:
                return refuse(404, "there is nothing at this path")
        return methods.get(method) or refuse(405, "the method is not allowed here")

    def _gate(self, headers: Headers, now: float) -> Reaction | None:
        """Check key, User-Agent, Content-Type and rate; None for a request that may pass."""
        key = _header(headers, self._key_header)
        if key in self._forbidden_keys:
            return Reaction(refuse(403, "the API key has no access to orders"))
        if not key or (self._valid_keys is not None and key not in self._valid_keys):
            return Reaction(refuse(401, "the API key is missing or not valid"))
        self._world.account.asked(key, now)
        if not _header(headers, b"user-agent"):
            return Reaction(refuse(400, "the User-Agent header is missing"))
        # Docs: every request carries it, also a GET without a body; what Engage says without it is no more than this.
        if _header(headers, b"content-type").partition(";")[0].strip().lower() != "application/json":
            return Reaction(refuse(500, "An error has occurred"))
        if self._limit:
            second = self._served.get(key)
            if second is None:
                second = self._served[key] = SlidingSecond()
            if second.count(now) >= self._limit:
                return Reaction(refuse(429, "too many requests", retry_after_s=1))
            second.add(now)
        return None

    def _serve(self, served: _Served, body: bytes, now: float) -> Reaction:
        dealt = self._faults.deal(served.call, served.subject)
        if dealt is None:
            return Reaction(served.serve(body, now))
        fault, effect = dealt
        self._world.account.faults[fault] += 1
        return self._afflict(effect, served, body, now)

    def _afflict(self, effect: Effect, served: _Served, body: bytes, now: float) -> Reaction:
        if effect.new_version:
            self._world.outdate(served.subject, now)
        answer = served.serve(body, now) if effect.processed else Answer(status=503)
        delay_s = 0.0
        if effect.ending == "late":
            self._late += 1
            delay_s = self._slow.quantile(draw(self._seed, "slow", self._late))
        return Reaction(effect.instead or answer, effect.ending, delay_s)

    def _written(self, answer: Answer, headers: Headers) -> Answer:
        """Write an answer in today's mood: where a Location points, and whether an error is a page."""
        if answer.location is not None:
            host = _header(headers, b"host")
            prefix = {"absolute": f"http://{host}", "other-scheme": f"https://{host}"}
            prefix["other-host"] = f"http://{INTERNAL_HOST}"
            return replace(answer, location=prefix.get(answer.redirect, "") + answer.location)
        if self._html_errors and answer.status >= 400 and answer.content_type == JSON:
            self._errors += 1
            if draw(self._seed, "html", self._errors) < self._html_errors:
                return error_page(answer)
        return answer

    # The simulator's own endpoints

    def _control(self, method: str, path: str, query: str, body: bytes, now: float) -> Answer:
        world = self._world
        world.settle(now)
        try:
            match method, path:
                case "GET", "/simulator/account":
                    return self._account(parse_qs(query))
                case "POST", "/simulator/reset":
                    self.start_again()
                    return Answer(status=200)
                case "PUT", "/simulator/faults":
                    self.set_faults(_texts(_asked_for(body, "faults"), "faults"))
                    return Answer(status=200)
                case "PUT", "/simulator/keys":
                    asked = _asked_for(body, "valid", "forbidden")
                    valid = None if asked.get("valid") is None else _texts(asked, "valid")
                    self.set_keys(valid, _texts(asked, "forbidden"))
                    return Answer(status=200)
                case "PUT", "/simulator/moods":
                    self.set_moods(read_moods(_object(body)))
                    return Answer(status=200)
                case "POST", "/simulator/contacts":
                    world.register_contacts(_texts(_asked_for(body, "orderIds"), "orderIds"), now)
                    return Answer(status=200)
                case "POST", "/simulator/orders/bulk":
                    order_ids, contact = _bulk(_asked_for(body, "orderIds", "count", "prefix", "contact"))
                    jobs = [
                        {"orderId": order_id, "jobId": world.submit_order(order_id, now, contact=contact)}
                        for order_id in order_ids
                    ]
                    return json_answer(200, {"jobs": jobs})
        except ValueError as error:
            return refuse(400, str(error))
        return refuse(404, "the simulator has no such endpoint")

    def set_faults(self, faults: Sequence[str]) -> None:
        """Replace all faults. Raises ValueError for text that describes none."""
        self._faults.follow(parse_faults(faults))

    def set_moods(self, moods: Moods) -> None:
        """Replace all moods."""
        self._world.set_moods(moods)
        self._html_errors = moods.html_errors

    def set_keys(self, valid: Sequence[str] | None, forbidden: Sequence[str] = ()) -> None:
        """Replace the keys; `valid` None for any that isn't empty."""
        self._valid_keys = None if valid is None else frozenset(valid)
        self._forbidden_keys = frozenset(forbidden)

    def start_again(self) -> None:
        """Forget orders, jobs and the account; faults, moods and keys stay, and faults fall as from the start."""
        self._world.clear()
        self._faults.start_again()
        self._served.clear()
        self._late = 0
        self._errors = 0

    def _account(self, query: dict[str, list[str]]) -> Answer:
        """Show the account: `summary=1` counts only; `after=N&limit=N` a page; `order=ID` one order."""
        account = self._world.account
        body = account.summary()
        if query.get("summary") == ["1"]:
            return json_answer(200, body)
        listed = account.of_order(query["order"][0]) if "order" in query else account.accepted
        after, limit = _whole_number(query, "after", 0), _whole_number(query, "limit", len(listed))
        if "order" in query:
            page = [entry for entry in listed if entry.sequence > after][:limit]
        else:
            page = listed[after : after + limit]
        body["actions"] = [entry.as_json() for entry in page]
        body["next"] = page[-1].sequence if page and page[-1] is not listed[-1] else None
        return json_answer(200, body)


def _header(headers: Headers, name: bytes) -> str:
    for candidate, value in headers:
        if candidate == name:
            return value.decode("latin-1").strip()
    return ""


def _object(body: bytes) -> dict[str, object]:
    asked = read_object(body)
    if asked is None:
        raise ValueError("the body is no JSON object")
    return asked


def _asked_for(body: bytes, *known: str) -> dict[str, object]:
    asked = _object(body)
    if unknown := asked.keys() - set(known):
        raise ValueError(f"{min(unknown)}: unknown; there are {', '.join(known)}")
    return asked


def _texts(asked: dict[str, object], name: str) -> tuple[str, ...]:
    texts = asked.get(name, [])
    if not isinstance(texts, list):
        raise ValueError(f"{name}: expected a list of texts")
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{name}: expected a list of texts that aren't empty")
    return tuple(texts)


def _bulk(asked: dict[str, object]) -> tuple[Sequence[str], bool]:
    """Read {"orderIds": [...]} or {"count": 1000, "prefix": "order-"}, either with {"contact": false}."""
    count, prefix, contact = asked.get("count", 0), asked.get("prefix", "order-"), asked.get("contact", True)
    if not isinstance(count, int) or not isinstance(prefix, str) or not isinstance(contact, bool):
        raise ValueError("expected count as a number, prefix as text, contact as true or false")
    order_ids = _texts(asked, "orderIds") or tuple(f"{prefix}{n}" for n in range(1, min(count, MAX_BULK + 1) + 1))
    if not 1 <= len(order_ids) <= MAX_BULK:
        raise ValueError(f"expected 1 to {MAX_BULK} orders, as orderIds or count")
    return order_ids, contact


def _whole_number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{name}: expected a whole number")
    return int(text)
