"""From a training file in S3 to a custom model that can be deployed."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import msgspec

import outcrop
from outcrop import datasets, hyperparameters
from outcrop.clock import now
from outcrop.datasets import Rows
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.errors import Invalid
from outcrop.jobs import Job, Tell
from outcrop.jobs.children import python_child, tail
from outcrop.jobs.worker import Stopped
from outcrop.registry import CustomModel, Registry
from outcrop.rendering import Renderer
from outcrop.settings import Settings, available_cpus
from outcrop.storage import Storage
from outcrop.training import Plan, Result
from outcrop.training.plan import PROGRESS, RESULT, STOP
from outcrop.training.plan import Settings as TrainingSettings
from outcrop.workflows.outputs import checkpoints_of, metrics_files, write_outputs

# Tokens that go through the model at once: what a laptop's memory takes for models of up to a few hundred million
# parameters; the result does not depend on it.
MICROBATCH_TOKENS = 4096
POLL_S = 0.2
PREPARED = "prepared.json"
ORDER = {"rehearsal": 0, "step": 1, "evaluation": 2}


@dataclass(frozen=True)
class Customize:
    """The work of a customization job."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, job: Job, tell: Tell) -> None:
        """The way, station by station. When a worker dies, the next one goes on where the files in the run's folder end.

        Raises Invalid for data or settings that cannot be trained on, with file, line and field; Stopped after the best
        checkpoint has been kept.
        """
        request = job.request
        weights = self.registry.weights(request["base"])
        renderer = Renderer(weights.folder)
        options = hyperparameters.read(request["hyperParameters"], request["num_parameters"])
        run = self.storage.run_folder(job.id)

        prepared = Prepared.read(run)
        if prepared is None:
            with tell.phase("validation"):
                train, validation = self._check(request)
                tell.event(kind="data", rows=train.rows, validation_rows=[report.rows for report in validation])
            with tell.phase("dataProcessing"):
                prepared = self._prepare(train, validation, renderer, options, request, run, tell)
                tell.check()
        with tell.phase("training"):
            result = self._train(run, tell)
            self._keep(job, result, prepared, run, tell)
            if result.status == "failed":
                raise Invalid(f"training failed: {result.reason}")
            if result.status == "stopped":
                raise Stopped

    # --- the stations -----------------------------------------------------------------------------------------------

    def _check(self, request: dict[str, Any]) -> tuple[datasets.Report, list[datasets.Report]]:
        """Every line of every file is right."""
        limits, objects = self.settings, self.storage.objects
        is_text = request["customization"] == "CONTINUED_PRE_TRAINING"
        allowed = PLAIN_TEXT if is_text else SUPERVISED
        most = limits.max_pretraining_rows if is_text else limits.max_training_rows
        fewest = 1 if is_text else limits.min_training_rows
        train = datasets.check(
            datasets.find(objects, request["training_uri"]), allowed,
            fewest=fewest, most=most, most_bytes=limits.max_training_bytes,
        )  # fmt: skip
        validation = [
            datasets.check(
                datasets.find(objects, uri), allowed,
                fewest=1, most=limits.max_validation_rows, most_bytes=limits.max_validation_bytes,
            )
            for uri in request["validation_uris"]
        ]  # fmt: skip
        return train, validation

    def _prepare(
        self, train: datasets.Report, validation: list[datasets.Report], renderer: Renderer,
        options: dict[str, hyperparameters.Value | None], request: dict[str, Any], run: Path, tell: Tell,
    ) -> "Prepared":  # fmt: skip
        """Rows in the base model's tokens, the plan beside them, and last of all the note that both are whole."""
        plan, rows, effective = lay_down(
            train, validation, renderer, options, request, run, self.registry, self.settings
        )  # fmt: skip
        tell.event(
            kind="plan", rows=len(rows), tokens=len(rows.tokens), answer_tokens=int(rows.is_answer.sum()),
            longest_row=rows.longest(), rows_cut=0, steps=steps_of(plan, rows),
        )  # fmt: skip
        tell.result(hyperParameters=effective)
        prepared = Prepared(
            hyperparameters=effective, renderer=renderer.hash, training_data=_lineage(train),
            validation_data=[_lineage(report) for report in validation],
        )  # fmt: skip
        prepared.write(run)
        return prepared

    def _train(self, run: Path, tell: Tell) -> Result:
        """Run the training child and pass on what it says. Raises Invalid when it ends without a word."""
        for name in (STOP, RESULT):
            (run / name).unlink(missing_ok=True)
        with training_child(run, Plan.read(run)) as child:
            progress = _Tail(run / PROGRESS, after=_last_told(tell))
            while child.poll() is None:
                tell.events(progress.new_lines())
                if tell.wants_stop.is_set():
                    (run / STOP).touch()
                time.sleep(POLL_S)
            tell.events(progress.new_lines())
        result = Result.read(run)
        if result is None:
            raise Invalid(
                f"training ended without a result (exit status {child.returncode}): {tail(run / 'training.log')}"
            )
        return result

    def _keep(self, job: Job, result: Result, prepared: "Prepared", run: Path, tell: Tell) -> None:
        """Write metrics, checkpoints and weights to the output folder, and register the model.

        Of a run that failed everything that it finished is written, but there is no model.
        """
        request = job.request
        weights = run / result.checkpoint if result.checkpoint is not None and result.status != "failed" else None
        is_full = Plan.read(run).settings.method == "full"
        if weights is not None and is_full:
            self.registry.complete(weights, self.registry.weights(request["base"]).folder)
        write_outputs(
            self.storage.objects, request["output_uri"], job.id, metrics_files(run), weights, checkpoints_of(run)
        )
        if weights is None:
            return
        parent = self.registry.find_custom(request["base"])
        model = CustomModel(
            id=request["model_id"], arn=request["model_arn"], name=request["model_name"], base=request["base_model"],
            kind="full" if is_full else "adapter", customization=request["customization"], created_at=now(),
            job_arn=job.arn, job_name=job.name, parent=parent.arn if parent else "",
            training_uri=request["training_uri"], validation_uris=request["validation_uris"],
            output_uri=request["output_uri"], hyperparameters=prepared.hyperparameters,
            training_loss=result.training_loss, validation_losses=result.validation_losses, tags=request["model_tags"],
            lineage={
                "training_data": prepared.training_data, "validation_data": prepared.validation_data,
                "base": request["base"], "renderer": prepared.renderer, "outcrop": outcrop.__version__,
                "steps": result.step, "tokens": result.tokens, "seconds": round(result.seconds, 1),
                "stopped_early": result.stopped_early, "status": result.status,
            },
        )  # fmt: skip
        self.registry.register(model, weights)
        if result.status == "completed":
            self._clear(run)
        tell.result(
            model_arn=model.arn, training_loss=result.training_loss, validation_losses=result.validation_losses,
            stopped_early=result.stopped_early, steps=result.step,
        )  # fmt: skip

    @staticmethod
    def _clear(run: Path) -> None:
        """Remove what only the run needed: rows, state, and checkpoints, which are in the output folder."""
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        for path in (*run.glob("*.rows"), *run.glob("state.*"), run / PREPARED):
            path.unlink(missing_ok=True)


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What was settled before training, beside the rows and the plan that it says are whole."""

    hyperparameters: dict[str, str]
    renderer: str
    training_data: dict[str, Any]
    validation_data: list[dict[str, Any]]

    def write(self, run: Path) -> None:
        unfinished = run / (PREPARED + ".tmp")
        unfinished.write_bytes(msgspec.json.encode(self))
        unfinished.rename(run / PREPARED)

    @classmethod
    def read(cls, run: Path) -> "Prepared | None":
        path = run / PREPARED
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.is_file() else None


def _lineage(report: datasets.Report) -> dict[str, Any]:
    return {"uri": report.source.uri, "sha256": report.sha256, "rows": report.rows}


def _last_told(tell: Tell) -> tuple[int, int]:
    """The last line of training that the job's events have: a child that goes on says some of them again."""
    return max((_place(event) for event in tell.told() if event["kind"] in ORDER), default=(-1, 0))


def _place(line: dict[str, Any]) -> tuple[int, int]:
    """Where a line stands in progress.jsonl: by step, the step itself before its evaluation."""
    return line.get("step", 0), ORDER[line["kind"]]


def lay_down(
    train: datasets.Report, validation: list[datasets.Report], renderer: Renderer,
    options: dict[str, hyperparameters.Value | None], request: dict[str, Any], run: Path, registry: Registry,
    settings: Settings, rehearses_only: bool = False,
) -> tuple[Plan, Rows, dict[str, str]]:  # fmt: skip
    """Rows and plan in a run's folder; with the training rows and the effective hyperparameters as text.

    Raises Invalid for rows that are too long, and options that do not go with this base.
    """
    longest = min(int(options["maxTokens"] or request["context"]), request["context"])
    rows = datasets.render(train, renderer, longest).rows
    held = [datasets.render(report, renderer, longest).rows for report in validation]
    if not held and options["evalPercentage"] is not None:
        rows, aside = datasets.split(rows, float(options["evalPercentage"]), int(options["seed"] or 0))
        held = [aside]
    rows.write(run / "train.rows")
    names = [f"validation-{number}.rows" for number in range(len(held))]
    for name, part in zip(names, held, strict=True):
        part.write(run / name)
    plan = msgspec.structs.replace(plan_of(registry, request, options, names, settings), rehearses_only=rehearses_only)
    plan.write(run)
    warmup = plan.settings.warmup(steps_of(plan, rows))
    return plan, rows, hyperparameters.as_text({**options, "maxTokens": longest, "learningRateWarmupSteps": warmup})


def steps_of(plan: Plan, rows: Rows) -> int:
    """Optimizer steps of a whole run."""
    return ceil(len(rows) / plan.settings.batch_rows) * plan.settings.epochs


def plan_of(
    registry: Registry, request: dict[str, Any], options: dict[str, Any], names: list[str], settings: Settings
) -> Plan:
    """The training plan of a request. Raises Invalid for options that do not go with its base."""
    weights = registry.weights(request["base"])
    if weights.adapter is not None and options["method"] == "full":
        raise Invalid("a model tuned with adapters can be tuned further with method lora, not with full")
    return Plan(
        base=str(weights.folder),
        base_name=request["base_model"],
        start_adapter=str(weights.adapter) if weights.adapter else None,
        validation_rows=names,
        threads=settings.training_threads or available_cpus(),
        memory_bytes=round(settings.training_memory_gb * 1e9),
        settings=TrainingSettings(
            method=options["method"], epochs=options["epochCount"], batch_rows=options["batchSize"],
            learning_rate=options["learningRate"], warmup_steps=options["learningRateWarmupSteps"],
            early_stopping_threshold=options["earlyStoppingThreshold"],
            early_stopping_patience=options["earlyStoppingPatience"], lora_rank=options["loraRank"] or 1,
            lora_alpha=options["loraAlpha"] or 1.0, lora_dropout=options["loraDropout"] or 0.0, seed=options["seed"],
            microbatch_tokens=MICROBATCH_TOKENS, shares_prefixes=options["prefixSharing"] == "auto",
        ),
    )  # fmt: skip


@contextlib.contextmanager
def training_child(run: Path, plan: Plan) -> Iterator[Any]:
    """The training process; it does not outlive the block."""
    with (run / "training.log").open("wb") as log:
        child = python_child("outcrop.training", [str(run)], log, {"OMP_NUM_THREADS": str(plan.threads)})
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


class _Tail:
    """Whole new lines of a growing file of JSON, from the one after `after` on."""

    def __init__(self, path: Path, after: tuple[int, int]) -> None:
        self._path, self._offset, self._file, self._after = path, 0, -1, after

    def new_lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            number = os.fstat(file.fileno()).st_ino
            if number != self._file:  # the child has gone back to its last kept state
                self._file, self._offset = number, 0
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = [msgspec.json.decode(line) for line in whole.splitlines()]
        new = [line for line in lines if _place(line) > self._after]
        self._after = max([self._after, *map(_place, new)])
        return new
