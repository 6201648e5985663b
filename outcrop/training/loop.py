"""The whole run, from plan to result."""

import hashlib
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path

import msgspec
import numpy as np
import torch

from outcrop import arithmetic
from outcrop.datasets.rows import Rows, Targets
from outcrop.errors import Invalid
from outcrop.training.batches import Microbatch, cut_among
from outcrop.training.checkpoints import Checkpoints
from outcrop.training.group import Group
from outcrop.training.lora import load_adapters
from outcrop.training.model import Trainee
from outcrop.training.plan import PROGRESS, TARGETS, Evaluated, Plan, Probe, Progress, Result, Settings, StepDone
from outcrop.training.rehearsal import rehearse
from outcrop.training.sampling import Sampler
from outcrop.training.state import State, StateKeeper
from outcrop.training.step import evaluate, step
from outcrop.training.teacher import write_targets

NUM_PROBES, PROBE_TOKENS = 3, 32


def run(directory: Path, should_stop: Callable[[], bool], group: Group | None = None) -> Result:
    """Train as the directory's plan says, from where an earlier try at the same plan was cut off if there was one.

    progress.jsonl has every step once, however often the run was cut off. The best checkpoint by validation loss is
    the result, or the last one when there are no validation rows. When `should_stop` answers True the run ends after
    the current step in the same way, and can be gone on with.

    Raises Invalid when the base model cannot be used or does not fit, Diverged when the loss is no longer finite.
    """
    return Run(directory, group or Group()).to_the_end(should_stop)


class Run:
    """A run under way, or one process's part of it; of several processes the first one writes."""

    def __init__(self, directory: Path, group: Group) -> None:
        self.group = group
        self.plan = Plan.read(directory)
        self.settings = settings = self.plan.settings
        self._directory = directory
        torch.manual_seed(settings.seed)
        self.train = Rows.read(directory / self.plan.train_rows)
        self.validation = [Rows.read(directory / name) for name in self.plan.validation_rows]
        self.general = [Rows.read(directory / self.plan.general_rows)] if self.plan.general_rows else []
        for name, rows in (
            ("training", self.train),
            *(("validation", rows) for rows in (*self.validation, *self.general)),
        ):
            check_learned(rows, name)
        if self.plan.teacher is not None:
            self.train = replace(self.train, targets=self._ask_teacher(self.plan.teacher))
        longest = max(rows.longest() for rows in (self.train, *self.validation, *self.general))
        device = f"cuda:{group.rank % torch.cuda.device_count()}" if self.plan.device == "cuda" else self.plan.device
        self.trainee = Trainee(Path(self.plan.base), settings, longest, group, device)
        if self.plan.start_adapter is not None:
            load_adapters(self.trainee.adapters, Path(self.plan.start_adapter))
            self.trainee.learner.refresh()
        self.optimizer = self.trainee.flat.optimizer(settings.learning_rate, settings.beta2)
        self.sampler = Sampler(
            self.train, settings.batch_rows, settings.seed, groups=self.trainee.shares, shuffles=settings.shuffles
        )
        self.probes = probes_for(self.trainee.model.config.vocab_size)
        self.steps = self.sampler.steps_per_epoch * settings.epochs
        self.evaluates_every = max(2, ceil(self.sampler.steps_per_epoch / settings.evaluations_per_epoch))
        self.checkpoints = Checkpoints(directory, self.trainee, self.plan.base_name or self.plan.base)
        self.keeper = StateKeeper(directory, self._key(), self.trainee.flat, self.optimizer)
        self.state = State(microbatch_tokens=settings.microbatch_tokens, products=group.heed(self.trainee.products()))
        arithmetic.use(self.state.products)

    def _ask_teacher(self, teacher: str) -> Targets:
        """The teacher's targets, asked for once; several processes wait for the first."""
        path = self._directory / TARGETS
        if self.group.is_first and not path.is_file():
            adapter = self.plan.teacher_adapter
            write_targets(self.train, Path(teacher), Path(adapter) if adapter else None, path)
        self.group.heed(True)
        return Targets.read(path)

    def to_the_end(self, should_stop: Callable[[], bool]) -> Result:
        """Every step that is left."""
        kept = self.keeper.restore()
        if kept is not None and kept.step == 0:  # cut off in its rehearsal, which then has not been told
            kept = None
        if self.group.is_first:
            self._rewind(kept.progress_bytes if kept is not None else 0)
        said = self._directory / PROGRESS if self.group.is_first else Path(os.devnull)
        with said.open("ab", buffering=0) as self._progress:
            if kept is not None:
                self._go_on_from(kept)
            else:
                self._rehearse()
                self.state.base_losses = self._probe_losses()
                torch.manual_seed(self.settings.seed)  # how much dropout the rehearsal drew depends on the clock
                if self.general and not self.plan.rehearses_only:
                    self.state.general_losses = [self._general_loss()]
                    self._tell(
                        Evaluated(step=0, epoch=0, losses=[], is_best=False, general_loss=self.state.general_losses[0])
                    )
            self._began = time.monotonic() - self.state.seconds
            was_stopped, epoch, rows_of = False, -1, []
            while self.state.step < self.steps and not self._is_over():
                if epoch != (epoch := self.state.step // self.sampler.steps_per_epoch):
                    rows_of = self.sampler.steps(epoch)
                self._step(rows_of[self.state.step % self.sampler.steps_per_epoch], epoch)
                was_stopped = self.group.heed(should_stop())
                self._look_back(epoch, was_stopped)
                if was_stopped:
                    break
            self.keeper.wait()
        state = self.state
        stopped_early = not was_stopped and state.step < self.steps
        return Result(
            status="stopped" if was_stopped else "completed", checkpoint=state.checkpoint, step=state.step,
            steps=self.steps, training_loss=state.loss, validation_losses=state.best_losses,
            general_losses=state.general_losses, stopped_early=stopped_early,
            seconds=state.seconds, tokens=state.tokens,
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )  # fmt: skip

    def _rewind(self, size: int) -> None:
        """Forget what was said after the state was kept. A new file takes the old one's place, so that readers notice."""
        progress = self._directory / PROGRESS
        said = progress.read_bytes()[:size] if progress.exists() else b""
        unfinished = progress.with_suffix(".unfinished")
        unfinished.write_bytes(said)
        unfinished.rename(progress)

    def _rehearse(self) -> None:
        if self.group.is_first:
            self._tell(rehearse(self))
        self.state.microbatch_tokens = self.group.heed(self.state.microbatch_tokens)
        self.state.checkpoints_activations = self.group.heed(self.state.checkpoints_activations)
        if self.state.checkpoints_activations and not self.group.is_first:
            self.trainee.learner.checkpoint_activations()

    def _go_on_from(self, state: State) -> None:
        self.state = state
        arithmetic.use(state.products)
        if state.checkpoints_activations:
            self.trainee.learner.checkpoint_activations()
        self.trainee.learner.refresh()

    def _step(self, indices: list[int], epoch: int) -> None:
        state, settings = self.state, self.settings
        rate = rate_at(state.step, self.steps, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches = cut_among(self.train, indices, state.microbatch_tokens, self.trainee.shares, self.group.size)
        if self.group.size > 1:  # what is dropped must not depend on where a run was broken off
            torch.manual_seed((settings.seed * 1_000_003 + state.step) * self.group.size + self.group.rank)
        result = step(self.trainee, self.optimizer, batches, settings.max_gradient_norm)
        state.step += 1
        state.tokens += sum(self.train.length(index) for index in indices)
        state.loss, state.seconds = result.loss, time.monotonic() - self._began
        self._tell(
            StepDone(
                step=state.step, steps=self.steps, epoch=epoch, loss=result.loss, gradient_norm=result.gradient_norm,
                learning_rate=rate, answer_tokens=result.answer_tokens, tokens_per_s=state.tokens / state.seconds,
                seconds_left=state.seconds / state.step * (self.steps - state.step),
            )
        )  # fmt: skip

    def _look_back(self, epoch: int, is_stopped: bool) -> None:
        """Evaluate and keep what there is, when it is time."""
        state, settings = self.state, self.settings
        is_last = state.step == self.steps
        every = self.evaluates_every if self.validation or self.general else self.sampler.steps_per_epoch
        is_regular = state.step % every == 0 or is_last
        if is_stopped and not is_regular:
            self.keep_state()  # as it would be without the stop: a run that goes on has nothing out of turn
        if is_regular or is_stopped:
            is_best = True
            losses = [evaluate(self.trainee, rows, state.microbatch_tokens) for rows in self.validation]
            general_loss = self._general_loss() if self.general else None
            if losses:
                is_best = state.judge(losses, settings.early_stopping_threshold)
            if losses or self.general:
                line = Evaluated(
                    step=state.step, epoch=epoch, losses=losses, is_best=is_best, general_loss=general_loss
                )
                self._tell(line)
            if is_best and general_loss is not None:
                state.general_losses = [state.general_losses[0], general_loss]
            self._keep_checkpoint(is_best)
        state.seconds = time.monotonic() - self._began
        if is_regular or (not is_stopped and self.keeper.is_due(settings.saves_every_s)):
            self.keep_state()

    def _general_loss(self) -> float:
        return evaluate(self.trainee, self.general[0], self.state.microbatch_tokens)

    def keep_state(self) -> None:
        """Begin to write the state."""
        if self.group.is_first:
            self.keeper.keep(self.state, self._progress.fileno())

    def _keep_checkpoint(self, is_best: bool) -> None:
        """Adapters are small: all are kept. Of whole models the best and, until the state is on the disk, the one before."""
        before = self.state.checkpoint
        if is_best or self.trainee.adapters:
            written = self.group.heed(
                self.checkpoints.write(self.state.step, self._probed()) if self.group.is_first else ""
            )
            if is_best:
                self.state.checkpoint = written
        if not self.trainee.adapters and self.group.is_first:
            self.checkpoints.keep_only([before, self.state.checkpoint])

    def _probe_losses(self) -> list[float]:
        return [self.trainee.learner.loss(Microbatch.of(self.probes, [row])) for row in range(len(self.probes))]

    def _probed(self) -> list[Probe]:
        """The probes with what they cost now."""
        losses = zip(self.probes, self._probe_losses(), self.state.base_losses, strict=True)
        return [
            Probe(tokens.tolist(), np.flatnonzero(is_answer).tolist(), loss, before)
            for (tokens, is_answer), loss, before in losses
        ]

    def _is_over(self) -> bool:
        return self.plan.rehearses_only or self.state.waited >= self.settings.early_stopping_patience

    def _tell(self, line: Progress) -> None:
        self._progress.write(msgspec.json.encode(line) + b"\n")

    def _key(self) -> str:
        """What a state must belong to: this plan with these rows."""
        digest = hashlib.sha256(msgspec.json.encode(self.plan))
        for rows in (self.train, *self.validation, *self.general):
            digest.update(rows.digest())
        return digest.hexdigest()


def probes_for(vocabulary: int) -> Rows:
    """Rows of tokens drawn evenly: what is asked of a tuned model as a proof must not be its training data."""
    drawn = np.random.default_rng(0).integers(0, vocabulary, (NUM_PROBES, PROBE_TOKENS), dtype=np.int32)
    learned = np.zeros(drawn.shape, bool)
    learned[:, PROBE_TOKENS // 2 :] = True
    return Rows(drawn.reshape(-1), learned.reshape(-1), np.arange(NUM_PROBES + 1, dtype=np.int64) * PROBE_TOKENS)


def check_learned(rows: Rows, name: str) -> None:
    """Raise Invalid when there is a row of which nothing is learned: its loss would be 0 or no number, and look like success."""
    empty = np.flatnonzero(~np.logical_or.reduceat(rows.is_answer, rows.starts[:-1]))
    rows.release()
    if len(empty):
        raise Invalid(
            f"{len(empty)} of {len(rows)} {name} rows have no token to learn, the first is row {empty[0] + 1}"
        )


def rate_at(done: int, steps: int, settings: Settings) -> float:
    """The learning rate of the step after `done` steps: a straight rise, a plateau, a straight fall to nothing."""
    warmup = settings.warmup(steps)
    if done < warmup:
        return settings.learning_rate * (done + 1) / warmup
    falling = max(1, round((steps - warmup) * settings.decay_share))
    return settings.learning_rate * min(1.0, (steps - done) / falling)
