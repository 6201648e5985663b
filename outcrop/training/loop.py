"""The whole run, from plan to result."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, inf
from pathlib import Path

import msgspec
import torch
from torch import nn
from transformers import PreTrainedModel

from outcrop.datasets.rows import Rows
from outcrop.training.batches import cut, order_of
from outcrop.training.checkpoints import Checkpoints
from outcrop.training.lora import LoraLinear, add_adapters, load_adapters
from outcrop.training.model import load_base
from outcrop.training.plan import PROGRESS, Evaluated, Plan, Progress, Result, Settings, StepDone
from outcrop.training.step import evaluate, step


@dataclass
class Best:
    """The best validation loss so far, and how long ago it was."""

    loss: float = inf
    checkpoint: str | None = None
    waited: int = 0
    threshold: float = 0.0
    history: list[float] = field(default_factory=list)

    def judge(self, loss: float) -> bool:
        """Whether this loss is the lowest yet. Patience counts evaluations that were not better by the threshold."""
        self.waited = 0 if loss < self.loss - self.threshold else self.waited + 1
        is_best = loss < self.loss
        self.loss = min(self.loss, loss)
        return is_best


def run(directory: Path, should_stop: Callable[[], bool]) -> Result:
    """Train as the directory's plan says; progress.jsonl grows with every step.

    The best checkpoint by validation loss is kept, or the last one when there are no validation rows. When
    `should_stop` answers True the run ends after the current step and keeps the same.

    Raises Invalid when the base model cannot be used, Diverged when the loss is no longer finite.
    """
    plan = Plan.read(directory)
    settings = plan.settings
    torch.manual_seed(settings.seed)
    train = Rows.read(directory / plan.train_rows)
    validation = [Rows.read(directory / name) for name in plan.validation_rows]
    model, adapters = prepare(Path(plan.base), settings)
    if plan.start_adapter is not None:
        load_adapters(adapters, Path(plan.start_adapter))
    optimizer = make_optimizer(model, settings)
    checkpoints = Checkpoints(directory, model, adapters, plan.base_name or plan.base)

    per_epoch = ceil(len(train) / settings.batch_rows)
    steps = per_epoch * settings.epochs
    evaluates_every = max(2, ceil(per_epoch / settings.evaluations_per_epoch))
    best = Best(threshold=settings.early_stopping_threshold)
    began = saved = time.monotonic()
    done, tokens = 0, 0
    loss: float | None = None
    checkpoint: str | None = None
    was_stopped = False
    losses: list[float] = []

    with (directory / PROGRESS).open("ab", buffering=0) as progress:

        def tell(line: Progress) -> None:
            progress.write(msgspec.json.encode(line) + b"\n")

        for epoch in range(settings.epochs):
            order = iter(order_of(epoch, len(train), settings.seed, settings.shuffles))
            while indices := list(islice(order, settings.batch_rows)):
                rate = rate_at(done, steps, settings)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                result = step(
                    model, optimizer, list(cut(train, indices, settings.microbatch_tokens)), settings.max_gradient_norm
                )
                done += 1
                tokens += sum(train.length(index) for index in indices)
                loss = result.loss
                elapsed = time.monotonic() - began
                tell(
                    StepDone(
                        step=done, steps=steps, epoch=epoch, loss=loss, gradient_norm=result.gradient_norm,
                        learning_rate=rate, answer_tokens=result.answer_tokens, tokens_per_s=tokens / elapsed,
                        seconds_left=elapsed / done * (steps - done),
                    )
                )  # fmt: skip
                stopping = should_stop()
                if validation and (done % evaluates_every == 0 or done == steps or stopping):
                    losses = [evaluate(model, rows, settings.microbatch_tokens) for rows in validation]
                    is_best = best.judge(sum(losses) / len(losses))
                    tell(Evaluated(step=done, epoch=epoch, losses=losses, is_best=is_best))
                    if is_best:
                        checkpoint, best.history = checkpoints.keep(done), losses
                elif not validation and settings.saves_every_s and time.monotonic() - saved > settings.saves_every_s:
                    checkpoint, saved = checkpoints.keep(done), time.monotonic()
                if stopping:
                    was_stopped = True
                    break
                if best.waited >= settings.early_stopping_patience:
                    break
            else:
                continue
            break
    if not validation:
        checkpoint = checkpoints.keep(done)
    return Result(
        status="stopped" if was_stopped else "completed", checkpoint=checkpoint, step=done, steps=steps, training_loss=loss,
        validation_losses=best.history, stopped_early=not was_stopped and done < steps,
        seconds=time.monotonic() - began, tokens=tokens,
    )  # fmt: skip


def prepare(base: Path, settings: Settings) -> tuple[PreTrainedModel, dict[str, LoraLinear]]:
    """The model with what is to be trained switched on; adapters by layer name, none for full training."""
    model = load_base(base)
    adapters: dict[str, LoraLinear] = {}
    if settings.method == "lora":
        adapters = add_adapters(model, settings.lora_rank, settings.lora_alpha, settings.lora_dropout, settings.seed)
    else:
        model.requires_grad_(True)
    model.train()
    return model, adapters


def make_optimizer(model: PreTrainedModel, settings: Settings) -> torch.optim.Optimizer:
    """AdamW, fused; weight decay (if any) on matrices only, not on embeddings, norms and biases."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    embeddings = {id(weight) for weight in model.get_input_embeddings().parameters()}
    for weight in model.parameters():
        if weight.requires_grad:
            (decayed if weight.ndim == 2 and id(weight) not in embeddings else plain).append(weight)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        fused=True,
    )


def rate_at(done: int, steps: int, settings: Settings) -> float:
    """The learning rate of the step after `done` steps: a straight rise, a plateau, a straight fall to nothing."""
    warmup = settings.warmup(steps)
    if done < warmup:
        return settings.learning_rate * (done + 1) / warmup
    falling = max(1, round((steps - warmup) * settings.decay_share))
    return settings.learning_rate * min(1.0, (steps - done) / falling)
