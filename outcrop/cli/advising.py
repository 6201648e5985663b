"""Whether to tune at all."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from outcrop.cli.installation import installation, named, out
from outcrop.errors import Invalid


def advise(
    data: Annotated[str, typer.Argument(help="rows with prompts and answers: s3://bucket/key, or a path")],
    base: Annotated[str, typer.Option(help="base model, as in a job")],
    documents: Annotated[
        list[str] | None, typer.Option(help="files, folders or S3 prefixes to retrieve from; may be given again")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="metric that judges (outcrop metrics); one that fits the answers when left out")
    ] = "",
    system: Annotated[str, typer.Option(help="a system prompt for rows that have none")] = "",
    category: Annotated[
        str, typer.Option(help="key of rows that are alike: one of its values is left out of a training")
    ] = "",
    max_tokens: Annotated[int, typer.Option(help="longest answer", min=1)] = 256,
    worth: Annotated[float, typer.Option(help="points that a dearer way must gain (%)", min=0, max=100)] = 5,
    enough: Annotated[
        float, typer.Option(help="what plain prompting must reach to be good enough (%)", min=0, max=100)
    ] = 70,
    price: Annotated[str, typer.Option(help="what a million tokens in and out cost, such as 0.25,1.25")] = "",
    hour_price: Annotated[float, typer.Option(help="what an hour of training costs, in the same money", min=0)] = 0.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a hyperparameter of the tunings, such as epochCount=3")
    ] = None,
    rows: Annotated[
        int, typer.Option(help="learn from so many rows at most; the curve says what more would bring", min=100)
    ] = 3000,
    seed: Annotated[int, typer.Option(help="of the parts, examples and trainings")] = 0,
    folder: Annotated[
        Path, typer.Option("--out", help="folder for advice.html, advice.json and comparison.html")
    ] = Path("advice"),
    only_plan: Annotated[bool, typer.Option("--plan", help="say what it will take, and end")] = False,
) -> None:
    """Try plain prompting, few-shot, retrieval and quick tunings on held-out rows, and recommend one."""
    from outcrop.advice import Advice
    from outcrop.workflows.advise import Advise, Wanted

    wanted = Wanted(
        data, base, tuple(documents or ()), metric, system, category, max_tokens, seed, worth / 100, enough / 100, _price(price), hour_price, rows,
        named(set_ or [], "--set"),
    )  # fmt: skip

    def say(text: str) -> None:
        out.print(f"[dim]{text}[/dim]", highlight=False, soft_wrap=True)

    found = Advise(*installation())(wanted, folder, say, only_plan)
    if not isinstance(found, Advice):
        return
    table = Table(
        "way",
        found.judged_by,
        "tokens in",
        "out",
        "ms a request",
        *(["per 1,000"] if wanted.price else []),
        "training",
        show_edge=False,
    )
    for option in found.options:
        figure = option.figure
        cells = [
            f"{100 * figure.mean:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]",
            f"{option.input_tokens:,.0f}",
            f"{option.output_tokens:.1f}",
        ]
        cells += [
            f"{1000 * option.seconds_a_request:.1f}",
            *([f"{option.cost_a_thousand:,.4f}"] if option.cost_a_thousand is not None else []),
            f"{option.training_s:,.0f} s",
        ]
        table.add_row(f"{option.name}{f' ({option.detail})' if option.detail else ''}", *cells)
    out.print(table)
    report = Table("problem", "rule of thumb", "measured here", show_edge=False)
    for kind in found.table:
        report.add_row(kind.problem, kind.report, kind.measured)
    out.print(report)
    for reason in found.reasons:
        out.print(f"- {reason}", highlight=False, soft_wrap=True)
    for warning in found.warnings:
        out.print(f"[yellow]note[/yellow] {warning}", highlight=False, soft_wrap=True)
    out.print(f"\n[bold]{found.sentence}[/bold]", highlight=False, soft_wrap=True)
    out.print(
        f"{folder / 'advice.html'} has the charts, {folder / 'comparison.html'} the rows",
        highlight=False,
        soft_wrap=True,
    )


def _price(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        given, taken = (float(one) for one in text.split(","))
    except ValueError:
        raise Invalid(f"--price {text}: expected two numbers, such as 0.25,1.25") from None
    return given, taken
