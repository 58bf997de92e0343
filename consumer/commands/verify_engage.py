"""`engage-relay verify-engage`: whether a tenant of Engage does what its documentation says."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import end, refuse
from consumer.errors import ExitCode


def verify_engage(
    *,
    base_url: Annotated[str, typer.Option(envvar="ENGAGE_BASE_URL", help="As https://acme.staging.voyado.com.")],
    api_key_file: Annotated[
        Path | None, typer.Option(help="The file that holds the key; default: ENGAGE_API_KEY.", show_default=False)
    ] = None,
    order: Annotated[
        str | None, typer.Option(metavar="ID", help="An order that exists; it is only read.", show_default=False)
    ] = None,
    create_order: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON document: the order is created or replaced.", show_default=False),
    ] = None,
    send_action: Annotated[bool, typer.Option("--send-action", help="Send actions: this mails a customer.")] = False,
    action: Annotated[str, typer.Option(help="The action's name, with --send-action.")] = "Custom",
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="How often to put the document.")] = 1,
    patience: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a job.")] = 300.0,
    poll_interval: Annotated[float, typer.Option(min=0.01, help="Seconds between two polls.")] = 1.0,
    api_key_header: Annotated[str, typer.Option(help="The header that carries the key.")] = "apikey",
    user_agent: Annotated[
        str | None,
        typer.Option(help="Your system and its version, such as AcmePOS/1.5; ours follows it.", show_default=False),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file of the authorities to trust.", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write a report without key, ids or values.", show_default=False),
    ] = None,
) -> None:
    """Ask an Engage what only the real one can answer. Exits with 1 where something differs."""
    import asyncio

    from pydantic import SecretStr

    from consumer import __version__
    from consumer.engage import headers as http_headers
    from consumer.engage.api_key import LEGAL_KEY, ApiKey
    from consumer.engage.verification import USER_AGENT, Plan, report, verify
    from consumer.events.identifiers import why_unusable

    if (order is None) == (create_order is None):
        refuse("give one of --order and --create-order")
    document = None if create_order is None else _document(create_order)
    order_id = order if document is None else document.get("orderId")
    if not isinstance(order_id, str) or why_unusable(order_id):
        refuse("the order's id (orderId) must be text that can be in a URL's path")
    try:
        key = ApiKey(api_key_file or SecretStr(os.environ.get("ENGAGE_API_KEY", ""))).current()
    except (OSError, ValueError):
        refuse(f"{api_key_file}: no API key can be read")
    if not LEGAL_KEY.fullmatch(key):
        refuse("no API key: set ENGAGE_API_KEY, or give --api-key-file")
    if not http_headers.NAME.fullmatch(api_key_header):
        refuse("api_key_header must be a header's name")
    agent = " ".join(filter(None, (user_agent, USER_AGENT)))
    if not http_headers.VALUE.fullmatch(agent):
        refuse("--user-agent must be printable ASCII, with no space at either end")
    if ca_file is not None and not _trusts(ca_file):
        refuse(f"{ca_file}: no certificate authorities can be read")
    if send_action:
        output.notice("WARNING: --send-action sends actions. Engage mails the order's customer.")
    plan = Plan(
        base_url=base_url,
        api_key=key,
        order_id=order_id,
        document=document,
        send_action=send_action,
        action=action,
        repeat=repeat,
        api_key_header=api_key_header,
        user_agent=agent,
        ca_file=ca_file,
        patience_s=patience,
        poll_interval_s=poll_interval,
    )
    try:
        findings = asyncio.run(verify(plan))
    except ValueError as error:
        refuse(str(error))
    rows = [
        {
            "fact": f"{each.fact.number} {each.fact.name}",
            "expected": each.fact.expected,
            "seen": each.seen,
            "verdict": f"differs; setting: {each.fact.setting}" if each.verdict == "differs" else each.verdict,
        }
        for each in findings
    ]
    output.rows(rows, ("fact", "expected", "seen", "verdict"))
    if json_file is not None:
        date = datetime.now(UTC).date().isoformat()
        try:
            json_file.write_text(json.dumps(report(findings, version=__version__, date=date), indent=2) + "\n")
        except OSError as error:
            refuse(f"{json_file}: {error.strerror}")
    if any(each.verdict in ("differs", "no answer") for each in findings):
        end(ExitCode.FAILED)


def _trusts(ca_file: Path) -> bool:
    from consumer.engage.connecting import ssl_context

    try:
        ssl_context(ca_file)
    except OSError:
        return False
    return True


def _document(file: Path) -> dict[str, object]:
    try:
        parsed = json.loads(file.read_bytes())
    except OSError as error:
        refuse(f"{file}: {error.strerror}")
    except ValueError:
        refuse(f"{file}: is no JSON")
    if not isinstance(parsed, dict):
        refuse(f"{file}: is no JSON object")
    return parsed
