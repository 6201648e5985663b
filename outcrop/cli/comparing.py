"""Models held against each other on the same rows."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from outcrop.cli.installation import installation, named, out
from outcrop.errors import Invalid


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="models, the one that the others are held against first; NAME=MODEL gives a name, MODEL@ENDPOINT is a remote one"
        ),
    ],
    data: Annotated[str, typer.Option(help="rows with prompts and references: s3://bucket/key, or a path")],
    shots: Annotated[
        str, typer.Option(help="numbers of worked examples, such as 0,1,4: every model with each of them")
    ] = "0",
    shots_from: Annotated[
        str,
        typer.Option(
            help="file of worked examples, such as the training file; rows of the data, which are then not asked, when left out"
        ),
    ] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="metric, the first one judges; may be given again; FILE.py:FUNCTION or an address is one's own (outcrop metrics)"
        ),
    ] = None,
    slice_: Annotated[
        list[str] | None, typer.Option("--slice", help="key of the rows to tell apart by; may be given again")
    ] = None,
    group: Annotated[str, typer.Option(help="key of rows that belong together, such as questions on one table")] = "",
    system: Annotated[str, typer.Option(help="a system prompt for rows that have none")] = "",
    max_tokens: Annotated[int, typer.Option(help="longest answer", min=1)] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token", min=0, max=2)] = 0.0,
    seed: Annotated[int, typer.Option(help="of draws, shots and bootstrap")] = 0,
    rows: Annotated[int | None, typer.Option(help="only the first so many rows", min=1)] = None,
    prices: Annotated[
        list[str] | None,
        typer.Option(
            "--price", help="NAME=IN,OUT: what a million tokens in and out of a model cost; may be given again"
        ),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="JSON schema for the metric schema, where rows have none of their own")
    ] = None,
    embedder: Annotated[str, typer.Option(help="embedding model for the metric similarity")] = "",
    folder: Annotated[
        Path, typer.Option("--out", help="folder for comparison.html, comparison.json and the answers")
    ] = Path("comparison"),
    as_json: Annotated[bool, typer.Option("--json", help="print comparison.json instead of the table")] = False,
) -> None:
    """Ask any number of models the same rows and say how they differ, with intervals, tests and tokens."""
    from outcrop.workflows.compare import Compare, Sampling, Wanted

    wanted = Wanted(
        data, ways_of(models, shots), tuple(metric or ()), shots_from, system, tuple(slice_ or ()), group,
        Sampling(max_tokens, temperature, seed), prices_of(prices or []), json_file(schema), embedder, rows,
    )  # fmt: skip
    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(arm: str, done: int, of: int) -> None:
            if arm not in tasks:
                tasks[arm] = progress.add_task(arm, total=of)
            progress.update(tasks[arm], completed=done)

        found = Compare(*installation())(wanted, folder, tell)
    if as_json:
        print((folder / "comparison.json").read_text(encoding="utf-8"))
        return
    show(found)
    out.print(
        f"{folder / 'comparison.html'} has the charts and the rows that changed; comparison.json has all figures",
        highlight=False,
        soft_wrap=True,
    )


def metrics() -> None:
    """List the metrics."""
    from outcrop.evaluation import METRICS

    table = Table("metric", "what it says", show_edge=False)
    for one in METRICS.values():
        table.add_row(one.name, one.what)
    out.print(table)


def show(found: Any) -> None:
    """A comparison in the terminal."""
    from outcrop.evaluation.charts import between, number, p_value, points, said
    from outcrop.evaluation.page import headline

    groups = f" in {found.groups:,} groups" if found.groups is not None else ""
    names = [measure.metric for measure in found.measures]
    table = _folding("", *names, title=f"{found.rows:,} row{'s' if found.rows > 1 else ''}{groups}, 95 % intervals")
    for place, arm in enumerate(found.arms):
        table.add_row(
            arm, *(said(measure.arms[place], measure.form).replace(" [", "\n[") for measure in found.measures)
        )
    out.print(table)
    if len(found.arms) > 1:
        judged = found.measure(found.judged_by)
        table = _folding(
            f"{found.judged_by} against {found.arms[0]}",
            "difference",
            "p",
            "detectable",
            "won",
            "lost",
            "",
        )
        for turned, one in zip(found.turned, judged.against, strict=True):
            if one is not None:
                change = (
                    f"{number(one.difference.mean, judged.form, True)} {between(one.difference, judged.form, True)}"
                )
                table.add_row(
                    turned.arm,
                    change,
                    p_value(one.p_corrected),
                    points(one.detectable, judged.form),
                    f"{turned.better:,}",
                    f"{turned.worse:,}",
                    one.verdict,
                )
        out.print(table)
    for warning in found.warnings:
        out.print(f"[yellow]note[/yellow] {warning}", highlight=False, soft_wrap=True)
    out.print(f"[bold]{headline(found)}[/bold]", highlight=False, soft_wrap=True)


def _folding(*names: str, title: str | None = None) -> Table:
    """A table that folds what is too long, so that a name in a mail of 80 columns is still whole."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def ways_of(models: list[str], shots: str) -> list[Any]:
    """Every model with every number of shots. Raises Invalid."""
    from outcrop.workflows.compare import Way

    try:
        numbers = [int(one) for one in shots.split(",")]
    except ValueError:
        raise Invalid(f"--shots {shots}: expected numbers, such as 0,1,4") from None
    if any(number < 0 for number in numbers):
        raise Invalid(f"--shots {shots}: a number of examples is 0 or more")
    ways = []
    for said in models:
        label, mark, rest = said.partition("=") if "@" not in said.partition("=")[0] else ("", "", said)
        model, _, endpoint = (rest if mark else said).partition("@")
        ways += [Way(model, endpoint, number, label if mark else "") for number in dict.fromkeys(numbers)]
    if len({way.name for way in ways}) < len(ways):
        raise Invalid("two arms have the same name; give them names: NAME=MODEL")
    return ways


def prices_of(said: list[str]) -> dict[str, tuple[float, float]]:
    """A price table. Raises Invalid."""
    found = {}
    for name, text in named(said, "--price").items():
        try:
            given, taken = (float(one) for one in text.split(","))
        except ValueError:
            raise Invalid(f"--price {name}={text}: expected two numbers, such as {name}=0.25,1.25") from None
        found[name] = (given, taken)
    return found


def json_file(path: Path | None) -> Any:
    """What a file of JSON says; None without a file. Raises Invalid."""
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"{path}: cannot be read as JSON: {error}") from None
