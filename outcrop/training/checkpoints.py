"""Weights that can be deployed: whole or not at all."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from outcrop.training.lora import save_adapters
from outcrop.training.model import Trainee
from outcrop.training.plan import PROBES, Probe

FOLDER = "checkpoints"


class Checkpoints:
    """checkpoints/step-N under a run's directory."""

    def __init__(self, directory: Path, trainee: Trainee, base: str) -> None:
        self._folder, self._trainee, self._base = directory / FOLDER, trainee, base

    def write(self, step: int, probes: Sequence[Probe] = ()) -> str:
        """Write the weights as they are now, and beside them what probes cost them; answers with the folder, relative to the run's directory.

        The folder appears under its name only when every byte is on the disk.
        """
        unfinished = self._folder / f"unfinished-{step}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if self._trainee.adapters:
            save_adapters(self._trainee.adapters, unfinished, self._base)
        else:
            self._trainee.model.save_pretrained(unfinished, state_dict=self._trainee.state())
        if probes:
            (unfinished / PROBES).write_bytes(msgspec.json.encode(probes))
        for path in unfinished.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        finished = self._folder / f"step-{step:07d}"
        shutil.rmtree(finished, ignore_errors=True)
        unfinished.rename(finished)
        return f"{FOLDER}/{finished.name}"

    def keep_only(self, names: Iterable[str | None]) -> None:
        """Remove all checkpoints but these."""
        kept = {Path(name).name for name in names if name is not None}
        for folder in self._folder.glob("step-*"):
            if folder.name not in kept:
                shutil.rmtree(folder)
