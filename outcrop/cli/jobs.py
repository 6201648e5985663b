"""Customization jobs."""

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from outcrop.cli.installation import fail, out
from outcrop.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Customization jobs.")


def _jobs() -> Any:
    from outcrop.jobs import Jobs
    from outcrop.storage import Storage

    return Jobs(Storage(Settings().folder).records)


@app.command("list")
def list_jobs() -> None:
    """List customization jobs."""
    table = Table("job", "status", "model", "created", "why", show_edge=False)
    for job in _jobs().all("customization"):
        table.add_row(
            job.name, job.status, job.request["model_name"], f"{job.created_at:%Y-%m-%d %H:%M:%S}", job.failure
        )
    out.print(table)


@app.command()
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
            fail(f"there is no job {name!r}; `outcrop jobs list` shows what there is")
        for event in jobs.events(job.id, seen):
            seen = event["number"]
            print(json.dumps(event) if as_json else _told(event), flush=True)
        if job.ended_at is not None and not jobs.events(job.id, seen):
            sys.exit(0 if job.status == "Completed" else 1)
        time.sleep(0.3)


@app.command()
def stop(name: Annotated[str, typer.Argument(help="a job's name or ARN")]) -> None:
    """Stop a job; its best checkpoint is kept as the custom model."""
    jobs = _jobs()
    job = jobs.find("customization", name)
    if job is None:
        fail(f"there is no job {name!r}")
    out.print(f"{job.name} is {jobs.stop(job).status}")


@app.command()
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
