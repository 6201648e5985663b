"""Deployments and provisioned throughput."""

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from outcrop.cli.installation import fail, out
from outcrop.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Deployments and provisioned throughput.")


def _serving() -> Any:
    from outcrop.server import make_service
    from outcrop.storage import Storage

    settings = Settings()
    return make_service(settings, Storage(settings.folder)).serving


@app.command("list")
def list_deployments() -> None:
    """List deployments and provisioned throughput, with what was proven of each."""
    serving = _serving()
    table = Table("name", "model", "status", "proven", "why", show_edge=False)
    for one in (*serving.provisioned.all(), *serving.deployments.all()):
        table.add_row(
            one.name, one.model_arn, one.status, one.certificate.verdict if one.certificate else "", one.failure
        )
    out.print(table)


@app.command("show")
def show_deployment(name: Annotated[str, typer.Argument(help="a name, id or ARN")]) -> None:
    """Show what was proven of a deployment when it was brought up. Exit status 1 when nothing was."""
    serving = _serving()
    one = serving.find_deployment(name) or serving.find_provisioned(name)
    if one is None:
        fail(f"there is no deployment or provisioned throughput {name!r}")
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
