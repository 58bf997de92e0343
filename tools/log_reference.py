"""Writes the table of docs/logs.md: `python -m tools.log_reference` (`--check`: only compare).

Rules:
 1. Lines, levels and fields are read from the calls in `consumer/`: nothing is copied by hand.
 2. What to do about a line is in `ADVICE`. A line of `consumer/` without advice is an error, and so is advice for what
    is not logged.
 3. A line that is a sentence made elsewhere (a variable) has no row: it says itself what to do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.generated import write_or_check

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "logs.md"
BEGIN, END = "<!-- lines: begin -->\n", "<!-- lines: end -->\n"
LEVELS = {  # by what is called; a throttled line is a warning (consumer/relay/log.py)
    "critical": "critical",
    "error": "error",
    "warning": "warning",
    "throttled": "warning",
    "rationed": "warning",
    "info": "info",
    "say": "error or warning",
}
ORDER = ("critical", "error", "error or warning", "warning", "info")
NO_FIELDS = frozenset({"exc_info"})

NOTHING = "nothing"
ADVICE: Mapping[str, str] = {
    "uncaught exception": "a bug: report it with the line; the process ends, restart it",
    "uncaught exception in thread ...": "a bug: report it with the line; the process ends, restart it",
    "exception ignored": "a bug: report it with the line",
    "admin request failed": "a bug in a page or probe: report it with the line; the relay itself continues",
    "cannot run": "do what `advice` says; the exit code says whether a restart can help",
    "failed": "restart it; if it comes again, report it with the line",
    "connection suspended: ...; nothing is lost, give it another one": "give the connection another key "
    "([EngageRelayConnectionSuspended](runbook.md#engagerelayconnectionsuspended))",
    "fenced: another producer uses our transactional.id; rejoining": "once: nothing. Again and again: two instances "
    "have one `transactional.id`; give each its own, or leave it out",
    "partition set apart: it cannot be served, the others go on": "do what `why` says "
    "([EngageRelayPartitionSetApart](runbook.md#engagerelaypartitionsetapart))",
    "nobody knows which facts were sent before: their repeats may be sent": "see why the outcomes topic cannot be read "
    "([EngageRelayFactsLost](runbook.md#engagerelayfactslost))",
    "parked actions are gone: their records were removed from the delay topic, or it was recreated": "find out who "
    "deleted from the delay topic; publish the events again",
    "the delay topic was recreated, and the actions that were parked in it are gone": "find out who deleted the delay "
    "topic; publish the events again",
    "the delay topic was recreated; pending records are written again": "find out who deleted the delay topic; what "
    "this instance held is not lost",
    "a schema stayed unknown; its events become dead letters": "register the schema, then redrive `unknown_schema`",
    "partitions stand still": "see `reason` ([EngageRelayStalled](runbook.md#engagerelaystalled))",
    "paused": "a person asked for it: `engage-relay pauses` says why ([quiet mode](quiet-mode.md))",
    "resumed": NOTHING,
    "sent again, as a person asked": NOTHING,
    "a request was refused": "what asked for it has the same answer: see `why`",
    "a request cannot be carried out yet": "see `why`; it is tried again every few seconds",
    "requests cannot be carried out: their answers are refused": "give the relay Write on the control topic "
    "([SECURITY.md](https://github.com/voyado/engage-relay/blob/main/SECURITY.md)); mail goes on meanwhile",
    "records of the control topic cannot be read, and are ignored": "run one version everywhere, and pause again "
    "([EngageRelayControlUnreadable](runbook.md#engagerelaycontrolunreadable))",
    "the control topic cannot be read; the pauses that are known hold on": "see `why`: a right is missing, or the "
    "topic is gone (`engage-relay check-config --online`)",
    "interrupted": NOTHING,
    "an event became a dead letter": "see its `reason` ([EngageRelayDeadLetters](runbook.md#engagerelaydeadletters))",
    "an action is in doubt": "nothing where the route resends; else a person decides "
    "([EngageRelayInDoubt](runbook.md#engagerelayindoubt))",
    "Engage is unavailable": "nothing: it is asked again "
    "([EngageRelayEngageUnavailable](runbook.md#engagerelayengageunavailable) if it stays)",
    "Engage asks for fewer requests": "lower the connection's `requests_per_second` if it comes often "
    "([EngageRelayThrottled](runbook.md#engagerelaythrottled))",
    "Engage refuses one action, which waits by itself": "ask whether the key may send this action (see `status`), and "
    "which gateway on the way may stop it",
    "parked actions cannot be read back yet": "nothing: it is tried again; see the brokers if it stays",
    "restore continues": "nothing: it is tried again; see the brokers if it stays",
    "the Schema Registry cannot be asked; partitions wait": "see the registry, its URL and login",
    "the Schema Registry has no such schema yet; partitions wait": "register the schema, within 5 minutes",
    "no token for MSK could be signed; connections that are open stay": "do what `why` says",
    "transaction aborted, trying again": "nothing during a rebalance "
    "([EngageRelayTransactionsAborting](runbook.md#engagerelaytransactionsaborting) if it stays)",
    "Kafka": "nothing once; `why` is the client library's own error: see the brokers if it stays",
    "the dead-letter topic refuses a dead letter; the delay topic keeps it, and it is tried again": "do what `why` "
    "says ([EngageRelayDeadLettersRefused](runbook.md#engagerelaydeadlettersrefused))",
    "the topics do not fit any more": "do what `why` says, before a topic has deleted what was pending, and the next "
    "start is refused ([EngageRelayTopicUnfit](runbook.md#engagerelaytopicunfit))",
    "the outcomes topic refuses an outcome; it is left out": "do what `why` says: nothing tells what became of "
    "that event, which was never pending",
    "partitions lost: another instance has them already": "nothing once. Often: the instance is starved of CPU, or "
    "`session.timeout.ms` is too short",
    "shadow run: nothing is sent to Engage": "nothing, if that is what you want",
    "nobody knows whether sources that are no longer configured have something pending": "grant what `why` names, or "
    "ignore it if no source was taken out",
    "engage-relay starts": NOTHING,
    "stopped": NOTHING,
    "stopping: handing partitions over": NOTHING,
    "traces are exported": NOTHING,
    "AWS signs tokens for MSK again": NOTHING,
    "Kafka answers": NOTHING,
    "the topics fit again": NOTHING,
    "partition restored": NOTHING,
    "partition served again": NOTHING,
    "partitions move again": NOTHING,
    "connection resumed: Engage accepts its key": NOTHING,
    "a schema was fetched": NOTHING,
    "a job says a status that counts as not yet ready": "nothing; if its orders stay pending, report the status",
    "the dead letters that wait for a redrive are not counted": "grant Read on the dead-letter topic, for the gauge",
}


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """A line that the relay may log."""

    level: str
    text: str
    fields: tuple[str, ...]


def lines() -> list[Line]:
    """Return the lines of `consumer/`, the worst first."""
    found: dict[str, Line] = {}
    for file in sorted((ROOT / "consumer").rglob("*.py")):
        for line in _in(ast.parse(file.read_text())):
            before = found.get(line.text)
            fields = line.fields if before is None else tuple(dict.fromkeys((*before.fields, *line.fields)))
            found[line.text] = Line(line.level, line.text, fields)
    return sorted(found.values(), key=lambda line: (ORDER.index(line.level), line.text))


def _in(tree: ast.AST) -> Iterator[Line]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and (called := _called(node.func)) in LEVELS:
            text = _text(node.args[0])
            if text is not None:
                fields = tuple(each.arg for each in node.keywords if each.arg and each.arg not in NO_FIELDS)
                if called != "say" or fields:  # `say` with a sentence alone: rule 3
                    yield Line(LEVELS[called], text, fields)


def _called(function: ast.expr) -> str:
    """Return which of a log's methods is called; empty where it is none."""
    match function:
        case ast.Attribute(value=owner, attr=name) if ast.unparse(owner).lower().endswith(("log", "logger")):
            return name
        case ast.Name(id="say"):
            return "say"
    return ""


def _text(said: ast.expr) -> str | None:
    match said:
        case ast.Constant(value=str(text)):
            return text.replace("%s", "...")
        case ast.JoinedStr(values=parts):
            return "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in parts)
    return None


def table() -> str:
    """Return the table. Raises ValueError where advice is missing, or is for a line that there is not (rule 2)."""
    found = lines()
    missing, unknown = {each.text for each in found} - ADVICE.keys(), ADVICE.keys() - {each.text for each in found}
    if missing or unknown:
        raise ValueError(f"ADVICE in {__name__}: without advice {missing or '-'}, not logged {unknown or '-'}")
    rows = ["| level | `event` | fields | what to do |", "| --- | --- | --- | --- |"]
    for each in found:
        fields = ", ".join(f"`{name}`" for name in each.fields)
        rows.append(f"| {each.level} | {each.text} | {fields} | {ADVICE[each.text]} |")
    return "\n".join(rows) + "\n"


def document(current: str) -> str:
    """Return the document with its table rewritten."""
    before, _, remainder = current.partition(BEGIN)
    _, _, after = remainder.partition(END)
    return before + BEGIN + table() + END + after


def main(arguments: list[str]) -> int:
    """Write the file, or check it."""
    return write_or_check(FILE, document, arguments, by="tools.log_reference")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
