"""For all tests: how much is played, under which event loops, and what was measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import pytest
import typer.testing
from hypothesis import settings

from tests.support.figures import FIGURES, Figures, Scale

LONG_TIMEOUT_S = 3600

# A tool of ours (cyclonedx-bom) brings it along. Where it is there, `import jsonschema` compiles its 38 grammars, which
# was half of the time in which a worker collects the quick tests. Who runs the relay has not got it, either.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# CliRunner builds all commands at each call, which takes 0.1 s, and is the same each time.
typer.testing._get_command = cache(typer.testing._get_command)  # type: ignore[attr-defined]

# How long an example takes says nothing of the code on a machine that does something else, too.
settings.register_profile("untimed", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=settings().max_examples // 10)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick` and `--long`."""
    parser.addoption("--quick", action="store_true", help="a tenth of the examples, and one event loop only")
    parser.addoption("--long", action="store_true", help="play the long form of the chaos and load tests")


def pytest_configure(config: pytest.Config) -> None:
    """Play fewer examples where that is asked for. `make test` plays all of them."""
    if config.getoption("--quick"):
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the long form, and what is marked as long, its time; leave out asyncio's own event loop, if quick."""
    if config.getoption("--quick"):
        left_out = [item for item in items if of_asyncio_alone(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not of_asyncio_alone(item)]
    for item in items:
        if config.getoption("--long") or item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S))


def of_asyncio_alone(item: pytest.Item) -> bool:
    """Tell whether this runs a coroutine under the event loop that drives no relay."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return parameters.get("anyio_backend") is False


@pytest.fixture(scope="session", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run a test that is a coroutine under each event loop that may drive the edges."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """Say how much is to be played."""
    return Scale.LONG if pytestconfig.getoption("--long") else Scale.SHORT


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """Return what takes a test's figures, shown at the end: `figures(events=400, lost=0)`."""

    def take(**named: object) -> None:
        record_property(FIGURES, ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items()))

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    measured = [
        (report.nodeid.rpartition("::")[2], text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == FIGURES
    ]
    if measured:
        terminalreporter.section("figures")
        for test, text in sorted(measured, key=str):
            terminalreporter.write_line(f"{test.removeprefix('test_').replace('_', ' ')}: {text}")
