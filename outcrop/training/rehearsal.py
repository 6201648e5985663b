"""Before the first step: the heaviest batch, an evaluation and a save are tried, and what the run will take is told."""

import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from outcrop.datasets.rows import Rows
from outcrop.errors import Invalid
from outcrop.machine import free_memory
from outcrop.training.batches import Microbatch, cut
from outcrop.training.model import Trainee
from outcrop.training.plan import Rehearsed

if TYPE_CHECKING:
    from outcrop.training.loop import Run

# Steps drawn to see what a step costs, and the seconds spent on timing.
SAMPLED_STEPS = 48
TIMING_S = 6.0
TIMED = 6
# Of the memory that is free, so much is planned with.
MOST_MEMORY = 0.9
# How far off a rate measured over seconds was from that of the run (benchmarks/plan.py, ten jobs on two shared vCPUs).
RATE_ERROR = 0.15


@dataclass
class Costs:
    """Floating-point operations of a microbatch, by its numbers."""

    per_token: float
    per_pair: float
    per_place: float

    @classmethod
    def of(cls, trainee: Trainee) -> "Costs":
        """Forward, gradient of inputs and, where weights are trained, gradient of weights: two a multiply-add each."""
        model, config = trainee.model, trainee.model.config
        passes = 4 if trainee.adapters else 6
        head = sum(weight.numel() for weight in model.get_output_embeddings().parameters())
        inside = sum(weight.numel() for weight in model.parameters() if weight.ndim == 2)
        inside -= head + (0 if config.tie_word_embeddings else head)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # Attention: two products forward, five backward.
        return cls(passes * inside, 14 * width * config.num_attention_heads * config.num_hidden_layers, passes * head)

    def __call__(self, batch: Microbatch) -> float:
        return (
            self.per_token * batch.attention.num_tokens
            + self.per_pair * batch.attention.pairs()
            + self.per_place * len(batch.places_U)
        )


def rehearse(run: "Run") -> Rehearsed:
    """Try what the run will need most of, and estimate the rest from what was measured.

    Settles the state's `microbatch_tokens` (smaller ones give the same result) and `checkpoints_activations`. Weights,
    optimizer and random state are as before.
    Raises Invalid, with the numbers, when even one row at a time does not fit into memory or a save onto the disk.
    """
    return _Rehearsal(run).result()


class _Rehearsal:
    def __init__(self, run: "Run") -> None:
        self._run, self._trainee = run, run.trainee
        self._costs = Costs.of(run.trainee)
        self._limit = int((run.plan.memory_bytes or free_memory() / run.group.size + _resident()) * MOST_MEMORY)
        steps = run.sampler.steps(0)
        self._drawn = random.Random(0).sample(steps, min(len(steps), SAMPLED_STEPS))
        self._num_steps = len(steps)

    def result(self) -> Rehearsed:
        run = self._run
        heaviest = self._fit()
        self._trainee.learner.learn(heaviest, 0.0)
        rate, spread = self._measure(1 if run.plan.is_trial else TIMED)
        evaluation_s = self._evaluation()
        update_s = self._update()
        save_s = self._save(heaviest)
        began = time.monotonic()
        batches = [
            list(cut(run.train, rows, run.state.microbatch_tokens, self._trainee.shares)) for rows in self._drawn
        ]
        laying_out_s = (time.monotonic() - began) / len(self._drawn)
        costs = [sum(self._costs(batch) for batch in step) for step in batches]
        tokens = fmean(sum(batch.attention.num_tokens for batch in step) for step in batches)
        evaluations = run.steps // run.evaluates_every + 1
        learning_s = run.steps * fmean(costs) / rate / run.group.size
        seconds = learning_s + run.steps * (update_s + laying_out_s) + evaluations * (evaluation_s + save_s)
        sampling = pstdev(costs) / fmean(costs) / sqrt(len(costs)) * sqrt(max(0.0, 1 - len(costs) / self._num_steps))
        error = sqrt(RATE_ERROR**2 + sampling**2 + spread**2)
        return Rehearsed(
            rows=len(run.train), steps=run.steps, tokens=len(run.train.tokens) * run.settings.epochs,
            computed_tokens=round(tokens * run.steps), answer_tokens=int(run.train.is_answer.sum()) * run.settings.epochs,
            seconds=seconds, seconds_error=seconds * error, memory_bytes=_peak(),
            microbatch_tokens=run.state.microbatch_tokens, checkpoints_activations=run.state.checkpoints_activations,
            groups_save=run.sampler.saving if self._trainee.shares else 0.0,
        )  # fmt: skip

    def _fit(self) -> Microbatch:
        """The heaviest microbatch, cut so that it fits; a small one shows what a token takes."""
        run = self._run
        before = _peak()
        probe = min(self._candidates(), key=lambda batch: batch.attention.num_tokens)
        self._trainee.learner.learn(probe, 0.0)
        per_token = (_peak() - before) / probe.attention.num_tokens
        # Two moments, and a copy of all three for saving.
        optimizer = 5 * sum(4 * flat.numel() for flat, _ in self._trainee.flat.groups)
        while True:
            heaviest = max(self._candidates(), key=lambda batch: batch.attention.num_tokens)
            needed = _resident() + per_token * heaviest.attention.num_tokens + optimizer
            if needed <= self._limit:
                return heaviest
            if heaviest.num_rows > 1:
                run.state.microbatch_tokens = min(run.state.microbatch_tokens, heaviest.attention.num_tokens) // 2
            elif not run.state.checkpoints_activations:
                run.state.checkpoints_activations = True
                self._trainee.learner.checkpoint_activations()
                layers = self._trainee.model.config.num_hidden_layers
                per_token *= 2.5 / layers + 1 / 12  # one layer at a time, and each layer's input
            else:
                raise Invalid(
                    f"training needs about {needed / 1e9:.1f} GB for the longest row ({heaviest.attention.num_tokens:,} "
                    f"tokens) by itself, and {self._limit / 1e9:.1f} GB may be used; set maxTokens and shorten the row, "
                    "lower loraRank, or choose a smaller base model"
                )

    def _candidates(self) -> Iterator[Microbatch]:
        """Microbatches of the drawn steps, and of the longest row with those it is trained beside."""
        run = self._run
        longest = max(range(len(run.train)), key=run.train.length)
        for rows in [[longest], *self._drawn]:
            yield from cut(run.train, rows, run.state.microbatch_tokens, self._trainee.shares)

    def _measure(self, most: int) -> tuple[float, float]:
        """Operations per second, and its relative standard error, over at most so many microbatches drawn at random."""
        run = self._run
        rates: list[float] = []
        began = time.monotonic()
        for rows in random.Random(1).sample(self._drawn, len(self._drawn)):
            batches = list(cut(run.train, rows, run.state.microbatch_tokens, self._trainee.shares))
            batch = random.Random(len(rates)).choice(batches)
            start = time.perf_counter()
            self._trainee.learner.learn(batch, 0.0)
            rates.append(self._costs(batch) / (time.perf_counter() - start))
            if len(rates) == most or time.monotonic() - began > TIMING_S:
                break
        return fmean(rates), pstdev(rates) / fmean(rates) / sqrt(len(rates))

    def _evaluation(self) -> float:
        """Seconds of one evaluation, from its heaviest microbatch."""
        return sum(self._evaluation_of(rows) for rows in (*self._run.validation, *self._run.general))

    def _evaluation_of(self, rows: Rows) -> float:
        batches = list(cut(rows, range(len(rows)), self._run.state.microbatch_tokens, self._trainee.shares))
        heaviest = max(batches, key=self._costs)
        start = time.perf_counter()
        self._trainee.learner.loss(heaviest)
        took = time.perf_counter() - start
        return took * sum(self._costs(batch) for batch in batches) / self._costs(heaviest)

    def _update(self) -> float:
        """Seconds of an optimizer step that changes nothing: rate and gradients are nought."""
        run = self._run
        run.trainee.flat.zero_grad()
        for group in run.optimizer.param_groups:
            group["lr"] = 0.0
        run.keeper.reset_optimizer()
        start = time.perf_counter()
        run.optimizer.step()
        run.trainee.learner.refresh()
        took = time.perf_counter() - start
        run.keeper.reset_optimizer()
        return took

    def _save(self, heaviest: Microbatch) -> float:
        """Keep the state of a run that has not begun, and a checkpoint of it; the seconds that a run waits for a save.

        A checkpoint is written and the heaviest batch learned from while the state is on its way to the disk, as may happen:
        then most memory is held.
        """
        run = self._run
        began = time.monotonic()
        try:
            run.keep_state()
            run.checkpoints.write(0)
            took = time.monotonic() - began
            self._trainee.learner.learn(heaviest, 0.0)
            run.keeper.wait()
            run.checkpoints.keep_only([])
        except OSError as error:
            needed = 4 * sum(4 * flat.numel() for flat, _ in self._trainee.flat.groups)
            raise Invalid(f"a save of the run takes about {needed / 1e6:,.0f} MB and failed: {error}") from None
        return took


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize() or _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
