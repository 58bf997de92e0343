"""`engage-relay simulate`: the Engage simulator alone, with every option on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from consumer.commands import output
from consumer.commands.exits import refuse


def simulate(
    *,
    listen: Annotated[str, typer.Option(help="host:port; port 0 is any free one.")] = "127.0.0.1:9900",
    seed: Annotated[int, typer.Option(help="The same seed gives the same chances.")] = 0,
    processing: Annotated[
        str,
        typer.Option(
            help="How long a job takes: instant, fixed:2s, uniform:1s..5s, lognormal:2s,0.8 or exponential:2s."
        ),
    ] = "lognormal:2s,0.8",
    failing: Annotated[float, typer.Option(min=0, max=1, help="Share of jobs that fail.")] = 0.0,
    stuck: Annotated[float, typer.Option(min=0, max=1, help="Share of jobs that never complete.")] = 0.0,
    redirect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=SHARE",
            help="Share of completed jobs that answer 302: relative, absolute, other-scheme, other-host.",
            show_default=False,
        ),
    ] = None,
    job_word: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD=SHARE",
            help="Share of done jobs that say this instead of Completed, as CompletedWithErrors=0.1.",
            show_default=False,
        ),
    ] = None,
    waiting_word: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD=SHARE", help="Share of jobs that say this instead of Processing.", show_default=False
        ),
    ] = None,
    late_contacts: Annotated[
        float, typer.Option(min=0, max=1, help="Share of orders whose contact comes late: 422 until then.")
    ] = 0.0,
    missing_contacts: Annotated[
        float, typer.Option(min=0, max=1, help="Share of orders whose contact never comes.")
    ] = 0.0,
    contact_delay: Annotated[str, typer.Option(help="How late a contact comes.")] = "uniform:10s..60s",
    contact_link: Annotated[
        Literal["itself", "again"],
        typer.Option(help="A late contact is linked by itself, or when the order is put again."),
    ] = "itself",
    created: Annotated[
        float, typer.Option(min=0, max=1, help="Share of acceptances that answer 201 instead of 202.")
    ] = 0.0,
    html_errors: Annotated[
        float, typer.Option(min=0, max=1, help="Share of errors that are an HTML page instead of JSON.")
    ] = 0.0,
    last_changed_at: Annotated[
        bool, typer.Option(help="Whether the simulator's own orders have lastChangedAt.")
    ] = True,
    unknown_orders: Annotated[
        Literal["not-found", "create"], typer.Option(help="What becomes of an id that nobody submitted.")
    ] = "not-found",
    requests_per_second: Annotated[int, typer.Option(min=0, help="Per key; 0: no limit.")] = 200,
    api_key_header: Annotated[str, typer.Option()] = "apikey",
    valid_key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="The keys that are accepted; default: any.", show_default=False),
    ] = None,
    forbidden_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Answered with 403.", show_default=False)
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="As unavailable=0.1, or lost-answer=0.01,calls=action.", show_default=False),
    ] = None,
    slow: Annotated[str, typer.Option(help="How late the fault `slow` answers.")] = "uniform:1s..5s",
) -> None:
    """Run the Engage simulator alone, until SIGTERM or SIGINT."""
    from consumer import simulator

    try:
        options = simulator.SimulatorOptions(
            listen=listen,
            seed=seed,
            processing=processing,
            failing=failing,
            stuck=stuck,
            moods=simulator.Moods(
                late_contacts=late_contacts,
                missing_contacts=missing_contacts,
                contact_delay=contact_delay,
                contact_link=contact_link,
                redirects=tuple(redirect or ()),
                job_words=tuple(job_word or ()),
                waiting_words=tuple(waiting_word or ()),
                created=created,
                html_errors=html_errors,
                last_changed_at=last_changed_at,
            ),
            unknown_orders=unknown_orders,
            requests_per_second=requests_per_second,
            api_key_header=api_key_header,
            valid_keys=frozenset(valid_key) if valid_key else None,
            forbidden_keys=frozenset(forbidden_key or ()),
            faults=tuple(fault or ()),
            slow=slow,
        )
        simulator.run(options, output.data)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"cannot listen on {listen}: {error.strerror}")
