"""The command line."""

import json
import logging
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from outcrop import __version__
from outcrop.errors import Invalid, OutcropError
from outcrop.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Amazon Bedrock's model customization, on your own machines.",
)
models_app = typer.Typer(no_args_is_help=True, help="The catalogue of base models.")
jobs_app = typer.Typer(no_args_is_help=True, help="Customization jobs.")
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
deployments_app = typer.Typer(no_args_is_help=True, help="Deployments and provisioned throughput.")
app.add_typer(deployments_app, name="deployments")
out = Console()


def main() -> None:
    """Run a command; what goes wrong is said in words, with exit status 1."""
    try:
        app(standalone_mode=True)
    except OutcropError as error:
        _fail(error.message)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"[red]outcrop:[/red] {message}", highlight=False, soft_wrap=True)
    sys.exit(1)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="port to listen on; 0 takes a free one")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    tls: Annotated[bool | None, typer.Option("--tls/--no-tls", help="serve https with a local certificate")] = None,
    open_: Annotated[
        bool | None, typer.Option("--open/--signed", help="accept any credentials, on loopback only")
    ] = None,
) -> None:
    """Serve Bedrock, S3, STS and IAM on one port."""
    from outcrop.server import serve as run

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    said: dict[str, Any] = {"port": port, "host": host, "tls": tls, "open": open_}
    run(Settings(**{name: value for name, value in said.items() if value is not None}))


@app.command()
def worker() -> None:
    """Run jobs; `outcrop serve` starts one by itself."""
    from outcrop.jobs import Jobs, Work, work
    from outcrop.registry import Registry
    from outcrop.storage import Storage
    from outcrop.workflows.batch import Batch
    from outcrop.workflows.create_custom_model import CreateCustomModel
    from outcrop.workflows.customize import Customize
    from outcrop.workflows.import_model import ImportModel
    from outcrop.workflows.sweep import Sweep

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings()
    storage = Storage(settings.folder)
    registry = Registry(storage)
    kinds: dict[str, Work] = {
        "customization": Customize(storage, registry, settings),
        "create-custom-model": CreateCustomModel(storage, registry),
        "import": ImportModel(storage, registry),
        "batch": Batch(storage, registry, settings),
        "sweep": Sweep(storage, registry, settings),
    }
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    work(Jobs(storage.records), kinds, ending.is_set)


@app.command()
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

    planned = find_out(file, validation or [], base, _named(set_ or [], "--set"), text, *_installation())
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


def _named(said: list[str], option: str) -> dict[str, str]:
    """name=value, one by one. Raises Invalid."""
    found = {}
    for one in said:
        name, mark, value = one.partition("=")
        if not mark or not value:
            raise Invalid(f"{option} {one}: expected name=value, such as batchSize=8")
        found[name] = value
    return found


@app.command()
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

    values = {name: text.split(",") for name, text in _named(grid or [], "--grid").items()}
    ranges = {name: _bounds(name, text) for name, text in _named(range_ or [], "--range").items()}

    def tell(trial: Trial) -> None:
        out.print(f"{_said(trial.hyperparameters)}: {_loss(trial)}, {trial.seconds:.0f} s", highlight=False)

    def _said(hyperparameters: dict[str, str]) -> str:
        return ", ".join(f"{name} {value}" for name, value in hyperparameters.items())

    def _loss(trial: Trial) -> str:
        if trial.loss is None:
            return f"failed: {trial.failure}"
        return f"{trial.loss:.4f}{' (stopped: it was losing)' if trial.was_stopped else ''}"

    given, space = _named(set_ or [], "--set"), Space(values, ranges, trials)
    ranked = Sweep(*_installation()).files(file, validation or [], base, given, space, folder, tell, at_once)
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


@app.command()
def env() -> None:
    """Print the exports that point AWS's clients at this installation."""
    from outcrop.keys import LocalKeys

    settings = Settings()
    keys = LocalKeys.of(settings.folder)
    file = settings.folder / "endpoint"
    scheme = "https" if settings.tls else "http"
    endpoint = file.read_text().strip() if file.exists() else f"{scheme}://{settings.host}:{settings.port}"
    lines = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_REGION": settings.region,
        "AWS_DEFAULT_REGION": settings.region,
    }
    if endpoint.startswith("https"):
        lines["AWS_CA_BUNDLE"] = str(settings.folder / "tls-certificate.pem")
        lines["NODE_EXTRA_CA_CERTS"] = lines["AWS_CA_BUNDLE"]
        print(f"# or, for bedrock and bedrock-runtime alone: export AWS_BEARER_TOKEN_BEDROCK={keys.bearer}")
    for name, value in lines.items():
        print(f"export {name}={value}")
    print("unset AWS_SESSION_TOKEN AWS_PROFILE")


@app.command()
def doctor() -> None:
    """Look at this machine and say what works and what is missing."""
    from outcrop.doctor import examine

    table = Table("", "what", "found", show_edge=False)
    findings = examine(Settings())
    for finding in findings:
        table.add_row({"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "bad": "[red]bad[/red]"}[finding.verdict],
                      finding.what, finding.found)  # fmt: skip
    out.print(table)
    if any(finding.verdict == "bad" for finding in findings):
        sys.exit(1)


@app.command()
def demo(
    page: Annotated[Path, typer.Option(help="where to write the HTML page")] = Path("outcrop-demo.html"),
    rows: Annotated[int, typer.Option(help="held-out rows that base and tuned model answer", min=20, max=2000)] = 200,
    keep: Annotated[bool, typer.Option(help="keep the private installation's folder")] = False,
) -> None:
    """Fine-tune, deploy, ask and compare, on a private server, in under three minutes."""
    from outcrop.demo.run import run_demo

    run_demo(page, rows, keep)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


# --- models ---------------------------------------------------------------------------------------------------------


def _registry() -> Any:
    return _installation()[1]


def _installation() -> tuple[Any, Any, Settings]:
    """Storage, registry, settings."""
    from outcrop.registry import Registry
    from outcrop.storage import Storage

    settings = Settings()
    storage = Storage(settings.folder)
    return storage, Registry(storage), settings


@models_app.command("list")
def list_models() -> None:
    """List base and custom models."""
    registry = _registry()
    table = Table("id", "parameters", "context", "source", show_edge=False)
    for model in registry.base_models():
        source = f"alias of {model.alias_of}" if model.alias_of else model.source
        table.add_row(model.id, f"{model.num_parameters:,}", f"{model.context:,}", source)
    for model in registry.imported.all():
        known = "adapter on " + model.base if model.base else model.architecture
        note = "; it writes gibberish, or no English" if model.is_gibberish else ""
        table.add_row(model.name, f"{model.num_parameters:,}", f"{model.context:,}", f"imported, {known}{note}")
    for model in registry.custom.all():
        table.add_row(model.name, "", "", f"custom, from {model.base} ({model.status})")
    out.print(table)


@models_app.command()
def add(
    model_id: Annotated[str, typer.Argument(help="Bedrock id, such as meta.llama3-2-1b-instruct-v1:0")],
    source: Annotated[
        str, typer.Option("--from", help="a folder in Hugging Face layout, or a hub id such as owner/name")
    ],
) -> None:
    """Add a base model to the catalogue."""
    model = _registry().add_base(model_id, source)
    out.print(f"{model.id}: {model.architecture}, {model.num_parameters:,} parameters, context {model.context:,}")


@models_app.command()
def alias(
    model_id: Annotated[str, typer.Argument(help="the id that scripts use")],
    target: Annotated[str, typer.Argument(help="the catalogue's id that is meant")],
) -> None:
    """Let one id mean another's weights, so that a script that names an AWS model runs on yours."""
    model = _registry().alias_base(model_id, target)
    out.print(f"{model.id} now means {model.alias_of}")


@models_app.command()
def export(
    model: Annotated[str, typer.Argument(help="a custom model's name or ARN, or a base model's id")],
    folder: Annotated[Path, typer.Option("--out", help="a folder that does not exist yet")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    adapter: Annotated[bool, typer.Option("--adapter", help="the adapter by itself, in PEFT's layout")] = False,
) -> None:
    """Write a model as a whole in Hugging Face's layout, adapters merged; its logits are checked against what it was.

    A tuned model gets a card: its data, its settings, its losses, and how vLLM and llama.cpp serve it.
    """
    from outcrop.registry.card import ADAPTER, WHOLE, card

    registry = _registry()
    weights = registry.weights(model)
    custom = registry.find_custom(model)

    def write_card(form: str) -> None:
        if custom is not None:
            base = registry.base(custom.base)
            text = card(custom, base.source, base.architecture, form, dtype)
            (folder / "README.md").write_text(text, encoding="utf-8")

    if adapter:
        if weights.adapter is None:
            raise Invalid(f"{model} is a whole model; leave --adapter out")
        shutil.copytree(weights.adapter, folder)
        write_card(ADAPTER)
        out.print(f"{folder}: adapter for {weights.folder}", highlight=False, soft_wrap=True)
        return
    from outcrop.registry.merge import merge

    checked = merge(weights.folder, weights.adapter, folder, dtype)
    registry.complete(folder, weights.folder)
    write_card(WHOLE)
    out.print(
        f"{folder}: {dtype}, largest logit difference {checked.difference:.1e} of their standard deviation, "
        f"{checked.same_choice:.0%} of the likeliest tokens the same",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@models_app.command()
def remove(model_id: Annotated[str, typer.Argument(help="the catalogue's id")]) -> None:
    """Take a base model out of the catalogue; its files stay."""
    _registry().remove_base(model_id)
    out.print(f"{model_id} is removed from the catalogue")


# --- deployments ----------------------------------------------------------------------------------------------------


def _serving() -> Any:
    from outcrop.server import make_service
    from outcrop.storage import Storage

    settings = Settings()
    return make_service(settings, Storage(settings.folder)).serving


@deployments_app.command("list")
def list_deployments() -> None:
    """List deployments and provisioned throughput, with what was proven of each."""
    serving = _serving()
    table = Table("name", "model", "status", "proven", "why", show_edge=False)
    for one in (*serving.provisioned.all(), *serving.deployments.all()):
        table.add_row(
            one.name, one.model_arn, one.status, one.certificate.verdict if one.certificate else "", one.failure
        )
    out.print(table)


@deployments_app.command("show")
def show_deployment(name: Annotated[str, typer.Argument(help="a name, id or ARN")]) -> None:
    """Show what was proven of a deployment when it was brought up. Exit status 1 when nothing was."""
    serving = _serving()
    one = serving.find_deployment(name) or serving.find_provisioned(name)
    if one is None:
        _fail(f"there is no deployment or provisioned throughput {name!r}")
    table = Table("", "", show_header=False, show_edge=False)
    table.add_row("model", one.model_arn)
    table.add_row("status", f"{one.status} {one.failure}".strip())
    found = one.certificate
    if found is not None:
        table.add_row("verdict", "proven: what is served is what was trained" if found.verdict == "proven" else "unproven: the "
                      "weights bring no probes")  # fmt: skip
        table.add_row("renderer", found.renderer)
        if found.probes:
            table.add_row("probes", f"{found.probes}; their losses differ from the trainer's by {found.worst:.1e} at most, and "
                          f"from the base's by {found.from_base:.1%}")  # fmt: skip
    out.print(table)
    if found is None or found.verdict != "proven":
        sys.exit(1)


# --- jobs -----------------------------------------------------------------------------------------------------------


def _jobs() -> Any:
    from outcrop.jobs import Jobs
    from outcrop.storage import Storage

    return Jobs(Storage(Settings().folder).records)


@jobs_app.command("list")
def list_jobs() -> None:
    """List customization jobs."""
    table = Table("job", "status", "model", "created", "why", show_edge=False)
    for job in _jobs().all("customization"):
        table.add_row(
            job.name, job.status, job.request["model_name"], f"{job.created_at:%Y-%m-%d %H:%M:%S}", job.failure
        )
    out.print(table)


@jobs_app.command()
def watch(
    name: Annotated[str, typer.Argument(help="a job's name or ARN")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Follow a job until it ends: steps, losses, tokens a second, time left. Exit status 1 when it fails."""
    jobs = _jobs()
    seen = 0
    while True:
        job = jobs.find("customization", name)
        if job is None:
            _fail(f"there is no job {name!r}; `outcrop jobs list` shows what there is")
        for event in jobs.events(job.id, seen):
            seen = event["number"]
            print(json.dumps(event) if as_json else _told(event), flush=True)
        if job.ended_at is not None and not jobs.events(job.id, seen):
            sys.exit(0 if job.status == "Completed" else 1)
        time.sleep(0.3)


@jobs_app.command()
def stop(name: Annotated[str, typer.Argument(help="a job's name or ARN")]) -> None:
    """Stop a job; its best checkpoint is kept as the custom model."""
    jobs = _jobs()
    job = jobs.find("customization", name)
    if job is None:
        _fail(f"there is no job {name!r}")
    out.print(f"{job.name} is {jobs.stop(job).status}")


@jobs_app.command()
def resume(name: Annotated[str, typer.Argument(help="a job's name or ARN")]) -> None:
    """Go on with a job that was stopped or failed, from its last kept step."""
    from outcrop.api.customization import resume as resume_job
    from outcrop.server import make_service
    from outcrop.storage import Storage

    settings = Settings()
    job = resume_job(name, make_service(settings, Storage(settings.folder)))
    out.print(f"{job.name} is {job.status}")


def rehearsed(event: dict[str, Any]) -> str:
    """What a run will take, in a line."""
    shared = 1 - event["computed_tokens"] / event["tokens"]
    return (
        f"plan: {event['steps']} steps, {event['tokens']:,} tokens ({shared:.0%} of them shared), "
        f"about {event['seconds']:.0f} s +- {event['seconds_error']:.0f}, {event['memory_bytes'] / 1e9:.2f} GB"
    )


def _told(event: dict[str, Any]) -> str:
    """An event as a line for people."""
    at = event["at"][11:19]
    match event["kind"]:
        case "step":
            left = f"{event['seconds_left']:.0f} s left"
            return (
                f"{at}  step {event['step']}/{event['steps']}  epoch {event['epoch'] + 1}  loss {event['loss']:.4f}  "
                f"{event['tokens_per_s']:,.0f} tokens/s  {left}"
            )
        case "evaluation":
            losses = ", ".join(f"{loss:.4f}" for loss in event["losses"])
            said = f"  validation loss {losses}{'  (best so far)' if event['is_best'] else ''}" if losses else ""
            general = event.get("general_loss")
            return f"{at}  step {event['step']}{said}{f'  general loss {general:.4f}' if general is not None else ''}"
        case "rehearsal":
            return f"{at}  {rehearsed(event)}"
        case "phase":
            return f"{at}  {event['phase']}: {event['status']}"
        case "ended":
            return f"{at}  {event['status']}{': ' + event['reason'] if event['reason'] else ''}"
        case kind:
            rest = ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("kind", "number", "at"))
            return f"{at}  {kind}: {rest}"
