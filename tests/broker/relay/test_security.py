"""The relay against a broker that asks who comes and what he may, and an Engage behind TLS (SECURITY.md).

The rights that it runs with are read from SECURITY.md, so that page is right or these tests fail.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import pytest
import trustme

from consumer.commands import checks
from consumer.config.loading import load
from consumer.core.requests import Request
from consumer.kafka.control.records import request_key, request_value
from schemas.dead_letter import Reason
from tests.support.books import Books
from tests.support.broker import started
from tests.support.engage import API_KEY, Engage
from tests.support.events import CUSTOMER, SECRET_ID, event, order_id, publish
from tests.support.relay_process import ROOT, RelayProcess, configuration, written
from tests.support.sandbox import Sandbox, SandboxFactory, control_topic
from tests.support.secured import Certificates, Right, SecuredBroker, behind_tls
from tests.support.waiting import until

PASSWORD = "pass-word-that-must-never-be-logged"
REPLACED_PASSWORD = "replaced-word-that-must-never-be-logged"
WRONG_PASSWORD = "wrong-word-that-must-never-be-logged"
NEW_KEY = "new-key-that-must-never-be-logged-0815"
PERSON = "kund-4711@example.com"
PHONE = "+46701740605"
SECRETS = (PASSWORD, REPLACED_PASSWORD, WRONG_PASSWORD, API_KEY, NEW_KEY, PERSON, PHONE, CUSTOMER, SECRET_ID)
ORDER = order_id("secured")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secured(certificates: Certificates) -> Iterator[SecuredBroker]:
    secured = SecuredBroker(certificates)
    started(secured.broker)
    secured.set_password(PASSWORD)
    yield secured
    secured.broker.close()


# What SECURITY.md grants


@cache
def _table_of_rights() -> list[list[str]]:
    """Return who needs which rights, and what for: nothing is named where he does not go on without."""
    row = r"^\| `([a-z -]+)`(?:, for `([a-z]+)`)? \| ([a-z, ]+) \| `([\w.-]+)` \| ([\w, ]+) \|$"
    return [list(found) for found in re.findall(row, _security_md(), re.MULTILINE)]


def _security_md() -> str:
    return (ROOT / "SECURITY.md").read_text()


def rights(command: str, sandbox: Sandbox, *, only_for: str | None = None) -> list[Right]:
    """Return what SECURITY.md grants for a command, with the place's names for those of its example.

    `only_for`: the rights that the command goes on without, of this row.
    """
    group = str(sandbox.properties["group.id"])
    found = [
        Right(
            resource.removesuffix(", prefix"),
            re.sub("^engage-relay", group, re.sub("^orders", sandbox.topics.source, name)),
            operation.upper(),
            resource.endswith(", prefix"),
        )
        for who, purpose, resource, name, operations in _table_of_rights()
        if who == command and only_for in (None, purpose)
        for operation in operations.split(", ")
    ]
    assert found, f"SECURITY.md says nothing of `{command}`"
    return found


def personal(number: int, **fields: object) -> bytes:
    """Return an event that is full of a person."""
    data = {"event": number, "email": PERSON, "phone": PHONE, "note": f"call {PHONE}"}
    return json.dumps({**json.loads(event(ORDER, number, data=data)), **fields}).encode()


BAD = (
    personal(1)[:-1],
    personal(1).replace(b'"data"', b'"orderId": "2", "data"', 1),
    event(f"../{PERSON}", 1),
    f"{PERSON};{PHONE}".encode(),
)
ODD = (personal(3, language=[PERSON]), personal(4, occurredAt=PERSON))
"""They go without what is of no use."""


def say(directory: Path, name: str, text: str) -> None:
    """Keep what was said beside the relays' logs, for the sweep at the end."""
    (directory / f"{name}.log").write_text(text)


def engage_relay(directory: Path, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "consumer.cli", *arguments, "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    say(directory, f"stderr-of-{'-'.join(arguments)}", done.stderr)
    return done


# Who may come in


@pytest.mark.parametrize("way", ["SCRAM", "mTLS"])
def test_the_rights_of_security_md_are_enough_over_tls(
    secured: SecuredBroker, certificates: Certificates, sandboxes: SandboxFactory, tmp_path: Path, way: str
) -> None:
    kafka = secured.scram(PASSWORD) if way == "SCRAM" else secured.mutual_tls(certificates.client_file)
    sandbox = sandboxes(broker=secured.broker)
    secured.grant(*rights("run", sandbox))
    with Engage() as engage, Books(sandbox) as books:
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=kafka))
        engage.submit(ORDER)
        for number in (1, 2):  # the second run restores, and waits for nobody's decision
            with RelayProcess(tmp_path, config, *(["--from", "earliest"] if number == 1 else [])) as relay:
                publish(sandbox, [(ORDER, value) for value in (personal(number), *BAD, *ODD)])
                books.wait_until_settled()
                say(tmp_path, f"metrics-{number}", relay.get("/metrics")[1])
                assert relay.stop() == 0
        assert engage.events_of(ORDER) == [1, 3, 4, 2, 3, 4]
        assert [each.value for each in books.dead_letters] == [*BAD, *BAD]
        say(tmp_path, "reasons", "\n".join(each.why.model_dump_json() for each in books.dead_letters))


def test_the_commands_need_no_more_than_security_md_says(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(broker=secured.broker)
    secured.grant(*rights("run", sandbox))
    with Engage() as engage, Books(sandbox) as books:
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=secured.scram(PASSWORD)))
        engage.submit(ORDER, contact=False)
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            publish(sandbox, [(ORDER, personal(1))])
            (dead_letter,) = books.wait_until_settled().dead_letters
            assert dead_letter.reason is Reason.NO_CONTACT
            assert relay.stop() == 0
        online = engage_relay(tmp_path, config, "check-config", "--online")
        assert (online.returncode, "failed" in online.stdout) == (0, False), online.stdout
        say(tmp_path, "check-config", online.stdout)
        assert engage_relay(tmp_path, config, "pending", "list").returncode == 0

        # Who may pause needs nothing of what is sent.
        why = ("--reason", "a test of rights")
        assert engage_relay(tmp_path, config, "pauses").returncode == 0
        secured.grant(*rights("pause", sandbox))  # also to write: by the table a relay's own user may
        for command in ("pause", "resume"):
            done = engage_relay(tmp_path, config, command, *why)
            assert done.returncode == 0, done.stderr

        # A relay that only runs cannot write events.
        secured.grant(*rights("dead-letters", sandbox))
        listed = engage_relay(tmp_path, config, "dead-letters", "list", "--json")
        assert (listed.returncode, json.loads(listed.stdout)["reason"]) == (0, "no_contact")
        assert engage_relay(tmp_path, config, "dead-letters", "redrive", "--all", "--to-source").returncode == 1
        secured.grant(*rights("redrive --to-source", sandbox))
        assert engage_relay(tmp_path, config, "dead-letters", "redrive", "--all", "--to-source").returncode == 0


def test_what_is_asked_for_one_action_needs_no_more_than_security_md_says(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    """Nor less: without its row, a command says what it could not read, and writes nothing."""
    sandbox = sandboxes(broker=secured.broker)
    secured.grant(*rights("run", sandbox))
    stranger, pending = order_id("nobody's"), order_id("pending")
    why = ("--reason", "a test of rights")
    control = control_topic(sandbox.properties["group.id"])
    with Engage() as engage:
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=secured.scram(PASSWORD)))
        engage.submit(ORDER)
        engage.submit(stranger, contact=False)
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            publish(sandbox, [(ORDER, personal(1)), (stranger, event(stranger, 1))])
            until(lambda: relay.metric("dead_letters_total") == 1, "the stranger's is a dead letter")
            until(lambda: engage.events_of(ORDER) == [1], "the other one is accepted")
            publish(sandbox, [(pending, event(pending, 1, engage={"jobId": engage.submit(pending)}))])
            engage.set_faults("hang=1,calls=job")

            for command in (("order", ORDER), ("resend", ORDER, *why), ("dead-letters", "redrive", "--all")):
                lacks = engage_relay(tmp_path, config, *command)
                assert lacks.returncode == 1, lacks.stdout
                assert f"{sandbox.topics.dead_letters}" in lacks.stderr
                assert "authorization failed" in lacks.stderr.lower()
            assert sandbox.read(control) == []

            secured.grant(*rights("order", sandbox))
            assert engage_relay(tmp_path, config, "order", ORDER).returncode == 0
            secured.grant(*rights("pause", sandbox))
            told = engage_relay(tmp_path, config, "resend", ORDER, *why)
            assert (told.returncode, "it is saved" in told.stdout) == (0, True), told.stderr
            secured.grant(*rights("dead-letters", sandbox))
            engage.submit(stranger)
            told = engage_relay(tmp_path, config, "dead-letters", "redrive", "--all", "--yes")
            assert (told.returncode, "redriven" in told.stdout) == (0, True), told.stderr
            told = engage_relay(tmp_path, config, "pending", "drop", "0:2", *why)
            assert (told.returncode, "it was dropped" in told.stdout) == (0, True), told.stderr
            assert relay.stop() == 0


def test_topics_are_made_with_the_right_to_create_them(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(broker=secured.broker)
    others = [sandbox.topics.delay, sandbox.topics.dead_letters]
    for deleted in sandbox.admin.delete_topics(others).values():
        deleted.result(60)
    until(lambda: not sandbox.admin.list_topics(timeout=10).topics.keys() & set(others), "the topics are gone")
    secured.grant(*rights("run", sandbox))
    config = written(tmp_path, configuration(sandbox, "http://127.0.0.1:1", kafka=secured.scram(PASSWORD)))
    refused = engage_relay(tmp_path, config, "topics", "create")
    assert (refused.returncode, "Authorization failed" in refused.stderr) == (3, True), refused.stderr
    secured.grant(*rights("topics create", sandbox))
    assert engage_relay(tmp_path, config, "topics", "create").returncode == 0
    assert sandbox.admin.list_topics(timeout=10).topics.keys() >= set(others)


# What an operator reads of a relay that Kafka does not serve.
UNSERVED = re.compile(
    "cannot run|waiting for Kafka at|Kafka does not answer as it should|transaction aborted, trying again|"
    "restoring .*authorization failed|the control topic cannot be read"
)
# What he reads of one that may not read what was sent.
REFUSED = "requests cannot be carried out: their answers are refused"  # of one that may not answer
FACTS_LOST = "nobody knows which facts were sent before: their repeats may be sent"


def unserved(relay: RelayProcess) -> bool:
    return UNSERVED.search(relay.text) is not None


def test_a_password_that_was_replaced_while_it_waits_or_runs_is_read(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    """A client keeps the password that it was created with: each connection that it opens later is refused."""
    sandbox = sandboxes(broker=secured.broker)
    secured.grant(*rights("run", sandbox))
    file = tmp_path / "password"
    file.write_text(WRONG_PASSWORD)
    given = {name: value for name, value in secured.scram("").items() if name != "sasl.password"}
    with Engage() as engage:
        kafka = {**given, "sasl.password.file": str(file)}
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=kafka))
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: "SASL authentication error" in relay.text, "it waits")
            file.write_text(PASSWORD)
            relay.wait_until_owning(1)
            try:
                secured.set_password(REPLACED_PASSWORD)
                file.write_text(REPLACED_PASSWORD)
                secured.broker.stop()  # closes all connections
                secured.broker.start()
                assert relay.wait() == 1
            finally:
                secured.set_password(PASSWORD)
            (last,) = relay.said("cannot run")
            assert "sasl.password.file changed since the start" in str(last["why"])


def test_a_certificate_that_is_replaced_while_it_waits_is_read(
    secured: SecuredBroker, certificates: Certificates, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    sandbox = sandboxes(broker=secured.broker)
    secured.grant(*rights("run", sandbox))
    file = tmp_path / "client.pem"
    file.write_bytes(certificates.forged_file.read_bytes())
    with Engage() as engage:
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=secured.mutual_tls(file)))
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            until(lambda: "alert bad certificate" in relay.text, "it waits")
            file.write_bytes(certificates.client_file.read_bytes())
            relay.wait_until_owning(1)
            assert relay.stop() == 0


def test_whoever_lacks_a_proof_or_a_right_says_so_and_sends_nothing(
    secured: SecuredBroker, certificates: Certificates, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    strangers: dict[str, dict[str, object]] = {
        "wrong password": secured.scram(WRONG_PASSWORD),
        "no certificate": secured.mutual_tls(None),
        "forged certificate": secured.mutual_tls(certificates.forged_file),
        "unknown broker": {**secured.scram(PASSWORD), "ssl.ca.location": str(certificates.other_authority_file)},
        "no TLS": {"bootstrap.servers": secured.broker.address("SSL")},
    }
    with ExitStack() as running, Engage(unknown_orders="create") as engage:  # all at once: most of it is waiting
        relays: dict[str, RelayProcess] = {}

        def start(name: str, sandbox: Sandbox, kafka: dict[str, object]) -> None:
            publish(sandbox, [(ORDER, personal(1))])
            directory = tmp_path / name.replace(" ", "-")
            directory.mkdir()
            config = written(directory, configuration(sandbox, engage.url, kafka=kafka))
            relays[name] = running.enter_context(RelayProcess(directory, config, "--from", "earliest"))

        sandbox = sandboxes(broker=secured.broker)
        secured.grant(*rights("run", sandbox))
        for name, kafka in strangers.items():
            start(name, sandbox, kafka)
        for number in range(len(rights("run", sandbox))):
            sandbox = sandboxes(broker=secured.broker)
            lacks = rights("run", sandbox)
            left_out = lacks.pop(number)
            if left_out in (rights("run", sandbox, only_for="repeats") + rights("run", sandbox, only_for="requests")):
                continue  # the next tests
            secured.grant(*lacks)
            start(f"no {left_out.operation} on {left_out.resource} {number}", sandbox, secured.scram(PASSWORD))

        for name, relay in relays.items():
            until(partial(unserved, relay), f"{name}: it says that it is not served")
        assert engage.actions_asked() == 0


def test_without_the_right_to_read_what_was_sent_it_says_so_and_goes_on(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    assert FACTS_LOST in _security_md()
    sandbox = sandboxes(broker=secured.broker)
    (left_out,) = rights("run", sandbox, only_for="repeats")
    assert (left_out.name, left_out.operation) == (sandbox.topics.outcomes, "READ")
    secured.grant(*(each for each in rights("run", sandbox) if each != left_out))
    with Engage() as engage, Books(sandbox) as books:
        kafka = secured.scram(PASSWORD)
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=kafka) | {"repeats": "24h"})
        engage.submit(ORDER)
        for number in (1, 2):  # one fact; the second run does not know of the first one's
            with RelayProcess(tmp_path, config, *(["--from", "earliest"] if number == 1 else [])) as relay:
                publish(sandbox, [(ORDER, personal(number))])
                books.wait_until_settled()
                lost = [line for line in relay.text.splitlines() if FACTS_LOST in line]
                assert len(lost) == relay.metric("facts_lost_total") == number - 1
                assert all(f"{left_out.name}[" in line and "authorization failed" in line for line in lost)
                assert all(json.loads(line)["level"] == "error" for line in lost)
                assert relay.stop() == 0
        assert engage.events_of(ORDER) == [1, 2]
        assert books.dead_letters == []


def test_without_the_right_to_answer_requests_it_says_so_and_goes_on(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    assert REFUSED in _security_md()
    sandbox = sandboxes(broker=secured.broker)
    left_out = rights("run", sandbox, only_for="requests")
    secured.grant(*(each for each in rights("run", sandbox) if each not in left_out))
    with Engage() as engage, Books(sandbox) as books:
        config = written(tmp_path, configuration(sandbox, engage.url, kafka=secured.scram(PASSWORD)))
        engage.submit(ORDER)
        with RelayProcess(tmp_path, config, "--from", "earliest") as relay:
            publish(sandbox, [(ORDER, personal(1))])
            books.wait_until_settled()
            request = Request(
                id="1",
                what="send_again",
                topic=sandbox.topics.source,
                partition=0,
                offset=0,
                reason="a test",
                asked_by="resend",
                asked=time.time(),
            )
            control = control_topic(sandbox.properties["group.id"])
            sandbox.write(control, [(request_key(request), request_value(request))])  # by somebody else
            until(lambda: REFUSED in relay.text, "it says that it may not answer")
            publish(sandbox, [(ORDER, personal(2))])
            books.wait_until_settled()
            assert engage.events_of(ORDER) == [1, 2]
            assert relay.stop() == 0
        assert books.dead_letters == []


def test_check_config_names_each_right_that_is_missing(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    for number in range(len(rights("run", sandboxes(broker=secured.broker)))):
        sandbox = sandboxes(broker=secured.broker)
        lacks = rights("run", sandbox)
        left_out = lacks.pop(number)
        secured.grant(*lacks)
        config = written(tmp_path, configuration(sandbox, "http://127.0.0.1:1", kafka=secured.scram(PASSWORD)))
        failed = [each.what for each in checks.online(load(config, {})) if each.standing == "failed"][:-1]  # Engage's
        assert failed, f"nobody misses {left_out.operation} on {left_out.resource}"
        if left_out.resource == "topic":
            name = left_out.name
            assert any(name in what for what in failed), (name, failed)


@pytest.mark.parametrize("operation", ["READ", "WRITE"])
def test_both_checks_name_a_right_on_the_control_topic_that_is_missing(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path, operation: str
) -> None:
    """Without Write nobody's request is carried out, and `topics check` said that all is well."""
    sandbox = sandboxes(broker=secured.broker)
    control = control_topic(sandbox.properties["group.id"])
    lacks = [each for each in rights("run", sandbox) if (each.name, each.operation) != (control, operation)]
    secured.grant(*lacks)
    config = written(tmp_path, configuration(sandbox, "http://127.0.0.1:1", kafka=secured.scram(PASSWORD)))
    for command in (("topics", "check"), ("check-config", "--online")):
        told = engage_relay(tmp_path, config, *command)
        assert told.returncode == 1
        assert f"rights: may not {operation.title()} {control}" in told.stdout + told.stderr


# Engage behind TLS


def test_engage_behind_a_private_authority_is_talked_to_and_its_key_may_change(
    secured: SecuredBroker, sandboxes: SandboxFactory, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "engage-authority.pem")
    key = tmp_path / "key"
    key.write_text(API_KEY)
    sandbox = sandboxes(broker=secured.broker)
    secured.grant(*rights("run", sandbox))
    with Engage() as engage, behind_tls(engage.url, authority.issue_cert("127.0.0.1")) as url, Books(sandbox) as books:
        engage.set_keys(API_KEY)
        engage.submit(ORDER)
        connection = {"base_url": url, "ca_file": str(tmp_path / "engage-authority.pem"), "api_key_file": str(key)}
        config = configuration(sandbox, url, kafka=secured.scram(PASSWORD))
        config["engage"] = {"connections": {"default": connection}}
        with RelayProcess(tmp_path, written(tmp_path, config), "--from", "earliest") as relay:
            publish(sandbox, [(ORDER, personal(1))])
            books.wait_until_settled()
            engage.set_keys(NEW_KEY)
            publish(sandbox, [(ORDER, personal(2))])
            until(lambda: relay.metric("connection_suspended"), "the old key is refused")
            say(tmp_path, "metrics-suspended", relay.get("/metrics")[1])
            key.write_text(f"{NEW_KEY}\n")
            books.wait_until_settled()
            assert relay.stop() == 0
        assert engage.events_of(ORDER) == [1, 2]
        assert books.dead_letters == []


def test_an_engage_that_nobody_vouches_for_gets_nothing(sandboxes: SandboxFactory, tmp_path: Path) -> None:
    sandbox = sandboxes()
    with Engage() as engage, behind_tls(engage.url, trustme.CA().issue_cert("127.0.0.1")) as url:
        config = written(tmp_path, configuration(sandbox, url))
        online = engage_relay(tmp_path, config, "check-config", "--online")
        assert (online.returncode, "TLS certificate was refused" in online.stdout) == (1, True), online.stdout
        say(tmp_path, "check-config", online.stdout)
        with RelayProcess(tmp_path, config) as relay:
            relay.wait_until_ready()
            publish(sandbox, [(ORDER, personal(1, engage={"versionTag": "t-1"}))])
            until(lambda: relay.metric("actions_answered_total"), "the action was tried")
            assert relay.metric("in_doubt_actions") == 0
            assert relay.stop() == 0
        assert engage.requests.total() == 0


# What was said, anywhere


def test_the_errors_of_a_configuration_are_named_without_what_was_written(tmp_path: Path) -> None:
    written_wrong = {
        "kafka": {"bootstrap.servers": "127.0.0.1:1", "session.timeout.ms": PASSWORD, "sasl.pasword": PASSWORD},
        "engage": {
            "connections": {"default": {"base_url": f"https://u:{PASSWORD}@h", "api_key": f"{API_KEY} {PHONE}"}}
        },
        "limits": {"pending": PERSON},
        "admin": {"listen": PHONE},
    }
    told = engage_relay(tmp_path, written(tmp_path, written_wrong), "check-config")
    assert told.returncode == 2
    for key in ("session.timeout.ms", "sasl.pasword", "base_url", "api_key", "limits.pending", "admin.listen"):
        assert key in told.stderr
    assert leaks_in({"told": told.stdout + told.stderr}) == []


def test_nothing_that_any_process_of_this_test_run_said_holds_a_secret_or_personal_data(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Logs of every relay process so far, and what the tests here kept of metrics, reasons and standard error."""
    directory = tmp_path_factory.getbasetemp()
    if directory.name.startswith("popen-"):  # pytest-xdist: each worker has its own in the run's
        directory = directory.parent
    client_key = certificates.client_file.read_text().splitlines()[1]
    said = {str(file): file.read_text(errors="replace") for file in directory.rglob("*.log")}
    assert leaks_in(said, client_key) == []
    assert leaks_in({"itself": f"of {PERSON}: {PHONE}"}) == [("itself", PERSON), ("itself", PHONE)]


def leaks_in(said: Mapping[str, str], *more: str) -> list[tuple[str, str]]:
    return [(where, secret) for where, text in said.items() for secret in (*SECRETS, *more) if secret in text]
