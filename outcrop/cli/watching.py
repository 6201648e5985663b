"""Models in use."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from outcrop.cli.installation import installation, out, service


def watch(
    model: Annotated[str, typer.Argument(help="deployment, provisioned throughput or model, by any of its names")],
    logs: Annotated[
        str,
        typer.Option(
            help="prefix of invocation logs, s3://bucket/prefix; where they are configured to go when left out"
        ),
    ] = "",
    recent: Annotated[
        float,
        typer.Option(help="calls of so many hours are recent; those before are what they are held against", min=0),
    ] = 24,
    against: Annotated[
        str,
        typer.Option(
            help="calls or training: earlier calls, or the prompts it was trained on; whichever there is when left out"
        ),
    ] = "",
    data: Annotated[str, typer.Option(help="rows for a spot check: s3://bucket/key, or a path")] = "",
    spot: Annotated[int, typer.Option(help="rows of a spot check", min=1)] = 50,
    metric: Annotated[str, typer.Option(help="metric of the spot check (outcrop metrics)")] = "",
    embedder: Annotated[str, typer.Option(help="embedding model: drift of meaning, too")] = "",
    max_tokens: Annotated[int, typer.Option(help="longest answer of a spot check", min=1)] = 256,
    every: Annotated[float | None, typer.Option(help="look again every so many minutes", min=0.01)] = None,
    folder: Annotated[Path, typer.Option("--out", help="folder for watch.jsonl and spots.jsonl")] = Path("watch"),
) -> None:
    """Say from its logs whether what a model is asked, and how it answers, has changed. Ends with status 2 when there is something to tell."""
    from outcrop.errors import Invalid, OutcropError
    from outcrop.workflows.watch import CALLS, TRAINING, Wanted, Watch

    if against not in ("", CALLS, TRAINING):
        raise Invalid(f"--against {against}: it must be {CALLS} or {TRAINING}")
    wanted = Wanted(model, logs, recent, against, data, spot, metric, embedder, max_tokens)
    while True:
        try:
            found = Watch(*installation(), service().logs.configuration)(wanted, folder)
        except OutcropError as error:
            if every is None:
                raise
            out.print(f"[red]this look failed:[/red] {error.message}", highlight=False, soft_wrap=True)
        else:
            _show(found)
            if every is None:
                sys.exit(0 if found.is_calm else 2)
        time.sleep(60 * every)


def _show(found: object) -> None:
    from outcrop.evaluation.charts import p_value
    from outcrop.workflows.watch import Watched

    assert isinstance(found, Watched)
    out.print(
        f"[bold]{found.model}[/bold] at {found.at:%Y-%m-%d %H:%M} UTC: {found.after:,} recent calls against {found.against}",
        highlight=False,
        soft_wrap=True,
    )
    if found.changes:
        table = Table("", "before", "recently", "change", "p", "", show_edge=False)
        for one in found.changes:
            size = (
                f"{100 * one.size:+.1f} {'pt' if one.what == 'points' else '%'}"
                if one.what in ("points", "part of the earlier mean")
                else f"{one.size:.3f}"
            )
            table.add_row(
                one.name, one.before, one.after, size, p_value(one.p), "[red]changed[/red]" if one.is_told else ""
            )
        out.print(table)
    if found.spot is not None:
        spot = f"spot check: {found.metric} {100 * found.spot.mean:.1f} % [{100 * found.spot.low:.1f}, {100 * found.spot.high:.1f}]"
        if found.change is not None:
            spot += f", {100 * found.change.mean:+.1f} pt [{100 * found.change.low:+.1f}, {100 * found.change.high:+.1f}] against the first one: {found.verdict}"
        out.print(spot, highlight=False, soft_wrap=True)
    for note in found.notes:
        out.print(f"[yellow]note[/yellow] {note}", highlight=False, soft_wrap=True)
    if found.unread:
        out.print(
            f"[yellow]note[/yellow] {found.unread:,} records could not be read as calls with text", highlight=False
        )
    out.print(found.summary if found.is_calm else f"[red]{found.summary}[/red]")
