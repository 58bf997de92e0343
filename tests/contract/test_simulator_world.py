"""The simulator's pure parts: durations, versions and their tags, options, determinism. No sockets, no waiting."""

from __future__ import annotations

import json
import math
import random
from statistics import fmean, median, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.simulator.account import Account, SlidingSecond
from consumer.simulator.answer import read_object
from consumer.simulator.api import Api, Reaction
from consumer.simulator.chance import draw, parse_durations
from consumer.simulator.options import SimulatorOptions
from consumer.simulator.world import World

HEADERS = [(b"apikey", b"k"), (b"user-agent", b"test/1"), (b"content-type", b"application/json")]


def world_with(processing: str = "fixed:2s", **options: object) -> World:
    chosen = SimulatorOptions(processing=processing, **options)  # type: ignore[arg-type]
    return World(
        seed=chosen.seed,
        processing=chosen.version_processing(),
        moods=chosen.moods,
        unknown_orders=chosen.unknown_orders,
    )


def sample(text: str) -> list[float]:
    durations = parse_durations(text)
    return [durations.quantile(draw(1, "sample", n)) for n in range(4000)]


# Durations


def test_instant_and_fixed_durations() -> None:
    assert set(sample("instant")) == {0.0}
    assert set(sample("fixed:500ms")) == {0.5}


def test_uniform_durations() -> None:
    found = sample("uniform:1s..5s")
    assert min(found) == pytest.approx(1, abs=0.01)
    assert max(found) == pytest.approx(5, abs=0.01)
    assert fmean(found) == pytest.approx(3, rel=0.03)


def test_lognormal_durations_have_their_median_and_sigma() -> None:
    found = sample("lognormal:2s,0.8")
    assert median(found) == pytest.approx(2, rel=0.05)
    assert pstdev(map(math.log, found)) == pytest.approx(0.8, rel=0.05)


def test_exponential_durations_have_their_mean() -> None:
    found = sample("exponential:1.5m")
    assert fmean(found) == pytest.approx(90, rel=0.05)
    assert median(found) == pytest.approx(90 * math.log(2), rel=0.05)


@given(
    st.sampled_from(["instant", "fixed:2s", "uniform:1s..5s", "lognormal:2s,0.8", "exponential:2s"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
)
def test_a_quantile_is_finite_never_negative_and_grows_with_its_share(text: str, one: float, other: float) -> None:
    low, high = (parse_durations(text).quantile(share) for share in sorted((one, other)))
    assert 0 <= low <= high < math.inf


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2s",
        "fixed",
        "fixed:2",
        "fixed:-1s",
        "instant:1s",
        "uniform:5s..1s",
        "uniform:1s",
        "lognormal:2s",
        "lognormal:2s,x",
        "normal:2s",
    ],
)
def test_durations_that_are_wrong_say_so(text: str) -> None:
    with pytest.raises(ValueError, match=f"durations '{text}': "):
        SimulatorOptions(processing=text)


# Versions and tags


def test_versions_are_processed_in_their_order() -> None:
    world = world_with()
    world.submit_order("A", 0.0, takes_s=10)
    second = world.submit_order("A", 1.0, takes_s=1)
    assert b'"Processing"' in world.job(second, 9.9).body
    assert world.current_tag("A", 9.9) is None
    assert b'"Completed"' in world.job(second, 10.0).body
    assert world.current_tag("A", 10.0) is not None


def test_a_version_that_never_completes_holds_up_nothing() -> None:
    world = world_with()
    world.submit_order("A", 0.0, fate="never")
    world.submit_order("A", 0.0)
    assert world.current_tag("A", 2.0) is not None


def test_a_version_that_fails_leaves_the_one_before_it() -> None:
    world = world_with()
    world.submit_order("A", 0.0)
    tag = world.current_tag("A", 2.0)
    failed = world.submit_order("A", 3.0, fate="fails")
    assert world.job(failed, 5.0).status == 422
    assert world.current_tag("A", 5.0) == tag


def test_no_tag_ever_comes_back() -> None:
    world = world_with("instant")
    tags = []
    for n in range(5):
        world.submit_order("A", float(n))
        tags.append(world.current_tag("A", float(n)))
        world.outdate("A", float(n))
        tags.append(world.current_tag("A", float(n)))
        world.delete_order("A", float(n))
    assert None not in tags
    assert len(set(tags)) == 10


def test_an_order_is_outdated_even_while_a_change_is_waiting() -> None:
    world = world_with()
    world.submit_order("A", 0.0)
    old = world.current_tag("A", 2.0)
    change = world.submit_order("A", 3.0)
    world.outdate("A", 3.5)
    outdated = world.current_tag("A", 3.5)
    assert outdated != old
    assert world.current_tag("A", 5.0) != outdated
    assert read_object(world.job(change, 5.0).body) == {
        "jobId": change,
        "href": f"/api/v3/orders/jobs/{change}",
        "orderId": "A",
        "status": "Completed",
        "versionTag": world.current_tag("A", 5.0),
    }


def test_the_share_of_jobs_that_fail_or_never_complete() -> None:
    world = world_with("instant", failing=0.1, stuck=0.2)
    answers = [world.job(world.submit_order(f"A-{n}", 0.0), 1.0) for n in range(3000)]
    assert sum(answer.status == 422 for answer in answers) == pytest.approx(300, rel=0.2)
    assert sum(b"Processing" in answer.body for answer in answers) == pytest.approx(600, rel=0.15)


@given(st.permutations([f"A-{n}" for n in range(8)]), st.integers())
def test_the_processing_of_an_order_depends_on_nothing_but_seed_and_order(order_ids: list[str], seed: int) -> None:
    one, other = world_with("lognormal:2s,0.8", seed=seed), world_with("lognormal:2s,0.8", seed=seed)
    jobs = {order_id: one.submit_order(order_id, 0.0) for order_id in sorted(order_ids)}
    assert {order_id: other.submit_order(order_id, 0.0) for order_id in order_ids} == jobs
    for job_id in jobs.values():
        for now in (0.5, 2.0, 8.0):
            assert one.job(job_id, now) == other.job(job_id, now)


# Determinism of the whole


def conversation(seed: int) -> tuple[list[Reaction], dict[str, object]]:
    """Some hundred requests of all kinds, with faults, at set times."""
    options = SimulatorOptions(
        seed=seed,
        failing=0.1,
        stuck=0.1,
        requests_per_second=40,
        faults=("error=0.1", "slow=0.1", "stale=0.1", "lost-answer=0.1,calls=action", "hang=0.05"),
    )
    world = World(seed=seed, processing=options.version_processing())
    api, choice = Api(options, world), random.Random(7)
    reactions = []
    for n in range(600):
        order_id = f"A-{choice.randrange(12)}"
        tag = world.current_tag(order_id, n * 0.02) or "none"
        method, path, body = choice.choice(
            [
                ("POST", "", {"orderId": order_id, "contact": {"matchKey": "k"}}),
                ("GET", f"/{order_id}", None),
                ("PUT", f"/{order_id}", {"contact": {"matchKey": "k"}}),
                ("POST", f"/{order_id}/action", {"action": "Custom", "versionTag": tag}),
                ("DELETE", f"/{order_id}", None),
            ]
        )
        target = f"/api/v3/orders{path}".encode()
        reactions.append(api.react(method, target, HEADERS, json.dumps(body).encode(), n * 0.02))
    return reactions, world.account.summary()


def test_the_same_seed_and_requests_get_the_same_answers() -> None:
    reactions, account = conversation(1)
    assert (reactions, account) == conversation(1)
    assert {reaction.answer.status for reaction in reactions} >= {200, 202, 404, 409, 429, 500}
    assert {reaction.ending for reaction in reactions} == {"answer", "late", "silence"}
    assert reactions != conversation(2)[0]


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "CONNECT"]),
    st.lists(
        st.sampled_from(["api", "v3", "orders", "jobs", "action", "simulator", "account", "..", "%2F", "%", "A"])
        | st.text(),
        max_size=6,
    ),
    st.binary(max_size=40) | st.just(b'{"orderId": "A", "action": "Custom", "versionTag": "t", "count": 2}'),
)
def test_no_request_breaks_it(method: str, segments: list[str], body: bytes) -> None:
    api = Api(SimulatorOptions(unknown_orders="create"), world_with(unknown_orders="create"))
    target = "/".join(["", *segments]).encode(errors="surrogatepass")
    assert 200 <= api.react(method, target, HEADERS, body, 0.0).answer.status < 500


# The account


@given(st.lists(st.integers(0, 400), max_size=60).map(sorted))
def test_the_most_in_a_sliding_second_is_that_of_the_fullest_window(hundredths: list[int]) -> None:
    second = SlidingSecond()
    moments = [n / 128 for n in hundredths]  # exact in binary, so that the window's edge is too
    for moment in moments:
        second.add(moment)
    assert second.most == max((sum(end - 1 < m <= end for m in moments) for end in moments), default=0)


def test_a_repeat_is_the_same_order_action_language_and_data_in_whatever_sequence() -> None:
    account = Account()
    datas: list[object] = [{"a": 1, "b": [2]}, {"b": [2], "a": 1}, {"a": 1}, None]
    for data in datas:
        account.accept("A", "Custom", "t", None, data, tag_ready_at=0, now=0)
        account.accept("A", "ConfirmOrder", "t", "sv", data, tag_ready_at=0, now=0)
    account.accept("B", "Custom", "t", None, None, tag_ready_at=0, now=0)
    assert account.repeated() == 2
    assert [entry.sequence for entry in account.of_order("A")] == list(range(1, 9))


# Options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"listen": "9090"}, "listen '9090': expected host:port"),
        ({"listen": "localhost:x"}, "listen 'localhost:x'"),
        ({"listen": "localhost:65536"}, "listen"),
        ({"failing": 0.6, "stuck": 0.6}, "failing and stuck"),
        ({"failing": math.nan}, "failing and stuck"),
        ({"requests_per_second": -1}, "requests_per_second -1"),
        ({"unknown_orders": "yes"}, "unknown_orders 'yes'"),
        ({"slow": "2s"}, "durations '2s'"),
        ({"api_key_header": ""}, "api_key_header"),
    ],
)
def test_an_option_that_is_wrong_says_so(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SimulatorOptions(**options)  # type: ignore[arg-type]


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert SimulatorOptions().address() == ("127.0.0.1", 0)
    assert SimulatorOptions(listen="[::]:9090").address() == ("::", 9090)
