"""From a folder in S3 to a model that answers: looked into, tried out, taken in."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outcrop.clock import now
from outcrop.errors import Invalid, OutcropError
from outcrop.jobs import Job, Tell
from outcrop.jobs.children import python_child
from outcrop.machine import idle_cpus
from outcrop.registry import BaseModel, ImportedModel, Registry, embedding
from outcrop.registry.base_models import read_config
from outcrop.registry.embedding import pooling_of
from outcrop.registry.intake import Intake, look_into
from outcrop.storage import Storage
from outcrop.workflows.folders import copy_folder

# What trying out may take; loading a model of some gigabytes takes a minute or two.
TEMPLATE_S, SMOKE_S = 60, 3600


@dataclass(frozen=True)
class ImportModel:
    """The work of an import job."""

    storage: Storage
    registry: Registry

    def __call__(self, job: Job, tell: Tell) -> None:
        """Copy, look into, try, register. Raises Invalid that names the file and what is wrong with it."""
        request = job.request
        folder = self.storage.run_folder(job.id) / "model"
        try:
            copy_folder(self.storage, request["source_uri"], folder)
            tell.check()
            found = look_into(folder)
            base = self.registry.base_of_adapter(found.base) if found.base else None
            if found.is_encoder:
                tried = self._try_encoder(folder, found)
                model = self._model(job, found, None, False, tried)
                tell.check()
                self.registry.take_in(model, folder)
                tell.event(kind="tried", sample=model.sample)
                tell.result(model_arn=model.arn)
                return
            below = self.registry.weights_of(base) if base else folder
            told = _ask("outcrop.rendering", [str(below)], TEMPLATE_S, "the chat template or tokenizer")
            tell.check()
            adapter = [str(folder)] if base else []
            tried = _ask("outcrop.serving.engines.smoke", [str(below), *adapter], SMOKE_S, "the model")
            model = self._model(job, found, base, bool(told["has_template"]), tried)
            tell.check()
            self.registry.take_in(model, folder)
        except OutcropError as error:
            raise Invalid(f"{request['source_uri']}: {error.message}") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        note = "it writes gibberish, or no English" if model.is_gibberish else ""
        tell.event(kind="tried", loss=model.loss, uniform_loss=model.uniform_loss, sample=model.sample, note=note)
        tell.result(model_arn=model.arn)

    @staticmethod
    def _try_encoder(folder: Path, found: Intake) -> dict[str, Any]:
        stated = folder / "pooling.json"
        pooling = pooling_of(
            read_config(folder), json.loads(stated.read_text()) if stated.is_file() else {}, found.context
        )
        (folder / embedding.FILE).write_bytes(msgspec.json.encode(pooling))
        told = _ask("outcrop.serving.engines.embedding_engine", ["try", str(folder)], SMOKE_S, "the model")
        sample = (
            f"{told['dimensions']} dimensions, {pooling.how} of the tokens; what is alike scores {told['alike']:.2f}, "
        )
        return {"loss": 0.0, "uniform_loss": 0.0, "sample": sample + f"what is not {told['unlike']:.2f}"}

    def _model(
        self, job: Job, found: Intake, base: BaseModel | None, has_template: bool, tried: dict[str, Any]
    ) -> ImportedModel:
        return ImportedModel(
            id=job.request["model_id"], arn=job.request["model_arn"], name=job.request["model_name"],
            kind="adapter" if base else "embedding" if found.is_encoder else "whole", base=base.id if base else "",
            architecture=base.architecture if base else found.architecture, num_parameters=found.num_parameters,
            context=base.context if base else found.context, has_template=has_template, created_at=now(), job_arn=job.arn,
            job_name=job.name, source_uri=job.request["source_uri"], loss=tried["loss"], uniform_loss=tried["uniform_loss"],
            sample=tried["sample"], tags=job.request["model_tags"],
        )  # fmt: skip


def _ask(module: str, arguments: list[str], most_s: float, what: str) -> dict[str, Any]:
    """What a child process prints as its last line. Raises Invalid with its reason, or when it takes too long or dies."""
    with tempfile.TemporaryFile() as log:
        child = python_child(module, arguments, log, {"OMP_NUM_THREADS": str(idle_cpus())})
        until = time.monotonic() + most_s
        try:
            child.wait(most_s)
        except subprocess.TimeoutExpired:
            raise Invalid(f"{what} was not ready after {most_s:.0f} s") from None
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    with contextlib.suppress(ValueError, IndexError):
        said = json.loads(lines[-1])
        if isinstance(said, dict) and "reason" in said:
            raise Invalid(str(said["reason"]))
        if isinstance(said, dict) and child.returncode == 0:
            return said
    took_too_long = child.returncode < 0 and time.monotonic() < until
    why = "took more processor time or memory than is allowed" if took_too_long else f"ended with {child.returncode}"
    raise Invalid(f"{what} {why}: {' | '.join(lines[-3:])}"[:1500])
