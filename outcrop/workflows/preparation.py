"""From checked files to a directory in which training can begin: rows, and the plan beside them."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import msgspec

from outcrop import datasets, hyperparameters
from outcrop.datasets import Base, Files, Preflight, Report, Rows, RowsCache
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.errors import Invalid
from outcrop.jobs.children import python_child
from outcrop.machine import idle_cpus
from outcrop.registry import Registry
from outcrop.rendering import Renderer
from outcrop.settings import Settings
from outcrop.storage import Objects, Storage
from outcrop.training import Plan
from outcrop.training.plan import MEETING
from outcrop.training.plan import Settings as TrainingSettings

# Tokens that go through the model at once: what a laptop's memory takes for models of up to a few hundred million
# parameters; the result does not depend on it.
MICROBATCH_TOKENS = 4096

Options = dict[str, hyperparameters.Value | None]


@dataclass(frozen=True)
class Checked:
    """Files that passed their check, and all that was found. `general` rows are watched and never decide anything."""

    found: Preflight
    general: Report | None = None

    @property
    def train(self) -> Report:
        """The training file."""
        return self.found.reports[0]

    @property
    def validation(self) -> list[Report]:
        """The validation files."""
        return self.found.reports[1:]


def longest_row(options: Options, context: int) -> int:
    """The longest row (tokens) that a request takes: maxTokens, or what the base reads."""
    return min(int(options["maxTokens"] or context), context)


def check(
    request: dict[str, Any], options: Options, objects: Objects, limits: Settings, base: Path | None = None
) -> Checked:
    """Look at every line of every file of a request in S3. `base` is the folder with its tokenizer.

    What is wrong is in what was found; `found.refuse()` raises it. Raises Invalid for files that are not there or too large.
    """
    is_text = request["customization"] == "CONTINUED_PRE_TRAINING"
    files = Files(
        datasets.find(objects, request["training_uri"]),
        tuple(datasets.find(objects, uri) for uri in request["validation_uris"]),
    )
    training, held_out = datasets.limits_of(limits, is_text)
    found = datasets.preflight(
        files, PLAIN_TEXT if is_text else SUPERVISED, (training, held_out),
        Base(base, longest_row(options, request["context"])) if base is not None else None, request["hyperParameters"],
    )  # fmt: skip
    general = options["generalValidationS3Uri"]
    return Checked(
        found,
        datasets.check(
            datasets.find(objects, str(general)), (*SUPERVISED, *PLAIN_TEXT), fewest=held_out.fewest, most=held_out.most,
            most_bytes=held_out.most_bytes,
        )
        if general is not None
        else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Laid:
    """What lies in the directory; `hyperparameters` are the effective ones, as text."""

    plan: Plan
    rows: Rows
    hyperparameters: dict[str, str]


@dataclass(frozen=True)
class Preparation:
    """What it takes to lay a run down."""

    registry: Registry
    settings: Settings
    cache: RowsCache

    @classmethod
    def of(cls, storage: Storage, registry: Registry, settings: Settings) -> "Preparation":
        """An installation's."""
        return cls(registry, settings, RowsCache(storage.folder / "rows", round(settings.rows_cache_gb * 1e9)))

    def lay_down(
        self, checked: Checked, renderer: Renderer, options: Options, request: dict[str, Any], run: Path,
        rehearses_only: bool = False,
    ) -> Laid:  # fmt: skip
        """Rows and plan in a run's folder.

        Raises Invalid for rows that are too long, and options that do not go with this base.
        """
        longest = longest_row(options, request["context"])
        rows = self.cache.render(checked.train, renderer, longest, run / "train.rows")
        names = [f"validation-{number}.rows" for number in range(len(checked.validation))]
        for name, report in zip(names, checked.validation, strict=True):
            self.cache.render(report, renderer, longest, run / name)
        if not names and options["evalPercentage"] is not None:
            rows, aside = datasets.split(rows, float(options["evalPercentage"]), int(options["seed"] or 0))
            names = ["validation-0.rows"]
            (run / "train.rows").unlink()  # it is a link to what the cache keeps
            rows.write(run / "train.rows")
            aside.write(run / names[0])
        if checked.general is not None:
            self.cache.render(checked.general, renderer, longest, run / "general.rows")
        options = {**options, "maxTokens": longest, "batchSize": hyperparameters.batch_size(options, len(rows))}
        plan = msgspec.structs.replace(
            self.plan(request, options, names), rehearses_only=rehearses_only,
            general_rows="general.rows" if checked.general is not None else None, **self._teacher(request, options, renderer),
        )  # fmt: skip
        plan.write(run)
        warmup = plan.settings.warmup(steps_of(plan, rows))
        return Laid(plan, rows, hyperparameters.as_text({**options, "learningRateWarmupSteps": warmup}))

    def _teacher(self, request: dict[str, Any], options: Options, renderer: Renderer) -> dict[str, Any]:
        """Who is asked for distributions, if anybody is. Raises Invalid for a teacher that writes other tokens."""
        if options["distillationLoss"] != "distribution":
            return {}
        weights = self.registry.weights(request["distillation"]["teacher_model"])
        if self.registry.check_renderer(weights) != renderer.hash:
            raise Invalid(
                "hyperParameters.distillationLoss distribution: teacher and student have different tokenizers or templates; use answers"
            )
        return {"teacher": str(weights.folder), "teacher_adapter": str(weights.adapter) if weights.adapter else None}

    def plan(self, request: dict[str, Any], options: Options, validation_rows: list[str]) -> Plan:
        """The training plan of a request. Raises Invalid for options that do not go with its base."""
        weights = self.registry.weights(request["base"])
        if weights.adapter is not None and options["method"] == "full":
            raise Invalid("a model tuned with adapters can be tuned further with method lora, not with full")
        said: dict[str, Any] = options
        return Plan(
            base=str(weights.folder),
            base_name=request["base_model"],
            start_adapter=str(weights.adapter) if weights.adapter else None,
            validation_rows=validation_rows,
            threads=self.settings.training_threads or max(1, idle_cpus() // self.settings.training_processes),
            processes=self.settings.training_processes,
            device=self.settings.training_device,
            memory_bytes=round(self.settings.training_memory_gb * 1e9),
            settings=TrainingSettings(
                method=said["method"], epochs=said["epochCount"], batch_rows=said["batchSize"],
                learning_rate=said["learningRate"], warmup_steps=said["learningRateWarmupSteps"],
                early_stopping_threshold=said["earlyStoppingThreshold"],
                early_stopping_patience=said["earlyStoppingPatience"], lora_rank=said["loraRank"] or 1,
                lora_alpha=said["loraAlpha"] or 1.0, lora_dropout=said["loraDropout"] or 0.0, seed=said["seed"],
                microbatch_tokens=MICROBATCH_TOKENS, shares_prefixes=said["prefixSharing"] == "auto",
            ),
        )  # fmt: skip


def steps_of(plan: Plan, rows: Rows) -> int:
    """Optimizer steps of a whole run."""
    return ceil(len(rows) / plan.settings.batch_rows) * plan.settings.epochs


@contextlib.contextmanager
def training_child(run: Path, plan: Plan) -> Iterator[Any]:
    """The training process, the first of them if there are several; they do not outlive the block."""
    (run / MEETING).unlink(missing_ok=True)
    with (run / "training.log").open("wb") as log:
        children = []
        try:
            for rank in range(plan.processes):
                place = [str(rank), str(plan.processes)] if plan.processes > 1 else []
                threads = {"OMP_NUM_THREADS": str(plan.threads)}
                children.append(python_child("outcrop.training", [str(run), *place], log, threads))
            yield _Together(children)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()


class _Together:
    """Processes that end together: when one of them dies, nobody waits for the others."""

    def __init__(self, children: list["subprocess.Popen[bytes]"]) -> None:
        self._children = children

    @property
    def returncode(self) -> int | None:
        """Of the first that has failed, else of the first; None while it runs."""
        codes = [child.returncode for child in self._children]
        return next((code for code in codes if code), codes[0])

    def poll(self) -> int | None:
        """The same, after those that still run have been ended if one has failed."""
        if any(child.poll() for child in self._children):
            for child in self._children:
                child.kill()
                child.wait()
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Until they have ended. Raises TimeoutError."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            time.sleep(0.05)
        return code
