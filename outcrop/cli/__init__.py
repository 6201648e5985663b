"""The command line: `outcrop COMMAND`. A file a group of commands; none of them holds work of its own."""

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from outcrop import __version__
from outcrop.cli import advising, comparing, data, deployments, jobs, lineage, models, planning, watching
from outcrop.cli.installation import fail, out
from outcrop.errors import OutcropError
from outcrop.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Amazon Bedrock's model customization, on your own machines.",
)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(deployments.app, name="deployments")
app.command()(planning.plan)
app.command()(planning.sweep)
app.command()(lineage.lineage)
app.command()(comparing.compare)
app.command()(advising.advise)
app.command()(watching.watch)
app.command()(comparing.metrics)


def main() -> None:
    """Run a command; what goes wrong is said in words, with exit status 1."""
    try:
        app(standalone_mode=True)
    except OutcropError as error:
        fail(error.message)


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
    from outcrop.workflows.evaluate import Evaluate
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
        "evaluation": Evaluate(storage, registry, settings),
        "sweep": Sweep(storage, registry, settings),
    }
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    work(Jobs(storage.records), kinds, ending.is_set)


@app.command()
def env(
    openai: Annotated[bool, typer.Option("--openai", help="for OpenAI's clients instead")] = False,
) -> None:
    """Print the exports that point AWS's clients, or OpenAI's, at this installation."""
    from outcrop.keys import LocalKeys

    settings = Settings()
    keys = LocalKeys.of(settings.folder)
    file = settings.folder / "endpoint"
    scheme = "https" if settings.tls else "http"
    endpoint = file.read_text().strip() if file.exists() else f"{scheme}://{settings.host}:{settings.port}"
    if openai:
        print(f"export OPENAI_BASE_URL={endpoint}/v1\nexport OPENAI_API_KEY={keys.bearer}")
        return
    lines = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_BEDROCK_RUNTIME_ENDPOINT": endpoint,  # LiteLLM reads this one alone
        "ANTHROPIC_BEDROCK_BASE_URL": endpoint,  # and Anthropic's client this
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
