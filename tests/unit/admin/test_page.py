"""The page says what the status holds, safely, to everybody: whoever wrote a name in it, and however it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.admin.chart import Line, chart, nice
from consumer.admin.page import MAX_CONNECTIONS, MAX_PARTITIONS, page
from consumer.admin.status import Status, status_of
from consumer.telemetry.rolling import Flow
from consumer.telemetry.snapshot import ConnectionFigures, DeadLettered, Halt, PartitionFigures, Snapshot
from schemas.dead_letter import Reason
from tests.unit.admin import status_sample
from tests.unit.admin.status_sample import NOW

VOID = {"meta", "link", "br", "line", "rect", "path"}  # the last three close themselves
HOSTILE = "<img src=x onerror=alert(1)>\"'</style></script><script>alert(1)</script>&amp;"


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        yield self
        for each in self.children:
            if isinstance(each, Element):
                yield from each

    def all(self, name: str, **attributes: str) -> list[Element]:
        return [e for e in self if e.name == name and all(e.attributes.get(k) == v for k, v in attributes.items())]

    @property
    def text(self) -> str:
        parts = (each if isinstance(each, str) else each.text for each in self.children)
        return re.sub(r"\s+", " ", " ".join(parts)).strip()


class Reader(HTMLParser):
    """Reads the page strictly: what is opened is closed, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute twice: {attrs}"
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def read(status: Status) -> Element:
    reader = Reader()
    reader.feed(page(status))
    reader.close()
    assert reader._open == [reader.root]
    return reader.root


def told(snapshot: Snapshot, flow: Flow | None = None, age_s: float = 0.4) -> Status:
    return status_of((snapshot, flow or Flow(started=NOW - 60)), version="1", age_s=age_s)


def section(root: Element, name: str) -> str:
    return next(each.text for each in root.all("section") if each.attributes["aria-label"].startswith(name))


# -- what it says -----------------------------------------------------------------------------------------------


def test_dead_letters_that_wait_are_told_beside_those_since_the_start() -> None:
    waiting = replace(status_sample.snapshot(), dead_letters_waiting={"orders": 3, "returns": 1})
    shown = status_of((waiting, status_sample.flow()), version="0", age_s=0.1)
    assert shown.dead_letters.waiting == 4
    assert "since the start, 4 wait" in page(shown)
    assert ", 0 wait" not in page(status_sample.status())


def test_it_says_what_the_status_holds() -> None:
    root = read(status_sample.status())
    tiles = dict(pairwise(each.text for each in root if each.name in ("dt", "dd")))
    assert tiles["Pending"] == "122 of at most 100,000"
    assert tiles["Oldest pending"] == "11 min next due in 500 ms"
    assert tiles["Overdue"] == "41 past their time"
    assert tiles["Lag"] == "15 in the source"
    assert root.all("title")[0].text == "engage-relay: running (2 to look at)"
    assert "outlet suspended for 12 min Engage refuses its API key (401), next request in 21 s" in section(
        root, "Connections"
    )
    assert "tagged has its tag, waits for its connection 41" in section(root, "Pending by state")
    assert "5 min to 15 min 42" in section(root, "Pending by age")
    assert "When Reason Partition Source offset Dead-letter offset" in section(root, "Dead letters")
    assert "1 min 35 s ago rejected orders[3] 48211 6" in section(root, "Dead letters")
    assert "orders[2] open 44 11" in section(root, "Partitions owned: 4")


def test_what_a_suspended_connection_cannot_take_is_laid_to_it_and_not_to_the_rate_limit() -> None:
    refused = status_sample.snapshot().connections["outlet"]
    idle = ConnectionFigures(requests_per_second=47, rate_limit=50)  # there is room, and for others it would do
    waits = Snapshot(at=NOW, pending={"due": 905, "tagged": 7}, overdue=905, connections={"a": idle, "b": refused})
    root = read(told(waits))
    states = section(root, "Pending by state")
    assert "due may be polled, waits for its connection 905" in states
    assert "tagged has its tag, waits for its connection 7" in states
    suspended, overdue = (each.text for each in root.all("ul")[0].all("li"))
    assert suspended.startswith("Connection b is suspended: Engage refuses its API key")
    assert overdue == "Overdue: 905 actions whose time has come and whose connection could not take them yet"
    assert not re.search("budget|rate limit|nobody could", states + suspended + overdue)


def test_what_an_operator_should_look_at_comes_before_all_figures() -> None:
    root = read(status_sample.status())
    main = root.all("main")[0]
    names = [each.name for each in main.children if isinstance(each, Element)]
    assert names[:3] == ["header", "ul", "dl"]
    assert main.all("ul")[0].text.startswith("Connection outlet is suspended")
    assert read(told(Snapshot(at=NOW))).all("ul") == []


def starting(snapshot: Snapshot, flow: Flow, waiting: str | None = None) -> Status:
    return status_of((snapshot, flow), version="1", age_s=0.1, joined=False, waiting=waiting)


@pytest.mark.parametrize(
    ("snapshot", "flow"),
    [(Snapshot(), Flow()), (Snapshot(at=NOW), Flow(started=NOW - 60))],
    ids=["before its event loop runs", "before it joined the group"],
)
def test_an_instance_that_starts_shows_what_it_waits_for_and_nothing_that_it_does_not_know(
    snapshot: Snapshot, flow: Flow
) -> None:
    root = read(starting(snapshot, flow, waiting="waiting for Kafka at broker-1:9092: connection refused"))
    assert root.all("ul")[0].text == "Waiting for Kafka at broker-1:9092: connection refused"
    assert "is not known yet" in root.text
    for guess in ("Nothing is pending", "None", "of at most", "every rate limit", "No connection", "Partitions owned"):
        assert guess not in root.all("main")[0].text
    assert root.all("dl") == root.all("table") == []


def test_figures_are_shown_from_the_first_partition_on() -> None:
    root = read(starting(Snapshot(at=NOW, partitions={("orders", 0): PartitionFigures("restoring", 0)}), Flow(NOW)))
    assert "orders[0] restoring" in section(root, "Partitions owned: 1")


def test_a_partition_of_a_removed_source_is_no_ordinary_one() -> None:
    partitions = {("orders", 0): PartitionFigures("open", 3), ("old", 0): PartitionFigures("open", 2, drained=True)}
    text = section(read(told(Snapshot(at=NOW, partitions=partitions))), "Partitions owned: 2")
    assert "old[0] open drained only 2" in text
    assert text.count("drained only") == 1


def test_a_stuck_event_loop_is_the_first_thing_that_is_said() -> None:
    root = read(told(status_sample.snapshot(), age_s=47.0))
    assert root.all("ul")[0].text.startswith("The event loop has not shown life for 47 s")
    assert root.all("span", **{"class": "pill bad"})[0].text == "stuck"


def test_of_very_many_partitions_those_with_most_to_read_are_shown_and_the_others_are_counted() -> None:
    many = {("orders", number): PartitionFigures("open", 1) for number in range(1000)}
    text = section(read(told(Snapshot(at=NOW, partitions=many, lag={("orders", 777): 5}))), "Partitions owned: 1,000")
    assert "orders[777] open 1 5" in text
    assert f"and {1000 - MAX_PARTITIONS} more" in text


def test_of_very_many_connections_those_in_trouble_are_shown_first_and_the_others_are_counted() -> None:
    refused = ConnectionFigures(suspended=True, halt=Halt("Engage refuses its API key (401)", NOW - 60, suspended=True))
    many = {f"shop-{number:03}": refused if number > 990 else ConnectionFigures() for number in range(1000)}
    shown = read(told(Snapshot(at=NOW, connections=many)))
    text = section(shown, "Connections")
    assert text.index("shop-991 suspended") < text.index("shop-999 suspended") < text.index("shop-000 open")
    assert f"and {1000 - MAX_CONNECTIONS} more" in text
    assert "Connection shop-995 is suspended" in shown.text
    assert "Connection shop-996 is suspended" not in shown.text
    assert "4 more connections are suspended" in shown.text


# -- safely -----------------------------------------------------------------------------------------------------

NAMES = st.text(max_size=20) | st.sampled_from([HOSTILE, "&", "<", '"', "]]>", "<!--"])


@given(NAMES, NAMES, NAMES)
def test_no_name_becomes_markup(connection: str, topic: str, why: str) -> None:
    def with_names(connection: str, topic: str, why: str) -> Status:
        return told(
            Snapshot(
                at=NOW,
                pending={"waiting": 1},
                connections={
                    connection: ConnectionFigures(
                        requests_per_second=1.0, suspended=True, halt=Halt(why, NOW - 1, suspended=True)
                    )
                },
                partitions={(topic, 0): PartitionFigures()},
                dead_letters=(DeadLettered(Reason.REJECTED, topic, 0, 1, topic, 2, NOW - 1),),
            )
        )

    harmless = [(each.name, each.attributes) for each in read(with_names("a", "b", "c"))]
    assert [(each.name, each.attributes) for each in read(with_names(connection, topic, why))] == harmless


def test_a_hostile_name_is_shown_as_it_is() -> None:
    root = read(told(Snapshot(at=NOW, partitions={(HOSTILE, 0): PartitionFigures()})))
    assert root.all("section")[-1].all("th", scope="row")[0].text == f"{HOSTILE}[0]"


def test_it_loads_nothing_and_no_element_has_style_or_script_of_its_own() -> None:
    root = read(status_sample.status())
    for each in root:
        assert not {"style", "src", "srcset", "action"} & each.attributes.keys()
        assert not [name for name in each.attributes if name.startswith("on")]
    assert [each.attributes["href"].partition(",")[0] for each in root.all("link")] == ["data:image/svg+xml"]
    assert {each.attributes["href"] for each in root.all("a")} == {"status.json", "metrics", "healthz", "readyz"}
    assert len(root.all("style")) == len(root.all("script")) == 1
    assert not re.search(r"url\(|@import|https?:", root.all("style")[0].text + root.all("script")[0].text)


def test_it_is_small() -> None:
    assert len(page(status_sample.status())) < 40_000


# -- to everybody -----------------------------------------------------------------------------------------------


def test_every_chart_tells_its_figures_in_words() -> None:
    charts = [each for each in read(status_sample.status()).all("svg") if each.attributes.get("role") == "img"]
    assert len(charts) == 4
    for each in charts:
        assert "the last ten minutes" in each.all("title")[0].text
        assert re.search(r": now \S+( \w+)?, between .* and ", each.all("desc")[0].text)
    others = [each for each in read(status_sample.status()).all("svg") if each.attributes.get("role") != "img"]
    assert {each.attributes["aria-hidden"] for each in others} == {"true"}


def test_tables_have_headers_that_say_what_they_head() -> None:
    root = read(status_sample.status())
    assert len(root.all("table")) == 5
    for table in root.all("table"):
        assert {each.attributes["scope"] for each in table.all("th")} <= {"col", "row"}
    assert root.all("html")[0].attributes["lang"] == "en"


PAIRS = [("ink", "ground"), ("ink", "panel"), ("quiet", "ground"), ("quiet", "panel")] + [
    (name, f"{name}-ground") for name in ("good", "warn", "bad")
] + [("bad", "panel")]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground_as_wcag_aa_asks(scheme: str, text: str, ground: str) -> None:
    style = read(status_sample.status()).all("style")[0].text
    light, dark = re.findall(r":root\{([^}]*)\}", style)
    colours = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]{3,8})", light if scheme == "light" else dark))
    brighter, darker = sorted((_luminance(colours[each]) for each in (text, ground)), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= 4.5


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) > 4 else "".join(each * 2 for each in colour[1:])
    channels = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# -- charts -----------------------------------------------------------------------------------------------------


@given(st.floats(1e-9, 1e12))
def test_an_axis_ends_at_or_a_little_above_the_most(most: float) -> None:
    assert most <= nice(most) <= 1.6 * most


def test_a_chart_of_nothing_is_an_empty_one() -> None:
    drawn = chart("Nothing", [Line("p50", "-", [(-5.0, None)])], str)
    assert "nothing to measure" in drawn
    assert 'class="first" d=""' in drawn


def test_where_nothing_was_measured_the_line_has_a_gap_and_a_lone_point_is_seen() -> None:
    points = [(-50.0, 1.0), (-40.0, 2.0), (-30.0, None), (-20.0, 2.0), (-10.0, None)]
    drawn = chart("Gaps", [Line("a", "2", points), Line("b", "2", [])], str)
    found = re.search(r'class="first" d="([^"]*)"', drawn)
    assert found is not None
    assert [len(part.split("L")) for part in found[1].split("M") if part] == [2, 2]


@given(st.lists(st.none() | st.floats(0, 1e9), max_size=70))
def test_a_line_stays_within_its_drawing(values: list[float | None]) -> None:
    points = [(-10.0 * index, value) for index, value in reversed(list(enumerate(values[:60])))]
    drawn = chart("Any", [Line("a", "0", points)], lambda value: f"{value:g}")
    _, _, width, height = map(float, re.findall(r'viewBox="([^"]*)"', drawn)[0].split())
    for path in re.findall(r' d="([^"]*)"', drawn):
        for x, y in (each.split() for each in re.split("[MLZ]", path) if each):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height
