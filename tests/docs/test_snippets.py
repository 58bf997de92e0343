"""Whatever README and docs tell somebody to write or to run works: configurations, events, commands, links."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml
from opentelemetry.sdk import environment_variables
from typer.testing import CliRunner, Result

from consumer.commands.cli import app
from consumer.config import environment
from consumer.config.settings import Settings
from consumer.errors import ExitCode
from schemas import outcome
from schemas.dead_letter import Reason
from schemas.order_event import OrderEvent
from tests.deploy.commands import accept
from tests.docs.documents import (
    CHART_README,
    DOCS,
    DOCUMENTS,
    LINKING,
    ROOT,
    Block,
    Outcome,
    anchors,
    blocks,
    commands,
    links,
    mentioned,
    name_of,
    outcomes,
    sections,
)
from tools import cookbook

# What getting-started and the cookbook tell to export; the snippets need not repeat it.
ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
    "ENGAGE_BASE_URL": "https://acme.voyado.com",
    "ENGAGE_API_KEY": "of-a-snippet",
}
OFFLINE = (["check-config"], ["route"], ["config", "schema"])  # what needs neither brokers nor Engage
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, stdin: str = "", without: str = "") -> Result:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != without}
    return CliRunner().invoke(app, list(arguments), env=environment, input=stdin)


# -- blocks


@each_document
def test_every_block_is_what_it_says(document: Path) -> None:
    for block in blocks(document.read_text()):
        match block.language, block.file:
            case "yaml", "relay.yaml":
                Path("secret").write_text("a-secret-of-a-snippet")
                text = re.sub(r"(?<=: )/run/secrets/\S+", str(Path("secret").absolute()), block.text)
                Path("relay.yaml").write_text(text)
                names_brokers = "bootstrap.servers:" in block.text
                without = "KAFKA_BOOTSTRAP_SERVERS" if names_brokers else ""
                done = run("check-config", "--config", "relay.yaml", without=without)
                assert done.exit_code == 0, done.output + block.text
            case "yaml", "values.yaml":
                schema = json.loads((CHART_README.parent / "values.schema.json").read_text())
                jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(block.text))
            case "yaml", "redrive.yaml":  # tests/broker/commands/test_runbook.py runs it
                assert yaml.safe_load(block.text)["kind"] == "Job"
            case "yaml", "prometheus.yml" | "":  # promtool judges it: tests/deploy/test_rules.py
                judged = ("# prometheus.yml\n", "# alertmanager.yml\n")
                assert block.text.startswith(judged), f"whose is this?\n{block.text}"
            case "json", "" if '"outcome":' in block.text:
                outcome.Outcome.model_validate(json.loads(block.text))
            case "json", "":
                OrderEvent.model_validate(json.loads(block.text))
            case "jsonl", "":
                assert all(line == line.strip() and [json.loads(line)] for line in block.text.splitlines())
            case language, _:
                pytest.fail(f"no test knows what to do with a block of {language!r}")


ROUTED = [
    pytest.param(title, text, id=f"{document.stem}: {title}")
    for document in DOCS
    if document != cookbook.FILE  # tools/cookbook.py asks for each event, and tests/docs/test_cookbook.py holds it
    for title, text in sections(document.read_text()).items()
    if any(block.language == "jsonl" for block in blocks(text))
]


@pytest.mark.parametrize(("title", "text"), ROUTED)
def test_every_event_becomes_what_its_table_says(title: str, text: str) -> None:
    _write_files(text)
    done = run("route", "--config", "relay.yaml", "--json", "events.jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [_outcome(row) for row in rows] == outcomes(text), title
    assert done.exit_code == int(any(row["fate"] == "dead_letter" for row in rows))


def _write_files(text: str) -> None:
    for block in blocks(text):
        if name := _file_of(block):
            Path(name).write_text(block.text)


def _file_of(block: Block) -> str:
    return "events.jsonl" if block.language == "jsonl" else block.file


def _outcome(row: Mapping[str, object]) -> Outcome:
    action = row["action"]
    if not isinstance(action, dict):
        return Outcome("ignored" if row["fate"] == "ignored" else f"dead letter {row['reason']}", "", "", "", "")
    data = "" if action["data"] is None else f"`{json.dumps(action['data'])}`"
    return Outcome(action["action"], action["order_id"], action["tag_source"]["kind"], action["language"] or "", data)


# -- commands


@each_document
def test_every_command_is_one_that_exists(document: Path) -> None:
    text = document.read_text()
    for words in commands(text):
        tool = next((check for name, check in TOOLS.items() if re.fullmatch(name, words[0])), None)
        assert tool is not None, f"no test knows what {' '.join(words)} is"
        tool(words)
    for words in mentioned(text):  # which may leave out what it is about
        assert run(*words[1:], "--help").exit_code == 0, words


def test_the_reader_of_commands_sees_what_a_person_sees() -> None:
    assert ["engage-relay", "pending", "list"] in commands((ROOT / "README.md").read_text())
    assert ["make", "demo"] in commands((ROOT / "README.md").read_text())
    runbook = commands((ROOT / "docs" / "runbook.md").read_text())
    assert ["engage-relay", "check-config", "--online"] in runbook  # indented by seven, below a number
    assert sum(words[0] == "kafka-consumer-groups.sh" for words in runbook) > 3
    assert commands("Text\n\n    a | b  # c\n\n- point\n  continues\n\n      d 'e f' \\\n        g\n\nText\n") == [
        ["a"],
        ["b"],
        ["d", "e f", "g"],
    ]


def _engage_relay(words: list[str]) -> None:
    if words[1].startswith("--"):  # of the program itself
        assert words[1] in run("--help").output
    else:
        accept(words[1:])


def _make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


def _export(words: list[str]) -> None:
    variable, _, value = words[1].partition("=")
    if variable.startswith("OTEL_"):
        assert variable in ("OTEL_TRACES_EXPORTER", *vars(environment_variables).values())  # the first: run/wiring.py
        return
    said, errors = environment.overrides({variable: value}, Settings, {})
    assert (len(said), errors) == (1, [])


def _pip(words: list[str]) -> None:
    assert words[1] == "install"
    for file in re.findall(r"-r (\S+)", " ".join(words)):
        assert (ROOT / file).is_file()


def _helm(words: list[str]) -> None:
    assert words[1] in ("install", "upgrade", "test", "template")
    assert all((ROOT / word / "Chart.yaml").is_file() for word in words if word.startswith("helm/"))


def _kubectl(words: list[str]) -> None:
    if "--" in words:
        inside = words[words.index("--") + 1 :]
        assert inside[0] == "engage-relay"
        accept(inside[1:])


def _curl(words: list[str]) -> None:
    (url,) = (word for word in words[1:] if not word.startswith("-"))
    assert re.fullmatch(r"(http://)?localhost:8080/(metrics|status|status\.json|healthz|readyz)", url)


def _docker(words: list[str]) -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert words[1:3] == ["compose", "up"] or (words[1:4] == ["compose", "run", "--rm"] and words[4] in services)


def _files(words: list[str]) -> None:
    """Nothing to hold it against here: a tool of somebody else's."""


TOOLS: dict[str, Callable[[list[str]], None]] = {
    "engage-relay": _engage_relay,
    "make": _make,
    "export": _export,
    "pip": _pip,
    "helm": _helm,
    "kubectl": _kubectl,
    "curl": _curl,
    "docker": _docker,
    r"kafka-[a-z-]+\.sh": _files,
    "grep|echo|promtool|prometheus": _files,
}


RUNNABLE = [
    pytest.param(document, words[1:], id=f"{document.name}: {' '.join(words)}")
    for document in DOCUMENTS
    for words in commands(document.read_text())
    if words[0] == "engage-relay"
    and any(words[1 : 1 + len(command)] == command for command in OFFLINE)
    and "--online" not in words
]


@pytest.mark.parametrize(("document", "words"), RUNNABLE)
def test_what_needs_no_broker_runs_as_it_stands(document: Path, words: list[str]) -> None:
    text = document.read_text()
    # The first that the document shows is what its commands are about; one that shows none means the reader's own.
    for block in [*reversed(blocks(text)), *reversed(blocks((ROOT / "docs" / "getting-started.md").read_text()))][::-1]:
        if (name := _file_of(block)) and not Path(name).exists():
            Path(name).write_text(block.text)
    done = run(*words, stdin=Path("events.jsonl").read_text() if "-" in words else "")
    assert done.exit_code in ({0, 1} if words[0] == "route" else {0}), done.output
    assert done.stdout


# -- tables


def test_every_exit_code_is_in_operations() -> None:
    table = sections((ROOT / "docs" / "operations.md").read_text())["Exit codes"]
    assert [int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)] == [each.value for each in ExitCode]


def test_no_document_names_a_reason_that_there_is_not() -> None:
    for document in DOCS:
        named = re.findall(r"reason `(\w+)`|dead letter `(\w+)`|--reason (\w+)", document.read_text())
        assert {next(filter(None, each)) for each in named} <= set(Reason), document


# -- links


@pytest.mark.parametrize("document", LINKING, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    found = [link for link in links(text) if not link.startswith(("http://", "https://"))]
    for link in found:
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_document_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    named = set(links(index.read_text()))
    assert {document.name for document in DOCS if document != index} <= named
