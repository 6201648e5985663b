"""Training data: checked, shown, converted, made."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from outcrop.cli.installation import installation, named, out, service
from outcrop.datasets.kinds import FAILS, HURTS, KINDS, LOOK
from outcrop.errors import Invalid
from outcrop.registry.base_models import PEBBLE_ID
from outcrop.settings import Settings

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
        _remember(
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


@app.command()
def convert(
    file: Annotated[str, typer.Argument(help="JSONL, JSON, CSV or TSV: s3://bucket/key, or a path")],
    target: Annotated[Path, typer.Argument(help="the file to write")],
    to: Annotated[
        str, typer.Option(help="prompt/completion, messages, bedrock-conversation-2024, openai, input or evaluation")
    ] = "messages",
    prompt: Annotated[str, typer.Option(help="key or column of the prompt, where it is not told by its name")] = "",
    answer: Annotated[str, typer.Option(help="key or column of the answer")] = "",
    system: Annotated[str, typer.Option(help="a system prompt for rows that have none")] = "",
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="whether a table's first line names its columns")
    ] = True,
) -> None:
    """Convert between Bedrock's forms, and from CSV, OpenAI's, ShareGPT's and Alpaca's files."""
    from outcrop.datasets.conversion import Reading, convert
    from outcrop.datasets.source import open_file

    source = open_file(service().storage.objects, file)
    count = convert(source, target, to, Reading(prompt, answer, system, header))
    _remember(target, count, "convert", [source], {"form": to})
    out.print(f"{target}: {count:,} rows", highlight=False, soft_wrap=True)


@app.command()
def mix(
    target: Annotated[Path, typer.Argument(help="the file to write")],
    shares: Annotated[list[str], typer.Argument(help="file=share, such as general.jsonl=0.3 special.jsonl=0.7")],
    rows: Annotated[
        int | None, typer.Option(help="rows in all; as many as the shares allow when left out", min=1)
    ] = None,
    to: Annotated[str, typer.Option(help="form of the rows, as in convert")] = "messages",
    seed: Annotated[int, typer.Option(help="of the draw and the order")] = 0,
) -> None:
    """Mix general and special data by ratio, no row twice; what is forgotten can be watched with generalValidationS3Uri."""
    from outcrop.datasets.mixing import mix
    from outcrop.datasets.source import open_file

    objects = service().storage.objects
    given = [(open_file(objects, name), _number(share, name)) for name, share in named(shares, "mix").items()]
    counts = mix(given, target, to, rows, seed)
    provenance = str(target.absolute()) + ".sources.jsonl"
    _remember(
        target, sum(counts.values()), "mix", [source for source, _ in given], {"seed": seed, **counts}, provenance
    )
    for uri, count in counts.items():
        out.print(f"{count:>9,} rows of {uri}", highlight=False, soft_wrap=True)


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Invalid(f"{name}={text}: the share must be a number") from None


@app.command()
def split(
    file: Annotated[str, typer.Argument(help="training file: s3://bucket/key, or a path")],
    folder: Annotated[Path, typer.Option("--out", help="folder for train.jsonl, validation.jsonl, test.jsonl")],
    validation: Annotated[float, typer.Option(help="share of the rows (%)", min=0, max=99)] = 10,
    test: Annotated[float, typer.Option(help="share of the rows (%)", min=0, max=99)] = 0,
    by: Annotated[str, typer.Option(help="key whose values stay together, such as document or customer.id")] = "",
    keys: Annotated[
        str, typer.Option(help="file with a line of JSON a row in which to look for it, such as a provenance file")
    ] = "",
    stratify: Annotated[str, typer.Option(help="key, or answer, whose values each part gets in proportion")] = "",
    seed: Annotated[int, typer.Option(help="of the draw")] = 0,
) -> None:
    """Part a file into training, validation and test rows; what belongs together stays together."""
    from outcrop.datasets.mixing import part
    from outcrop.datasets.source import open_file

    objects = service().storage.objects
    shares = {"train": 100 - validation - test, "validation": validation, "test": test}
    source = open_file(objects, file)
    parts = part(source, folder, shares, by, stratify, seed, open_file(objects, keys) if keys else None)
    for name, count in parts.rows.items():
        _remember(
            folder / f"{name}.jsonl", count, f"split, {name}", [source], {"by": by, "stratify": stratify, "seed": seed}
        )
        out.print(
            f"{count:>9,} rows in {parts.groups[name]:,} groups: {folder / name}.jsonl", highlight=False, soft_wrap=True
        )


@app.command()
def harvest(
    logs: Annotated[str, typer.Argument(help="prefix of invocation logs: s3://bucket/prefix")],
    target: Annotated[str, typer.Option("--out", help="the file to write: s3://bucket/key, or a path")],
    metadata: Annotated[
        list[str] | None,
        typer.Option(help="requestMetadata that calls must have, such as team=maps; may be given again"),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="only calls of this model; may be given again")] = None,
    after: Annotated[datetime | None, typer.Option(help="only calls from then on (UTC)")] = None,
    before: Annotated[datetime | None, typer.Option(help="only calls before then (UTC)")] = None,
    to: Annotated[str, typer.Option(help="form of the rows, as in convert")] = "messages",
    near: Annotated[bool, typer.Option("--near/--no-near", help="take one of prompts that say nearly the same")] = True,
    teacher: Annotated[
        str, typer.Option(help="answer every prompt anew: a model of the catalogue, or one at --endpoint")
    ] = "",
    endpoint: Annotated[
        str,
        typer.Option(
            help="where the teacher is: an address in OpenAI's shape (ends in /v1), bedrock, or a Bedrock's address"
        ),
    ] = "",
    max_tokens: Annotated[int, typer.Option(help="longest answer of the teacher", min=1)] = 1000,
    corrections: Annotated[
        Path | None, typer.Option(help="JSON lines of requestId and answer, written by a person; null takes a row out")
    ] = None,
) -> None:
    """Make the next data set from what was asked and answered; each row keeps the request that it comes from."""
    from outcrop.logs import read_filter
    from outcrop.workflows.harvest import Wanted, harvest

    storage, registry, settings = installation()
    pairs = [{"equals": {name: value}} for name, value in named(metadata or [], "--metadata").items()]
    times = [moment.replace(tzinfo=UTC) if moment is not None else None for moment in (after, before)]
    wanted = Wanted(read_filter({"andAll": pairs} if pairs else None), tuple(model or ()), *times)
    with teacher_of(teacher, endpoint, storage, registry, settings) as answers:
        done = harvest(logs, wanted, target, to, storage, registry, answers, max_tokens, near, corrections)
    out.print(
        f"{target}: {done.rows:,} rows; {target}.provenance.jsonl says where each came from",
        highlight=False,
        soft_wrap=True,
    )
    for reason, count in done.reasons.items():
        if count:
            out.print(f"{count:>9,} left out: {reason}", highlight=False, soft_wrap=True)


def _remember(
    target: Path, rows: int, made_by: str, sources: list[Any], details: dict[str, Any], provenance: str = ""
) -> None:
    """Keep what a file was made from, for the lineage of the models that will be made from it."""
    from outcrop.clock import now
    from outcrop.registry import DataSet, Origin
    from outcrop.storage import sha256_of

    _, registry, _ = installation()
    origins = [Origin(source.uri, sha256_of(source.path)) for source in sources]
    if sha256_of(target) in [origin.sha256 for origin in origins]:
        return  # nothing was changed, or a file was written over: what is known of it stays
    registry.keep_data_set(
        DataSet(
            id=sha256_of(target), uri=str(target.absolute()), rows=rows, made_by=made_by, made_at=now(), origins=origins,
            details={name: value for name, value in details.items() if value != ""}, provenance=provenance,
        )
    )  # fmt: skip


@app.command()
def synthesize(
    documents: Annotated[
        list[str],
        typer.Argument(help="files, folders or S3 prefixes of PDF, DOCX, HTML, Markdown, text, or JSONL with text"),
    ],
    folder: Annotated[
        Path,
        typer.Option("--out", help="folder for train.jsonl, validation.jsonl, test.jsonl and where each row came from"),
    ],
    teacher: Annotated[str, typer.Option(help="who writes the pairs: a model of the catalogue, or one at --endpoint")],
    endpoint: Annotated[
        str,
        typer.Option(
            help="where the teacher is: an address in OpenAI's shape (ends in /v1), bedrock, or a Bedrock's address"
        ),
    ] = "",
    pairs: Annotated[int, typer.Option(help="questions a passage", min=1, max=20)] = 3,
    passages: Annotated[
        int | None, typer.Option(help="ask about so many passages, evenly chosen; all when left out", min=1)
    ] = None,
    judge: Annotated[bool, typer.Option("--judge", help="have the teacher judge each pair besides")] = False,
    with_passage: Annotated[
        bool, typer.Option("--with-passage", help="write the passage before each question")
    ] = False,
    system: Annotated[str, typer.Option(help="system prompt of every row")] = "",
    templates: Annotated[Path | None, typer.Option(help="folder with your own pairs.txt or judge.txt")] = None,
    to: Annotated[str, typer.Option(help="form of the rows, as in convert")] = "messages",
    validation: Annotated[float, typer.Option(help="share of the rows (%), by document", min=0, max=99)] = 10,
    test: Annotated[float, typer.Option(help="share of the rows (%), by document", min=0, max=99)] = 10,
    price: Annotated[str, typer.Option(help="what a million tokens in and out cost, such as 0.25,1.25")] = "0,0",
    only_plan: Annotated[bool, typer.Option("--plan", help="say what it would take, and ask nothing")] = False,
) -> None:
    """Make questions and answers from documents: written by a teacher, kept when they are grounded, parted by document.

    What the teacher has said is kept: a second start goes on where the first ended.
    """
    from outcrop.registry import Origin
    from outcrop.storage import sha256_of
    from outcrop.synthesis import Templates
    from outcrop.workflows import synthesize as making

    storage, registry, settings = installation()
    prices = [_number(one, "--price") for one in price.split(",")]
    if len(prices) != 2:
        raise Invalid(f"--price {price}: expected two numbers, such as 0.25,1.25")
    options = making.Options(
        pairs, passages, judges=judge, with_passage=with_passage, system=system, form=to,
        shares={"train": 100 - validation - test, "validation": validation, "test": test}, price=(prices[0], prices[1]),
    )  # fmt: skip
    sources = making.sources_of(documents, storage)
    read = Templates.read(templates)
    found = making.passages_of(sources, options)
    plan = making.plan(found, read, options)
    cost = f", about {plan.cost:,.2f} at that price" if plan.cost else ""
    out.print(
        f"{plan.documents:,} documents, {plan.passages:,} passages, {plan.requests:,} requests; about {plan.input_tokens:,} tokens in and "
        f"{plan.output_tokens:,} out{cost}", highlight=False, soft_wrap=True,
    )  # fmt: skip
    if only_plan:
        return
    origins = [Origin(source.uri, sha256_of(source.path), "documents") for source in sources]
    with (
        Progress(console=Console(stderr=True)) as progress,
        teacher_of(teacher, endpoint, storage, registry, settings) as answers,
    ):
        task = progress.add_task("passages", total=len(found))
        made = making.synthesize(
            found,
            folder,
            answers,
            read,
            options,
            registry,
            origins,
            lambda done, of: progress.update(task, completed=done),
        )
    for name, rows in made.parts.items():
        out.print(f"{rows:>9,} rows: {folder / name}.jsonl", highlight=False, soft_wrap=True)
    for reason, count in made.reasons.most_common():
        out.print(f"{count:>9,} left out: {reason}", highlight=False, soft_wrap=True)
    out.print(
        f"{made.input_tokens:,} tokens in, {made.output_tokens:,} out; {folder}/rejected.jsonl has what was left out",
        highlight=False,
        soft_wrap=True,
    )


@contextlib.contextmanager
def teacher_of(name: str, endpoint: str, storage: Any, registry: Any, settings: Settings) -> Iterator[Any]:
    """Who answers: nobody, a model of the catalogue in an engine of its own, or one behind an endpoint."""
    from outcrop import synthesis
    from outcrop.workflows.answering import own_engine

    if not name:
        yield None
    elif endpoint == "bedrock":
        yield synthesis.BedrockTeacher(name)
    elif endpoint.rstrip("/").endswith("/v1"):
        yield synthesis.OpenAITeacher(name, endpoint, settings.teacher_key)
    elif endpoint:
        yield synthesis.BedrockTeacher(name, endpoint)
    else:
        with own_engine(storage, registry, settings, name, "teacher") as asking:
            yield synthesis.CatalogueTeacher(asking, name)


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
