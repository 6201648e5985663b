"""Training data: checked, described, shown; the commands that make it stand in `making`."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from outcrop.cli.installation import named, out, service
from outcrop.cli.making import convert, harvest, mix, remember, split, synthesize
from outcrop.datasets.kinds import FAILS, HURTS, KINDS, LOOK
from outcrop.errors import Invalid
from outcrop.registry.base_models import PEBBLE_ID

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
    names: Annotated[
        bool,
        typer.Option(
            "--names", help="look for names of people, too, in the first 20,000 rows of each file (needs the pii extra)"
        ),
    ] = False,
    fix: Annotated[Path | None, typer.Option(help="write a repaired copy here, and its log beside it")] = None,
    shown: Annotated[int, typer.Option(help="findings of each kind to show", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object with every finding")] = False,
) -> None:
    """Say all that is wrong or odd about a training file, by line and field, before anything is spent.

    Exit status 1 when a job on it would fail.
    """
    from outcrop.api import data_checks
    from outcrop.datasets.names import names as names_in
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
    if names:
        for number, report in enumerate(found.reports):
            if report.num_problems:
                raise Invalid(
                    f"{report.source.uri}: names are looked for in files that a job would take; mend this one first (--fix)"
                )
            for problem in names_in(report, number):
                found.add(problem)
    if as_json:
        print(json.dumps(found.described()), flush=True)
    else:
        _print(found, shown)
    if fix is not None:
        changes = repair(found, fix, fix.with_name(f"{fix.name}.changes.jsonl"))
        remember(
            fix,
            changes.kept + changes.mended,
            "repair",
            [files.train],
            {"mended": changes.mended, "left out": changes.left_out},
        )
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


@app.command()
def describe(
    file: Annotated[str, typer.Argument(help="training file: s3://bucket/key, or a path")],
    base: Annotated[str, typer.Option(help="base model whose tokens count")] = PEBBLE_ID,
    text: Annotated[bool, typer.Option("--text", help="continued pre-training")] = False,
    html: Annotated[Path | None, typer.Option(help="write a page with histograms, findings and masks here")] = None,
    row: Annotated[
        list[int] | None, typer.Option(help="line of a row whose mask the page shows; may be given again")
    ] = None,
) -> None:
    """Say what is in a training file: counts, lengths in tokens, diversity, shared beginnings."""
    from outcrop.datasets import description, page

    found, renderer, report = _opened(file, base, text)
    what = description.describe(report, renderer)
    table = Table(
        "",
        "rows",
        "tokens",
        *(f"p{share}" if share < 100 else "max" for share in description.PERCENTILES),
        "mean",
        show_edge=False,
    )
    for name, lengths in (("prompts", what.prompts), ("answers", what.answers), ("whole rows", what.whole)):
        table.add_row(
            name,
            f"{what.looked_at:,}",
            f"{lengths.total:,}",
            *(f"{value:,}" for value in lengths.percentiles.values()),
            f"{lengths.mean:,.1f}",
        )
    out.print(f"{escape(report.source.uri)}: {what.rows:,} rows, {what.form}", highlight=False, soft_wrap=True)
    out.print(table)
    for name, lengths in (("prompt", what.prompts), ("answer", what.answers)):
        out.print(
            f"\n{name} lengths, 0 to {lengths.top:,} tokens  [cyan]{_bars(lengths.counts)}[/cyan]",
            highlight=False,
            soft_wrap=True,
        )
    out.print(
        f"\n{what.distinct_prompts:.1%} of the prompts and {what.distinct_answers:.1%} of the answers are different; {what.distinct_pairs:.1%} of "
        f"the answers' pairs of words are.\n{what.shared:.1%} of the tokens lie in beginnings that rows share, and need computing once "
        f"only.\nThe check says: {found.verdict} (outcrop data check).", highlight=False, soft_wrap=True,
    )  # fmt: skip
    if html is not None:
        masks = {line: description.mask_of(report, renderer, line) for line in row or [report.first_line]}
        html.write_text(page.page(report.source.uri, base, what, found, masks), encoding="utf-8")
        out.print(f"{html} has the page", highlight=False, soft_wrap=True)


@app.command()
def show(
    file: Annotated[str, typer.Argument(help="training file: s3://bucket/key, or a path")],
    base: Annotated[str, typer.Option(help="base model that sees it")] = PEBBLE_ID,
    row: Annotated[int, typer.Option(help="the line on which the row begins", min=1)] = 1,
    text: Annotated[bool, typer.Option("--text", help="continued pre-training")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="a token a line, with its number")] = False,
) -> None:
    """Show a row token by token as the model sees it, and what of it is learned."""
    from outcrop.datasets import description

    _, renderer, report = _opened(file, base, text)
    tokens = description.mask_of(report, renderer, row)
    if ids:
        for number, token in enumerate(tokens):
            print(f"{number:>6} {token.id:>7} {'learned' if token.is_learned else '-------'} {token.text!r}")
        return
    shown, was_learned = Text(), False
    for token in tokens:
        if token.is_learned != was_learned and not out.is_terminal:  # without colours the borders must be seen
            shown.append("\u27e6" if token.is_learned else "\u27e7")
        was_learned = token.is_learned
        said = token.text.replace("\n", "\u21b5\n")
        shown.append(said, "black on green" if token.is_learned else "magenta" if token.is_special else "dim")
        shown.append("\u2009")
    if was_learned and not out.is_terminal:
        shown.append("\u27e7")
    out.print(shown, soft_wrap=True)
    learned = sum(token.is_learned for token in tokens)
    out.print(
        f"\n{len(tokens):,} tokens: [black on green]{learned:,} learned[/], [dim]{len(tokens) - learned:,} context[/], [magenta]special tokens[/]",
        highlight=False,
    )


def _opened(file: str, base: str, text: bool) -> tuple[Any, Any, Any]:
    """A file that passes its check, the base's renderer, and the file's report. Raises Invalid."""
    from outcrop.api import data_checks
    from outcrop.rendering import Renderer

    opened = service()
    asked = data_checks.Asked(
        data_checks.training(file), customizationType="CONTINUED_PRE_TRAINING" if text else "FINE_TUNING"
    )
    found = data_checks.check(data_checks.check_files(file, [], [], opened), asked, opened, fewest=1)
    found.refuse()
    return found, Renderer(opened.registry.weights(base).folder), found.reports[0]


def _bars(counts: list[int]) -> str:
    """A histogram in one line of text."""
    most = max(*counts, 1)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // most)] for count in counts)


for making in (convert, mix, split, harvest, synthesize):
    app.command()(making)
