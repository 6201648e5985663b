"""Training data made: converted, mixed, split, harvested from logs, synthesized from documents."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from outcrop.cli.installation import installation, named, out, service
from outcrop.errors import Invalid
from outcrop.settings import Settings


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
    remember(target, count, "convert", [source], {"form": to})
    out.print(f"{target}: {count:,} rows", highlight=False, soft_wrap=True)


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
    remember(target, sum(counts.values()), "mix", [source for source, _ in given], {"seed": seed, **counts}, provenance)
    for uri, count in counts.items():
        out.print(f"{count:>9,} rows of {uri}", highlight=False, soft_wrap=True)


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Invalid(f"{name}={text}: the share must be a number") from None


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
        remember(
            folder / f"{name}.jsonl", count, f"split, {name}", [source], {"by": by, "stratify": stratify, "seed": seed}
        )
        out.print(
            f"{count:>9,} rows in {parts.groups[name]:,} groups: {folder / name}.jsonl", highlight=False, soft_wrap=True
        )


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


def remember(
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
    elif endpoint:
        yield synthesis.remote_teacher(name, endpoint, settings.teacher_key)
    else:
        with own_engine(storage, registry, settings, "teacher", name) as asking:
            yield synthesis.CatalogueTeacher(asking, name)
