"""`engage-relay config`: the configuration file."""

from __future__ import annotations

import json

import typer

app = typer.Typer(help="The configuration file.", no_args_is_help=True)


@app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from consumer.config.settings import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
