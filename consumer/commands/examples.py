"""Examples of each command, for the end of its `--help`. A test parses every line."""

from __future__ import annotations

import typer

EXAMPLES: dict[str, tuple[str, ...]] = {
    "order": (
        "engage-relay order A-4711",
        "engage-relay order A-4711 --topic orders --partition 3 --json",
    ),
    "reconcile": (
        "engage-relay reconcile --since 1d",
        "engage-relay reconcile --orders ids.txt",
    ),
    "pause": (
        'engage-relay pause --reason "the mail template is wrong"',
        'engage-relay pause --route shipped --until 2h --reason "carrier outage"',
        'engage-relay pause --connection acme --action ConfirmOrder --discard --yes --reason "an import of old orders"',
    ),
    "resume": (
        'engage-relay resume --reason "the template is right again"',
        'engage-relay resume 3f0a9c1e --reason "the carrier is back"',
    ),
    "pauses": ("engage-relay pauses", "engage-relay pauses --ended --json"),
    "resend": (
        'engage-relay resend A-4711 --reason "the customer deleted the e-mail"',
        'engage-relay resend A-4711 --action ConfirmShipment --reason "the first one had a wrong link"',
        'engage-relay resend A-4711 --event orders/3/4711 --item 1 --reason "the second parcel"',
        'engage-relay resend --withheld --route shipped --since 2d --reason "the template is right again"',
    ),
    "run": (
        "engage-relay run --config relay.yaml",
        "engage-relay run --config relay.yaml --from latest --create-topics",
    ),
    "demo": ("engage-relay demo", "engage-relay demo --orders 50 --seed 7"),
    "completion": ("engage-relay completion bash", "engage-relay completion zsh"),
    "simulate": (
        "engage-relay simulate --unknown-orders create",
        "engage-relay simulate --stuck 0.1 --fault unavailable=0.05",
    ),
    "status": (
        "engage-relay status",
        "engage-relay status --url http://10.0.0.7:8080 --json",
        "engage-relay status --all --url http://engage-relay.shop.svc:8080",
        "engage-relay status --check",
    ),
    "check-config": (
        "engage-relay check-config --config relay.yaml",
        "engage-relay check-config --config relay.yaml --online",
    ),
    "route": (
        "engage-relay route events.jsonl --config relay.yaml",
        "engage-relay route --offset 0:17 --verbose",
        "engage-relay route - --strict",
        "engage-relay route test expectations",
    ),
    "verify-engage": ("engage-relay verify-engage --base-url https://acme.staging.voyado.com --order A-1",),
    "config schema": ("engage-relay config schema",),
    "config show": ("engage-relay config show --config relay.yaml --origin",),
    "config init": ("engage-relay config init shopify", "engage-relay config init canonical --file shop.yaml"),
    "send": ("engage-relay send event.json --key A-1 --header kind=shipped",),
    "topics create": ("engage-relay topics create --config relay.yaml --replication 3",),
    "topics check": ("engage-relay topics check --config relay.yaml",),
    "topics adopt": ("engage-relay topics adopt orders --from recorded",),
    "pending list": ("engage-relay pending list --order-id A-1", "engage-relay pending list --older-than 1h --json"),
    "pending show": ("engage-relay pending show 0:17", "engage-relay pending show orders/0/17 --item 1 --json"),
    "pending retry-now": ('engage-relay pending retry-now 0:17 --reason "the contact is there now"',),
    "pending drop": ('engage-relay pending drop 0:17 --reason "the order was a test"',),
    "dead-letters list": (
        "engage-relay dead-letters list --since 2d --output wide",
        "engage-relay dead-letters list --reason rejected --json",
    ),
    "dead-letters show": (
        "engage-relay dead-letters show 0:3",
        "engage-relay dead-letters show orders.engage.dead-letters/0/3 --value --json",
    ),
    "dead-letters redrive": (
        "engage-relay dead-letters redrive --reason rejected --since 1d --dry-run",
        "engage-relay dead-letters redrive --topic orders --source-offset 0:17",
        "engage-relay dead-letters list --json | engage-relay dead-letters redrive -",
    ),
}


def give_examples(app: typer.Typer, path: str = "") -> None:
    """Put the examples at the end of each command's help."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            give_examples(group.typer_instance, f"{group.name} ")
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", ""))
        lines = "".join(f"  {each}\n" for each in EXAMPLES.get(path + name, ()))
        command.epilog = f"Examples:\n\n\b\n{lines}" if lines else None
