"""What a run must remember to go on as if it had never been interrupted."""

import os
import threading
import time
from pathlib import Path

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from outcrop.arithmetic import MKL
from outcrop.training.flat import FlatParameters

STATE = "state.safetensors"
# Saving may take this part of a run's time at most.
MOST_SHARE = 0.05


class State(msgspec.Struct, kw_only=True):
    """Where a run stands after `step` optimizer steps; the data cursor and the schedule follow from that number."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    losses: list[float] = []
    best_loss: float | None = None
    best_losses: list[float] = []
    waited: int = 0
    checkpoint: str | None = None
    general_losses: list[float] = []
    base_losses: list[float] = []
    """What the probes cost before the first step."""
    progress_bytes: int = 0
    microbatch_tokens: int = 0
    checkpoints_activations: bool = False
    products: str = MKL
    """What multiplies matrices (outcrop/arithmetic.py); part of the last bits of the result."""

    def judge(self, losses: list[float], threshold: float) -> bool:
        """Whether these are the lowest losses yet. Patience counts evaluations that were not better by the threshold."""
        loss = sum(losses) / len(losses)
        self.losses = losses
        best = self.best_loss
        self.waited = 0 if best is None or loss < best - threshold else self.waited + 1
        if best is None or loss < best:
            self.best_loss, self.best_losses = loss, losses
            return True
        return False


class StateKeeper:
    """Writes the state whole or not at all, in a thread: a step waits only for the copy in memory.

    `key` names what the state belongs to (plan and data); a state of something else is not taken up.
    """

    def __init__(self, directory: Path, key: str, flat: FlatParameters, optimizer: torch.optim.Optimizer) -> None:
        self._path, self._key, self._flat, self._optimizer = directory / STATE, key, flat, optimizer
        self._writing: threading.Thread | None = None
        self._error: OSError | None = None
        self._kept_at = time.monotonic()
        self._took = 0.0

    def is_due(self, every_s: float) -> bool:
        """Whether it is time to keep the state again."""
        if self._writing is not None and self._writing.is_alive():
            return False
        return time.monotonic() - self._kept_at >= max(every_s, self._took / MOST_SHARE)

    def keep(self, state: State, progress: int) -> None:
        """Begin to write the state as it is now; `progress` is the open progress file. Raises OSError of the last write."""
        self.wait()
        tensors = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        tensors["random"] = torch.get_rng_state()
        state.progress_bytes = os.fstat(progress).st_size
        said = {"key": self._key, "state": msgspec.json.encode(state).decode()}
        self._kept_at = time.monotonic()
        self._writing = threading.Thread(target=self._write, args=(tensors, said, progress))
        self._writing.start()

    def wait(self) -> None:
        """Until what was begun is on the disk. Raises its OSError."""
        if self._writing is not None:
            self._writing.join()
        if self._error is not None:
            raise self._error

    def _write(self, tensors: dict[str, Tensor], said: dict[str, str], progress: int) -> None:
        unfinished = self._path.with_suffix(".unfinished")
        try:
            os.fsync(progress)
            save_file(tensors, unfinished, metadata=said)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            self._error = error
        self._took = time.monotonic() - self._kept_at

    def restore(self) -> State | None:
        """Take up weights, optimizer and random state as they were kept; None when there is nothing of this run."""
        if not self._path.is_file():
            return None
        with safe_open(self._path, framework="pt") as file:
            said = file.metadata()
            if said["key"] != self._key:
                return None
            self.reset_optimizer()
            for name, tensor in self._tensors().items():
                tensor.copy_(file.get_tensor(name))
            torch.set_rng_state(file.get_tensor("random"))
        return msgspec.json.decode(said["state"], type=State)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for number, (flat, _) in enumerate(self._flat.groups):
            tensors[f"{number}.weights"] = flat.data
            for name, tensor in self._optimizer.state[flat].items():
                tensors[f"{number}.{name}"] = tensor
        return tensors

    def reset_optimizer(self) -> None:
        """The optimizer as before its first step, its moments made."""
        for flat, _ in self._flat.groups:
            self._optimizer.state[flat] = {
                "step": torch.zeros((), device=flat.device), "exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)
            }  # fmt: skip
