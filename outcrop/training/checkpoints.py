"""What is kept of a run: the best weights, whole or not at all."""

import os
import shutil
from pathlib import Path

from transformers import PreTrainedModel

from outcrop.training.lora import LoraLinear, save_adapters

FOLDER = "checkpoints"


class Checkpoints:
    """Writes checkpoints/step-N and keeps only the newest one written.

    The loop writes one when a step is the best so far, so the newest is the best.
    """

    def __init__(self, directory: Path, model: PreTrainedModel, adapters: dict[str, LoraLinear], base: str) -> None:
        self._folder = directory / FOLDER
        self._model, self._adapters, self._base = model, adapters, base

    def keep(self, step: int) -> str:
        """Write the weights as they are now; answers with the folder, relative to the run's directory.

        The folder appears under its name only when every byte is on the disk.
        """
        unfinished = self._folder / f"unfinished-{step}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if self._adapters:
            save_adapters(self._adapters, unfinished, self._base)
        else:
            self._model.save_pretrained(unfinished)
        for path in unfinished.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        finished = self._folder / f"step-{step:07d}"
        shutil.rmtree(finished, ignore_errors=True)
        unfinished.rename(finished)
        for other in self._folder.glob("step-*"):
            if other != finished:
                shutil.rmtree(other)
        return f"{FOLDER}/{finished.name}"
