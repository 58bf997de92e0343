"""docs/brokers.md grants what SECURITY.md lists for `run`, no more and no less."""

from __future__ import annotations

import itertools
import re

from tests.docs.documents import ROOT, commands

_OPTIONS = {"--topic": "topic", "--group": "group", "--transactional-id": "transactional id"}
Granted = set[tuple[str, str, str]]


def granted() -> Granted:
    """What the page's kafka-acls lines grant: resource, name, operation."""
    found: Granted = set()
    for words in commands((ROOT / "docs" / "brokers.md").read_text()):
        if words[0] != "kafka-acls.sh":
            continue
        pairs = list(itertools.pairwise(words))
        assert ("--allow-principal", "User:engage-relay") in pairs
        assert "--add" in words
        ((resource, name),) = [(_OPTIONS[option], value) for option, value in pairs if option in _OPTIONS]
        prefix = ", prefix" if ("--resource-pattern-type", "prefixed") in pairs else ""
        found |= {(resource + prefix, name, value) for option, value in pairs if option == "--operation"}
    return found


def listed() -> Granted:
    """What SECURITY.md lists for `run`; tests/broker/relay/test_security.py runs the relay with it."""
    rows = re.findall(
        r"^\| `run`(?:, for `[a-z]+`)? \| ([a-z, ]+) \| `([\w.-]+)` \| ([\w, ]+) \|$",
        (ROOT / "SECURITY.md").read_text(),
        re.MULTILINE,
    )
    return {(resource, name, each) for resource, name, operations in rows for each in operations.split(", ")}


def test_the_acls_are_the_rights_that_run_needs() -> None:
    assert granted() == listed()
    assert len(granted()) > 7
