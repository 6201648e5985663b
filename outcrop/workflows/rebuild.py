"""A model made again from its lineage, and held against what it was."""

import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from outcrop import datasets, hyperparameters
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.datasets.source import open_file
from outcrop.errors import Invalid
from outcrop.jobs.children import tail
from outcrop.registry import CustomModel, Registry
from outcrop.registry.lineage import state_of
from outcrop.rendering import Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage, sha256_of
from outcrop.training import Plan, Result
from outcrop.workflows.customize import weights_sha256
from outcrop.workflows.preparation import Checked, Preparation, training_child

# What a rebuilt run may take: as much as the first one did, so that it is cut in the same way.
ANY_MEMORY = 1 << 60


@dataclass(frozen=True)
class Rebuilt:
    """The files of the weights, each with whether it is the same byte for byte; and what the software was and is."""

    files: dict[str, bool]
    differs: dict[str, tuple[str, str]]

    @property
    def is_same(self) -> bool:
        """Whether every file is."""
        return all(self.files.values())


def rebuild(model: CustomModel, storage: Storage, registry: Registry, settings: Settings) -> Rebuilt:
    """Train a model again from what its lineage says, in a folder that is then removed.

    The same bytes can be expected where processor, torch and threads are those of the first time; `differs` says what is not.
    Raises Invalid when something that made it is no longer what it was, or was not written down.
    """
    lineage: dict[str, Any] = model.lineage
    if "request" not in lineage or "software" not in lineage:
        raise Invalid(
            f"{model.name} was made by an older Outcrop, or elsewhere: its lineage does not say enough to make it again"
        )
    if lineage["status"] != "completed":
        raise Invalid(f"the job of {model.name} was stopped at step {lineage['steps']}; a rebuild would go to its end")
    _check_files(lineage, storage)
    base, request, software = lineage["base"], lineage["request"], lineage["software"]
    weights = registry.weights(base)
    if weights_sha256(weights) != lineage["base_sha256"]:
        raise Invalid(f"the weights of {base} are no longer those that {model.name} was tuned from")
    renderer = Renderer(weights.folder)
    if renderer.hash != lineage["renderer"]:
        raise Invalid(f"the tokenizer or chat template of {base} is no longer the one that {model.name} was tuned with")
    options = hyperparameters.read(request["hyperParameters"], request["num_parameters"], model.customization)
    checked = _read(lineage, options, model.customization, storage)
    with tempfile.TemporaryDirectory(prefix="rebuild-", dir=storage.folder / "runs") as name:
        run = Path(name)
        laid = Preparation.of(storage, registry, settings).lay_down(
            checked, renderer, options, {**request, "base": base}, run
        )
        laid.rows.release()
        plan = msgspec.structs.replace(
            laid.plan, threads=software["threads"], processes=software["processes"], device=software["device"], memory_bytes=ANY_MEMORY,
            settings=msgspec.structs.replace(laid.plan.settings, microbatch_tokens=software["microbatch_tokens"]),
        )  # fmt: skip
        plan.write(run)
        with training_child(run, plan) as child:
            child.wait()
        result = Result.read(run)
        if result is None or result.checkpoint is None:
            raise Invalid(
                f"the training ended without weights: {result.reason if result else tail(run / 'training.log')}"
            )
        made = run / result.checkpoint
        if Plan.read(run).settings.method == "full":
            registry.complete(made, weights.folder)
        kept = storage.artifact(model.id)
        files = {
            path.name: (made / path.name).is_file() and sha256_of(made / path.name) == sha256_of(path)
            for path in sorted(kept.iterdir())
        }
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return Rebuilt(files, _differences(software))


def _check_files(lineage: dict[str, Any], storage: Storage) -> None:
    for file in (lineage["training_data"], *lineage["validation_data"]):
        state = state_of(storage.objects, file["uri"], file["sha256"])
        if state != "unchanged":
            raise Invalid(f"{file['uri']} is {state}; the model was made from the file with SHA-256 {file['sha256']}")


def _read(lineage: dict[str, Any], options: dict[str, Any], customization: str, storage: Storage) -> Checked:
    forms = PLAIN_TEXT if customization == "CONTINUED_PRE_TRAINING" else SUPERVISED

    def opened(uri: str) -> datasets.Source:
        return open_file(storage.objects, uri)

    files = datasets.Files(
        opened(lineage["training_data"]["uri"]), tuple(opened(one["uri"]) for one in lineage["validation_data"])
    )
    found = datasets.preflight(files, forms, compares=False)
    found.refuse()
    general = options["generalValidationS3Uri"]
    return Checked(
        found,
        datasets.preflight(datasets.Files(opened(str(general))), (*SUPERVISED, *PLAIN_TEXT), compares=False).reports[0] if general else None,
    )  # fmt: skip


def _differences(software: dict[str, Any]) -> dict[str, tuple[str, str]]:
    now = {"torch": version("torch"), "machine": platform.machine()}
    return {name: (str(software[name]), said) for name, said in now.items() if software.get(name) != said}
