"""What a job would take, and which settings are best: without a server."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from outcrop.cli.installation import installation, named, out
from outcrop.errors import Invalid


def plan(
    file: Annotated[Path, typer.Argument(help="training file, JSONL")],
    base: Annotated[str, typer.Option(help="base model, as in a job")],
    validation: Annotated[list[Path] | None, typer.Option(help="validation file; may be given again")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="a hyperparameter, such as batchSize=8")] = None,
    text: Annotated[bool, typer.Option("--text", help="continued pre-training")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Say what a job would take: tokens, steps, memory, time. Nothing is trained and nothing is kept."""
    from outcrop.workflows.plan import plan as find_out

    planned = find_out(file, validation or [], base, named(set_ or [], "--set"), text, *installation())
    found = planned.rehearsed
    if as_json:
        print(json.dumps({**asdict(planned), "rehearsed": msgspec.to_builtins(found)}))
        return
    table = Table("", "", show_header=False, show_edge=False)
    shared = 1 - found.computed_tokens / found.tokens
    grouped = (
        f"rows that begin alike are drawn together (saves {found.groups_save:.0%})"
        if found.groups_save >= 0.05
        else "rows are drawn one by one"
    )
    checkpointed = ", activations computed twice to save memory" if found.checkpoints_activations else ""
    for name, value in {
        "rows": f"{found.rows:,}, the longest of {planned.longest_row:,} tokens; none is cut",
        "tokens": f"{found.tokens:,} in all epochs, {found.answer_tokens:,} of them learned",
        "after sharing": f"{found.computed_tokens:,} ({shared:.0%} less); {grouped}",
        "steps": f"{found.steps:,}, at most {found.microbatch_tokens:,} tokens at a time{checkpointed}",
        "memory": f"{found.memory_bytes / 1e9:.2f} GB",
        "time": f"{found.seconds:,.0f} s, give or take {found.seconds_error:,.0f} s, without early stopping",
        "planning took": f"{planned.planning_s:.1f} s",
    }.items():
        table.add_row(name, value)
    out.print(table)


def sweep(
    file: Annotated[Path, typer.Argument(help="training file, JSONL")],
    base: Annotated[str, typer.Option(help="base model, as in a job")],
    grid: Annotated[
        list[str] | None, typer.Option(help="a hyperparameter and its values, such as batchSize=8,32")
    ] = None,
    range_: Annotated[
        list[str] | None, typer.Option("--range", help="one and its bounds, such as learningRateMultiplier=0.1..2")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="search by optuna, so many trials", min=1, max=1000)] = None,
    validation: Annotated[list[Path] | None, typer.Option(help="validation file; may be given again")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a hyperparameter for all, such as epochCount=3")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="folder for the runs, table and picture")] = Path("sweep"),
    at_once: Annotated[int | None, typer.Option(help="trials at once; one a processor when left out", min=1)] = None,
) -> None:
    """Try a grid of settings, or search ranges; losers are stopped on their validation loss. Writes a table and a picture."""
    from outcrop.workflows.sweep import Space, Sweep
    from outcrop.workflows.trials import Trial

    values = {name: text.split(",") for name, text in named(grid or [], "--grid").items()}
    ranges = {name: _bounds(name, text) for name, text in named(range_ or [], "--range").items()}

    def tell(trial: Trial) -> None:
        out.print(f"{_said(trial.hyperparameters)}: {_loss(trial)}, {trial.seconds:.0f} s", highlight=False)

    def _said(hyperparameters: dict[str, str]) -> str:
        return ", ".join(f"{name} {value}" for name, value in hyperparameters.items())

    def _loss(trial: Trial) -> str:
        if trial.loss is None:
            return f"failed: {trial.failure}"
        return f"{trial.loss:.4f}{' (stopped: it was losing)' if trial.was_stopped else ''}"

    given, space = named(set_ or [], "--set"), Space(values, ranges, trials)
    ranked = Sweep(*installation()).files(file, validation or [], base, given, space, folder, tell, at_once)
    shown = Table("", *values, *ranges, "validation loss", "seconds", show_edge=False)
    for place, trial in enumerate(ranked, 1):
        chosen = [trial.hyperparameters[name] for name in (*values, *ranges)]
        shown.add_row(str(place), *chosen, _loss(trial), f"{trial.seconds:.0f}")
    out.print(shown)
    out.print(f"{folder}/sweep.csv, sweep.json and sweep.svg have the table and the curves", highlight=False)
    if ranked and ranked[0].checkpoint:
        out.print(f"the best weights are in {ranked[0].checkpoint}", highlight=False, soft_wrap=True)


def _bounds(name: str, text: str) -> tuple[str, str]:
    low, mark, high = text.partition("..")
    if not mark:
        raise Invalid(f"--range {name}={text}: expected low..high, such as learningRateMultiplier=0.1..2")
    return low, high
