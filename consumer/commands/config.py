"""`engage-relay config`: the configuration file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from consumer.commands import output
from consumer.commands.exits import exit_codes, refuse
from consumer.commands.options import AsJson, Config

app = typer.Typer(help="The configuration file.", no_args_is_help=True)


@app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from consumer.config.settings import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command("show")
def config_show(
    config: Config = None,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the configuration in force. Secrets are hidden."""
    from consumer.config.origins import origins

    with exit_codes():
        for each in origins(config, os.environ):
            if as_json:
                where = {"origin": each.origin} if origin else {}
                output.json_line({"key": each.key, "value": each.value, **where})
            else:
                where_from = f"  # {each.origin}" if origin else ""
                output.data(f"{each.key}: {json.dumps(each.value, ensure_ascii=False)}{where_from}")


@app.command("init")
def config_init(
    platform: Annotated[
        str, typer.Argument(help="The shop's platform; canonical: events as this documentation has them.")
    ] = "canonical",
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="The file to write; it must not exist yet.")
    ] = Path("relay.yaml"),
) -> None:
    """Write a commented configuration file for a platform. It asks nothing, and overwrites nothing."""
    from consumer.commands.platforms import CANONICAL, beginning, platforms

    known = (CANONICAL, *platforms())
    if platform not in known:
        refuse(f"{platform}: must be one of {', '.join(known)}")
    try:
        with file.open("x") as written:
            written.write(beginning(platform))
    except FileExistsError:
        refuse(f"{file}: is there already, and is not overwritten")
    except OSError as error:
        refuse(f"{file}: {error.strerror}")
    output.notice(
        f"{file}: written. Set KAFKA_BOOTSTRAP_SERVERS, ENGAGE_BASE_URL and ENGAGE_API_KEY, or write them in."
    )
    output.notice(f"Next: engage-relay route --config {file} EVENTS; engage-relay check-config --config {file}")
