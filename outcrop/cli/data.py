"""Training data: checked, shown, converted, made."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from outcrop.cli.installation import named, out, service
from outcrop.datasets.kinds import FAILS, HURTS, KINDS, LOOK

app = typer.Typer(no_args_is_help=True, help="Training data: check, show, convert, make.")

VERDICTS = {
    FAILS: "[red]A job on this data would fail.[/red]",
    HURTS: "[yellow]A job would run, but what is found would hurt the model or its evaluation.[/yellow]",
    LOOK: "[green]A job would run.[/green] Some things to look at.",
    "good": "[green]Good: nothing was found.[/green]",
}
HEADS = {FAILS: "[red]would fail[/red]", HURTS: "[yellow]would hurt[/yellow]", LOOK: "[cyan]to look at[/cyan]"}


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="training file: s3://bucket/key, or a path")],
    base: Annotated[
        str, typer.Option(help="base model whose tokens and context count; without one no row is too long")
    ] = "",
    validation: Annotated[list[str] | None, typer.Option(help="validation file; may be given again")] = None,
    evaluation: Annotated[list[str] | None, typer.Option(help="evaluation file; may be given again")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a hyperparameter of the job, such as batchSize=8")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="continued pre-training")] = False,
    family: Annotated[
        str, typer.Option(help="also say what AWS would refuse of this family's data, such as nova")
    ] = "",
    fix: Annotated[Path | None, typer.Option(help="write a repaired copy here, and its log beside it")] = None,
    shown: Annotated[int, typer.Option(help="findings of each kind to show", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object with every finding")] = False,
) -> None:
    """Say all that is wrong or odd about a training file, by line and field, before anything is spent.

    Exit status 1 when a job on it would fail.
    """
    from outcrop.api import data_checks
    from outcrop.datasets.repair import repair
    from outcrop.datasets.scan import KEPT

    hyperparameters = named(set_ or [], "--set")
    asked = data_checks.Asked(
        data_checks.training(file), baseModelIdentifier=base, hyperParameters=hyperparameters, family=family,
        customizationType="CONTINUED_PRE_TRAINING" if text else "FINE_TUNING",
    )  # fmt: skip
    opened = service()
    files = data_checks.check_files(file, validation or [], evaluation or [], opened)
    found = data_checks.check(files, asked, opened, kept=KEPT if fix is None else sys.maxsize)
    changes = repair(found, fix, fix.with_name(f"{fix.name}.changes.jsonl")) if fix is not None else None
    if as_json:
        print(json.dumps(found.described()))
    else:
        _print(found, shown)
    if changes is not None:
        said = f"{fix}: {changes.kept:,} rows as they were, {changes.mended:,} mended, {changes.left_out:,} left out"
        print(f"{said}; every change is in {fix}.changes.jsonl", file=sys.stderr)
    if found.verdict == FAILS:
        sys.exit(1)


def _print(found: Any, shown: int) -> None:
    for report in found.reports:
        form = f", {report.format.name}" if report.format else ""
        out.print(f"{escape(report.source.uri)}: {report.rows:,} rows{form}", highlight=False, soft_wrap=True)
    for severity, head in HEADS.items():
        kinds = Counter({kind: count for kind, count in found.counts.items() if KINDS[kind].severity == severity})
        if not kinds:
            continue
        out.print(f"\n{head}")
        for kind, count in kinds.most_common():
            out.print(f"  [bold]{kind}[/bold] ({count:,}): {KINDS[kind].meaning}", highlight=False, soft_wrap=True)
            for problem in [one for one in found.problems if one.kind == kind][:shown]:
                uri = "" if len(found.reports) == 1 else f"{found.reports[problem.file].source.uri} "
                out.print(f"    {escape(uri + str(problem))}", highlight=False, soft_wrap=True)
            if count > shown:
                out.print(f"    and {count - shown:,} more (--shown, --json)", highlight=False)
            out.print(f"    [dim]{KINDS[kind].remedy}[/dim]", highlight=False, soft_wrap=True)
    out.print(f"\n{VERDICTS[found.verdict]}")
