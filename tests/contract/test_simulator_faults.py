"""Every fault, as a client meets it on real sockets, and whether the simulator did the work meanwhile."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.simulator import SimulatorOptions
from consumer.simulator.faults import FAULTS, FaultName, FaultRule, Faults, parse_faults
from tests.contract.test_simulator import LOOPS, ORDERS, Simulated, simulating

Seen = int | type[httpx.TransportError]

SEEN: dict[FaultName, tuple[Seen, bool]] = {  # what the client sees; whether the action is in the account
    "unavailable": (503, False),
    "throttle": (429, False),
    "unauthorized": (401, False),
    "html": (502, False),
    "hang": (httpx.ReadTimeout, False),
    "reset-before": (httpx.ReadError, False),
    "reset-after": (httpx.ReadError, True),
    "close-after": (httpx.RemoteProtocolError, True),
    "cut-body": (httpx.RemoteProtocolError, True),
    "garbage": (httpx.RemoteProtocolError, True),
    "lost-answer": (httpx.ReadTimeout, True),
    "stale": (404, False),
    "slow": (202, True),
}
COUNTED_AS = {
    "hang": "no answer",
    "lost-answer": "no answer",
    "reset-before": "reset",
    "reset-after": "reset",
    "close-after": "closed",
    "cut-body": "cut",
    "garbage": "garbage",
}


def act_once(simulated: Simulated, *, timeout_s: float) -> Seen:
    body = {"action": "ConfirmOrder", "versionTag": simulated.simulator.world.current_tag("A-1", simulated.clock())}
    try:
        return simulated.client.post(f"{ORDERS}/A-1/action", json=body, timeout=timeout_s).status_code
    except httpx.TransportError as error:
        return type(error)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("fault", SEEN)
def test_a_fault_is_seen_and_the_account_knows_the_truth(fault: FaultName, loop: str) -> None:
    seen, accepted = SEEN[fault]
    options = SimulatorOptions(processing="instant", slow="fixed:20ms", faults=(f"{fault}=1,calls=action",))
    with simulating(options, loop) as simulated:
        simulated.create()
        assert act_once(simulated, timeout_s=0.2 if seen is httpx.ReadTimeout else 10) == seen
        account = simulated.simulator.world.account
        assert len(account.of_order("A-1")) == accepted
        assert account.faults == {fault: 1}
        assert account.requests["action", COUNTED_AS.get(fault, str(seen))] == 1


def test_every_fault_has_a_test() -> None:
    assert SEEN.keys() | {"error"} == FAULTS.keys()


def test_an_error_comes_before_or_after_processing_with_each_status() -> None:
    with simulating(SimulatorOptions(processing="instant", faults=("error=1,calls=action",))) as simulated:
        simulated.create()
        outcomes = set()
        for _ in range(100):
            before = len(simulated.simulator.world.account.accepted)
            seen = act_once(simulated, timeout_s=10)
            outcomes.add((seen, len(simulated.simulator.world.account.accepted) > before))
    assert outcomes == {(status, processed) for status in (500, 502, 504) for processed in (False, True)}


def test_a_slow_answer_comes_late_and_its_work_was_done_before() -> None:
    with simulating(
        SimulatorOptions(processing="instant", slow="fixed:5m", faults=("slow=1,calls=action",))
    ) as simulated:
        simulated.create()
        assert act_once(simulated, timeout_s=0.1) is httpx.ReadTimeout
        assert len(simulated.simulator.world.account.accepted) == 1


def test_an_html_page_and_a_throttle_look_like_what_they_are() -> None:
    with simulating(SimulatorOptions(faults=("html=1,calls=order", "throttle=1,calls=job"))) as simulated:
        page = simulated.client.get(f"{ORDERS}/A-1")
        assert (page.status_code, page.headers["content-type"]) == (502, "text/html; charset=utf-8")
        throttled = simulated.client.get(f"{ORDERS}/jobs/J-1")
        assert (throttled.status_code, throttled.headers["retry-after"]) == (429, "1")


def test_a_stale_tag_is_cured_by_asking_the_order_again() -> None:
    with simulating(SimulatorOptions(processing="instant", faults=("stale=1",))) as simulated:
        job = simulated.client.get(f"{ORDERS}/jobs/{simulated.create()}").json()
        assert simulated.act(job["versionTag"]).status_code == 404
        newest = simulated.tag()
        assert newest != job["versionTag"]
        assert httpx.put(f"{simulated.simulator.url}/simulator/faults", json={"faults": []}).status_code == 200
        assert simulated.act(newest).status_code == 202


def test_a_connection_is_used_again_after_a_slow_answer() -> None:
    with simulating(SimulatorOptions(slow="fixed:5ms", faults=("slow=1",))) as simulated:
        assert [simulated.client.get(f"{ORDERS}/A-1").status_code for _ in range(3)] == [404, 404, 404]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_simulator_stops_while_connections_are_silent(loop: str) -> None:
    with simulating(SimulatorOptions(faults=("hang=1",)), loop) as simulated, pytest.raises(httpx.ReadTimeout):
        simulated.client.get(f"{ORDERS}/A-1", timeout=0.05)


def test_faults_change_while_it_runs() -> None:
    with simulating(SimulatorOptions(processing="instant")) as simulated:
        simulated.create()
        assert act_once(simulated, timeout_s=10) == 202
        httpx.put(f"{simulated.simulator.url}/simulator/faults", json={"faults": ["unavailable=1,calls=action"]})
        assert act_once(simulated, timeout_s=10) == 503
        assert simulated.client.get(f"{ORDERS}/A-1").status_code == 200


# Which fault befalls which request


def test_faults_fall_as_often_as_was_asked() -> None:
    faults = Faults(1, parse_faults(["hang=0.1", "lost-answer=0.2,calls=action"]))
    dealt = Counter(fall[0] if (fall := faults.deal("action", f"A-{n}")) else None for n in range(10_000))
    assert dealt["hang"] == pytest.approx(1000, rel=0.15)
    assert dealt["lost-answer"] == pytest.approx(2000, rel=0.1)
    polls = Counter(fall[0] if (fall := faults.deal("job", f"J-{n}")) else None for n in range(1_000))
    assert polls.keys() == {None, "hang"}


@given(st.permutations([(order, n) for order in "ABC" for n in range(5)]), st.integers())
def test_faults_of_one_order_do_not_depend_on_how_orders_interleave(asked: list[tuple[str, int]], seed: int) -> None:
    rules = parse_faults(["error=0.4", "hang=0.3"])
    alone, among = Faults(seed, rules), Faults(seed, rules)
    expected = {order: [alone.deal("action", order) for _ in range(5)] for order in "ABC"}
    met: dict[str, list[object]] = {"A": [], "B": [], "C": []}
    for order, _ in asked:
        met[order].append(among.deal("action", order))
    assert met == expected


def test_another_seed_deals_other_faults() -> None:
    rules = parse_faults(["hang=0.5"])
    one, other = Faults(1, rules), Faults(2, rules)
    assert [one.deal("job", str(n)) for n in range(64)] != [other.deal("job", str(n)) for n in range(64)]


def test_after_starting_again_the_same_requests_meet_the_same_faults() -> None:
    faults = Faults(1, parse_faults(["error=0.5"]))
    first = [faults.deal("job", "J") for _ in range(50)]
    faults.start_again()
    assert [faults.deal("job", "J") for _ in range(50)] == first


def test_other_faults_do_not_hit_the_same_requests_again() -> None:
    faults = Faults(1, parse_faults(["error=0.5"]))
    jobs = [str(n) for n in range(200)]
    hit = [job for job in jobs if faults.deal("job", job)]
    faults.follow(parse_faults(["hang=0.5"]))
    again = [job for job in hit if faults.deal("job", job)]
    assert 0.3 < len(again) / len(hit) < 0.7


def test_a_fault_is_read_with_the_calls_that_it_befalls() -> None:
    assert parse_faults(["lost-answer=0.02,calls=action|document", "hang=1e-3,calls=job+order", "stale=0.5"]) == (
        FaultRule("lost-answer", 0.02, ("document", "action")),
        FaultRule("hang", 0.001, ("job", "order")),
        FaultRule("stale", 0.5, ("action",)),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hang", "expected name=probability"),
        ("hang=0.1,call=job", "expected name=probability"),
        ("hung=0.1", "no fault is called 'hung'; there are unavailable, "),
        ("hang=often", "'often' is no probability"),
        ("hang=1.1", "'1.1' is no probability"),
        ("hang=nan", "'nan' is no probability"),
        ("hang=0.1,calls=poll", "no call is called 'poll'; there are job, order, document, action"),
        ("stale=0.1,calls=job", "stale befalls actions only"),
    ],
)
def test_a_fault_that_is_wrong_says_so(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SimulatorOptions(faults=(text,))


def test_more_faults_than_requests_are_refused() -> None:
    with pytest.raises(ValueError, match=r"for call job add up to 1\.2"):
        parse_faults(["hang=0.6,calls=job", "slow=0.6"])
