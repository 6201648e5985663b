"""What is written into and read out of a training directory; no torch here."""

from math import ceil
from pathlib import Path
from typing import Literal

import msgspec

PLAN, PROGRESS, RESULT, STOP, MEETING = "plan.json", "progress.jsonl", "result.json", "stop", "meeting"
TARGETS = "train.targets"
# Beside the weights of a checkpoint.
PROBES = "outcrop_probes.json"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to train. The first block is what hyperparameters.py reads from a request; the rest is for recipes."""

    method: Literal["lora", "full"] = "lora"
    epochs: int = 2
    batch_rows: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int | None = None
    early_stopping_threshold: float = 0.001
    early_stopping_patience: int = 2
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    seed: int = 0

    decay_share: float = 1.0
    """Share of the steps, the last ones, over which the rate falls in a straight line to nothing."""
    beta2: float = 0.95
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    shuffles: bool = True
    shares_prefixes: bool = True
    """Draw rows that begin alike together and compute what they share once."""
    microbatch_tokens: int = 4096
    """Most tokens, padding of attention counted, that go through the model at once; only memory depends on it."""
    evaluations_per_epoch: int = 4
    """When there are validation rows. At most one in every two steps; early stopping counts these."""
    saves_every_s: float = 20.0
    """The run's state is kept this often, and after every evaluation; less often when saving takes long."""

    def warmup(self, steps: int) -> int:
        """Steps over which the rate rises: as said, else 5 % of all, at most 100."""
        return self.warmup_steps if self.warmup_steps is not None else min(100, ceil(steps * 0.05))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a base model's folder, the rows to learn, and how."""

    base: str
    base_name: str = ""
    """What the adapters' config calls the base; the folder when it is empty."""
    settings: Settings
    train_rows: str = "train.rows"
    validation_rows: list[str] = []
    general_rows: str | None = None
    """Rows whose loss is watched for forgetting, before the first step and at every evaluation; it decides nothing."""
    start_adapter: str | None = None
    """A folder of adapters to go on from (tuning a tuned model again); method lora only."""
    teacher: str | None = None
    """A teacher's folder: what is learned is its distribution at each answer token, which the run first asks for."""
    teacher_adapter: str | None = None
    threads: int = 0
    """0: as many as the process may use. A run that is to be bit-equal to another needs the same number."""
    processes: int = 1
    """Processes that learn together, each from its part of every step."""
    device: str = "cpu"
    """cpu, or cuda: each process then takes the GPU of its number."""
    rehearses_only: bool = False
    """End after the rehearsal: for `outcrop plan`."""
    is_trial: bool = False
    """One of many runs alike: its time is estimated from a single microbatch."""
    memory_bytes: int = 0
    """What training may take; 0: what the machine has free."""

    def write(self, directory: Path) -> None:
        """Lay the plan down, so that the child process finds it."""
        (directory / PLAN).write_bytes(msgspec.json.format(msgspec.json.encode(self)))

    @classmethod
    def read(cls, directory: Path) -> "Plan":
        return msgspec.json.decode((directory / PLAN).read_bytes(), type=cls)


class Probe(msgspec.Struct, frozen=True):
    """Tokens that mean nothing, the places (from 1) of some of them, and what those cost: the sum of their losses (nats) in the
    tuned model and in what it began as. Who serves the weights can see by it that they are these."""

    tokens: list[int]
    learned: list[int]
    loss: float
    base_loss: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `checkpoint` is the best one's folder (the last one's without validation rows)."""

    status: Literal["completed", "stopped", "failed"]
    reason: str = ""
    checkpoint: str | None = None
    step: int = 0
    steps: int = 0
    training_loss: float | None = None
    validation_losses: list[float] = []
    general_losses: list[float] = []
    """Of the general rows, if there are any: before the first step, and at the checkpoint."""
    stopped_early: bool = False
    seconds: float = 0.0
    tokens: int = 0
    peak_memory: int = 0
    """Most resident bytes of the training process."""

    def write(self, directory: Path) -> None:
        unfinished = directory / (RESULT + ".tmp")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(self)))
        unfinished.rename(directory / RESULT)

    @classmethod
    def read(cls, directory: Path) -> "Result | None":
        """The run's end, or None while there is none (it is running, or was killed)."""
        path = directory / RESULT
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.is_file() else None


class StepDone(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="step"):
    """One line of progress.jsonl: an optimizer step."""

    step: int
    steps: int
    epoch: int
    loss: float
    gradient_norm: float
    learning_rate: float
    answer_tokens: int
    tokens_per_s: float
    seconds_left: float


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="evaluation"):
    """One line of progress.jsonl: the validation losses, one per validation file; step 0 is before training."""

    step: int
    epoch: int
    losses: list[float]
    is_best: bool
    general_loss: float | None = None


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="rehearsal"):
    """The first line of progress.jsonl: what the run will take. Tokens are those of all epochs."""

    rows: int
    steps: int
    tokens: int
    computed_tokens: int
    """After sharing: what goes through the model."""
    answer_tokens: int
    seconds: float
    seconds_error: float
    memory_bytes: int
    """Most resident bytes of the training process, measured with the heaviest batch."""
    microbatch_tokens: int
    checkpoints_activations: bool
    groups_save: float
    """Part of all tokens that drawing rows in groups saves; under 5 % they are drawn one by one."""


Progress = StepDone | Evaluated | Rehearsed
