"""What made a model: its base, its rows, who answered them, the settings; and of each file whether it is still the same."""

from pathlib import Path
from typing import Any

import msgspec

from outcrop.registry.custom_models import CustomModel
from outcrop.registry.data_sets import DataSet, Origin
from outcrop.registry.registry import Registry
from outcrop.storage import Objects, sha256_of

# A data set may be made from others; a chain that is longer has gone astray.
DEEPEST = 20


class Node(msgspec.Struct, frozen=True):
    """A thing that something was made from; `kind` is model, base, settings, data, teacher, logs or documents."""

    kind: str
    title: str
    details: list[tuple[str, str]]
    sources: list["Node"] = []
    provenance: str = ""


def trace(registry: Registry, objects: Objects, model: CustomModel, depth: int = 0) -> Node:
    """A custom model with all that it was made from, as far as it is known."""
    lineage = model.lineage
    sources = [_settings(model)]
    parent = registry.find_custom(model.parent) if model.parent and depth < DEEPEST else None
    if parent is not None:
        sources.append(trace(registry, objects, parent, depth + 1))
    else:
        sources.append(_base(model))
    if "training_data" in lineage:
        sources.append(_data(registry, objects, "training data", lineage["training_data"], lineage.get("distillation")))
    sources += [_data(registry, objects, "validation data", one) for one in lineage.get("validation_data", [])]
    losses = [f"training loss {model.training_loss:.4f}"] if model.training_loss is not None else []
    losses += [f"validation loss {loss:.4f}" for loss in model.validation_losses]
    details = [
        ("made", f"{model.created_at:%Y-%m-%d %H:%M} UTC, {model.customization}, {model.kind}"),
        ("steps", f"{lineage['steps']:,} steps, {lineage['tokens']:,} tokens" if "steps" in lineage else "unknown"),
        ("losses", ", ".join(losses) or "unknown"),
        ("arn", model.arn),
    ]
    return Node("model", f"model {model.name}", details, sources)


def _settings(model: CustomModel) -> Node:
    lineage = model.lineage
    software = lineage.get("software", {})
    said = [(name, str(value)) for name, value in model.hyperparameters.items()]
    said += [(name, str(value)) for name, value in software.items()]
    return Node("settings", f"settings, Outcrop {lineage.get('outcrop', '?')}", said)


def _base(model: CustomModel) -> Node:
    lineage = model.lineage
    details = [("renderer", _short(lineage.get("renderer", ""))), ("weights", _short(lineage.get("base_sha256", "")))]
    return Node("base", f"base {lineage.get('base', model.base)}", [(name, said) for name, said in details if said])


def _data(
    registry: Registry,
    objects: Objects,
    what: str,
    file: dict[str, Any],
    distillation: dict[str, Any] | None = None,
    depth: int = 0,
) -> Node:
    sha256 = file.get("sha256", "")
    known = registry.find_data_set(sha256) if depth < DEEPEST else None
    details = [
        ("rows", f"{file['rows']:,}" if file.get("rows") else ""),
        ("sha256", _short(sha256)),
        ("now", state_of(objects, file["uri"], sha256)),
    ]
    if known is not None:
        details.append(("made by", f"{known.made_by}, {known.made_at:%Y-%m-%d %H:%M} UTC"))
        details += [(name, str(value)) for name, value in known.details.items() if name != "teacher"]
    sources = _origins(registry, objects, known, depth) if known is not None else []
    teacher = (known.details.get("teacher") if known is not None else "") or (distillation or {}).get("teacher", "")
    if teacher:
        sources.insert(0, Node("teacher", f"teacher {teacher}", []))
    return Node(
        "data",
        f"{what} {file['uri']}",
        [(name, said) for name, said in details if said],
        sources,
        known.provenance if known else "",
    )


def _origins(registry: Registry, objects: Objects, made: DataSet, depth: int) -> list[Node]:
    return [
        _data(registry, objects, one.what, {"uri": one.uri, "sha256": one.sha256}, depth=depth + 1)
        if one.what == "file"
        else Node(
            one.what, f"{one.what} {one.uri}", [(name, said) for name, said in [("sha256", _short(one.sha256))] if said]
        )
        for one in made.origins
    ]


def state_of(objects: Objects, uri: str, sha256: str) -> str:
    """ "unchanged", "changed" or "gone": a file as it is now against its hash."""
    path: Path | None = Path(uri)
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        stored = objects.get(bucket, key)
        path = stored.path if stored is not None else None
    if path is None or not path.is_file():
        return "gone"
    return "unchanged" if not sha256 or sha256_of(path) == sha256 else "changed"


def _short(sha256: str) -> str:
    return sha256[:12]


__all__ = ["DataSet", "Node", "Origin", "state_of", "trace"]
