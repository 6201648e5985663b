"""The catalogue of base models, and what is tuned and imported."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from outcrop.cli.installation import open_registry, out
from outcrop.errors import Invalid

app = typer.Typer(no_args_is_help=True, help="The catalogue of base models.")


@app.command("list")
def list_models() -> None:
    """List base and custom models."""
    registry = open_registry()
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


@app.command()
def add(
    model_id: Annotated[str, typer.Argument(help="Bedrock id, such as meta.llama3-2-1b-instruct-v1:0")],
    source: Annotated[
        str, typer.Option("--from", help="a folder in Hugging Face layout, or a hub id such as owner/name")
    ],
) -> None:
    """Add a base model to the catalogue."""
    model = open_registry().add_base(model_id, source)
    out.print(f"{model.id}: {model.architecture}, {model.num_parameters:,} parameters, context {model.context:,}")


@app.command()
def alias(
    model_id: Annotated[str, typer.Argument(help="the id that scripts use")],
    target: Annotated[str, typer.Argument(help="the catalogue's id that is meant")],
) -> None:
    """Let one id mean another's weights, so that a script that names an AWS model runs on yours."""
    model = open_registry().alias_base(model_id, target)
    out.print(f"{model.id} now means {model.alias_of}")


@app.command()
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

    registry = open_registry()
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


@app.command()
def remove(model_id: Annotated[str, typer.Argument(help="the catalogue's id")]) -> None:
    """Take a base model out of the catalogue; its files stay."""
    open_registry().remove_base(model_id)
    out.print(f"{model_id} is removed from the catalogue")
