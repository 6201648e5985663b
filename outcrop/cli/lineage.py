"""What made a model."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.tree import Tree

from outcrop.cli.installation import installation, out

COLORS = {
    "model": "green",
    "base": "default",
    "settings": "dim",
    "data": "blue",
    "teacher": "magenta",
    "logs": "yellow",
    "documents": "yellow",
}


def lineage(
    model: Annotated[str, typer.Argument(help="a custom model's name or ARN")],
    html: Annotated[Path | None, typer.Option(help="write a page with the picture here")] = None,
    rows: Annotated[int, typer.Option(help="show where so many rows of each made data set came from", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="make it again from its lineage, and compare the bytes")
    ] = False,
) -> None:
    """Draw which rows, prompts, teacher and settings made a model, and whether each file is still the same.

    With --rebuild, exit status 1 when the bytes differ.
    """
    from outcrop.registry.lineage import trace
    from outcrop.registry.picture import page

    storage, registry, settings = installation()
    found = registry.custom_model(model)
    node = trace(registry, storage.objects, found)
    if as_json:
        print(msgspec.json.encode(node).decode())
    else:
        out.print(_tree(node, storage, rows))
    if html is not None:
        html.write_text(page(node), encoding="utf-8")
    if rebuild:
        from outcrop.workflows.rebuild import rebuild as make_again

        made = make_again(found, storage, registry, settings)
        for name, is_same in made.files.items():
            out.print(
                f"{name}: {'[green]the same bytes[/green]' if is_same else '[red]other bytes[/red]'}", highlight=False
            )
        for name, (before, now) in made.differs.items():
            out.print(f"{name} was {before} and is {now}: other bytes are to be expected", highlight=False)
        if not made.is_same:
            sys.exit(1)


def _tree(node: Any, storage: Any, rows: int, parent: Tree | None = None) -> Tree:
    label = f"[bold {COLORS[node.kind]}]{escape(node.title)}[/]"
    if node.kind == "settings":
        label += "  " + escape(", ".join(f"{name} {said}" for name, said in node.details))
    else:
        label += "".join(f"\n[dim]{name}[/dim] {escape(said)}" for name, said in node.details)
    for line in _provenance(storage, node.provenance, rows):
        label += f"\n[dim]{escape(line)}[/dim]"
    tree = Tree(label) if parent is None else parent.add(label)
    for source in node.sources:
        _tree(source, storage, rows, tree)
    return tree


def _provenance(storage: Any, uri: str, rows: int) -> list[str]:
    """The first rows of a data set, each with where it came from."""
    from outcrop.datasets.source import open_file, read_lines
    from outcrop.errors import Invalid

    if not uri or not rows:
        return []
    try:
        lines = read_lines(open_file(storage.objects, uri))
    except Invalid as error:
        return [error.message]
    return [f"row {number}: {line.decode().strip()}" for (number, line), _ in zip(lines, range(rows), strict=False)]
