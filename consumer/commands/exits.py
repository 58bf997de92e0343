"""How a command ends: the exit codes, and the text before one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from consumer.commands import output
from consumer.errors import ExitCode, FatalError

EXIT_CODES = """Exit codes:

\b
  0  done
  1  failed, in whole or in part; stderr says why, and a retry may help
  2  the configuration or the command line is wrong, or an address is taken
  3  a topic is missing or does not fit
  4  run: nobody said where to start (--from)
  5  run: the source no longer holds the next record
  6  the delay topic belongs to another source, group or cluster
"""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Say what went wrong and end with its exit code."""
    from confluent_kafka import KafkaException

    from consumer.kafka import clients

    try:
        yield
    except FatalError as error:
        end(error.exit_code, *str(error).splitlines())
    except KafkaException as error:
        end(ExitCode.FAILED, f"Kafka: {clients.error_of(error).str()}")


def refuse(*lines: str) -> NoReturn:
    """End with the code for a command line that cannot be."""
    end(ExitCode.CONFIGURATION, *lines)


def end(code: int, *lines: str) -> NoReturn:
    """Say this on stderr and end with the code."""
    for line in lines:
        output.notice(line)
    raise typer.Exit(code)
