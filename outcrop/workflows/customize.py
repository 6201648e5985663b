"""From a training file in S3 to a custom model that can be deployed."""

import contextlib
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
from outcrop.training.plan import PROGRESS, STOP
from outcrop.training.plan import Settings as TrainingSettings
from outcrop.workflows.outputs import metrics_files, write_outputs

# Tokens that go through the model at once: what a laptop's memory takes for models of up to a few hundred million
# parameters; the result does not depend on it.
MICROBATCH_TOKENS = 4096
POLL_S = 0.2


@dataclass(frozen=True)
class Customize:
    """The work of a customization job."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, job: Job, tell: Tell) -> None:
        """The way, station by station. A worker that dies is replaced by one that begins again.

        Raises Invalid for data or settings that cannot be trained on, with file, line and field; Stopped after the best
        checkpoint has been kept.
        """
        request = job.request
        weights = self.registry.weights(request["base"])
        renderer = Renderer(weights.folder)
        options = hyperparameters.read(request["hyperParameters"], request["num_parameters"])
        run = self.storage.run_folder(job.id)

        with tell.phase("validation"):
            train, validation = self._check(request)
            tell.event(kind="data", rows=train.rows, validation_rows=[report.rows for report in validation])
        with tell.phase("dataProcessing"):
            plan, effective = self._prepare(train, validation, renderer, options, request, run, tell)
            tell.check()
        with tell.phase("training"):
            result = self._train(plan, run, tell)
            self._keep(job, result, effective, train, validation, renderer, run, tell)
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
    ) -> tuple[Plan, dict[str, str]]:  # fmt: skip
        """Rows in the base model's tokens and the plan beside them; and the effective hyperparameters as text."""
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

        plan = _plan(self.registry, request, options, names, self.settings)
        plan.write(run)
        steps = ceil(len(rows) / plan.settings.batch_rows) * plan.settings.epochs
        learned = int(rows.is_answer.sum())
        tell.event(kind="plan", rows=len(rows), tokens=len(rows.tokens), answer_tokens=learned, steps=steps)
        effective = hyperparameters.as_text(
            {**options, "maxTokens": longest, "learningRateWarmupSteps": plan.settings.warmup(steps)}
        )
        tell.result(hyperParameters=effective)
        return plan, effective

    def _train(self, plan: Plan, run: Path, tell: Tell) -> Result:
        """Run the training child and pass on what it says. Raises Invalid with its reason when it fails."""
        for name in (PROGRESS, STOP, "result.json"):
            (run / name).unlink(missing_ok=True)
        with _child(run, plan) as child:
            progress = _Tail(run / PROGRESS)
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
        if result.status == "failed":
            raise Invalid(f"training failed: {result.reason}")
        return result

    def _keep(
        self, job: Job, result: Result, effective: dict[str, str], train: datasets.Report,
        validation: list[datasets.Report], renderer: Renderer, run: Path, tell: Tell,
    ) -> None:  # fmt: skip
        """Register the model, and write metrics and weights to the output folder."""
        request = job.request
        if result.checkpoint is None:
            return
        checkpoint = run / result.checkpoint
        is_full = Plan.read(run).settings.method == "full"
        if is_full:
            self.registry.complete(checkpoint, self.registry.weights(request["base"]).folder)
        parent = self.registry.find_custom(request["base"])
        model = CustomModel(
            id=request["model_id"], arn=request["model_arn"], name=request["model_name"], base=request["base_model"],
            kind="full" if is_full else "adapter", customization=request["customization"], created_at=now(),
            job_arn=job.arn, job_name=job.name, parent=parent.arn if parent else "",
            training_uri=request["training_uri"], validation_uris=request["validation_uris"],
            output_uri=request["output_uri"], hyperparameters=effective, training_loss=result.training_loss,
            validation_losses=result.validation_losses, tags=request["model_tags"],
            lineage={
                "training_data": {"uri": train.source.uri, "sha256": train.sha256, "rows": train.rows},
                "validation_data": [
                    {"uri": report.source.uri, "sha256": report.sha256, "rows": report.rows} for report in validation
                ],
                "base": request["base"], "renderer": renderer.hash, "outcrop": outcrop.__version__,
                "steps": result.step, "tokens": result.tokens, "seconds": round(result.seconds, 1),
                "stopped_early": result.stopped_early, "status": result.status,
            },
        )  # fmt: skip
        write_outputs(self.storage.objects, request["output_uri"], job.id, metrics_files(run), checkpoint)
        self.registry.register(model, checkpoint)
        if result.status == "completed":
            self._clear(run)
        tell.result(
            model_arn=model.arn, training_loss=result.training_loss, validation_losses=result.validation_losses,
            stopped_early=result.stopped_early, steps=result.step,
        )  # fmt: skip

    @staticmethod
    def _clear(run: Path) -> None:
        """Remove what only the run needed: the rows, and the checkpoint that the registry has copied."""
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        for path in run.glob("*.rows"):
            path.unlink()


def _plan(
    registry: Registry, request: dict[str, Any], options: dict[str, Any], names: list[str], settings: Settings
) -> Plan:
    weights = registry.weights(request["base"])
    if weights.adapter is not None and options["method"] == "full":
        raise Invalid("a model tuned with adapters can be tuned further with method lora, not with full")
    return Plan(
        base=str(weights.folder),
        base_name=request["base_model"],
        start_adapter=str(weights.adapter) if weights.adapter else None,
        validation_rows=names,
        threads=settings.training_threads or available_cpus(),
        settings=TrainingSettings(
            method=options["method"], epochs=options["epochCount"], batch_rows=options["batchSize"],
            learning_rate=options["learningRate"], warmup_steps=options["learningRateWarmupSteps"],
            early_stopping_threshold=options["earlyStoppingThreshold"],
            early_stopping_patience=options["earlyStoppingPatience"], lora_rank=options["loraRank"] or 1,
            lora_alpha=options["loraAlpha"] or 1.0, lora_dropout=options["loraDropout"] or 0.0, seed=options["seed"],
            microbatch_tokens=MICROBATCH_TOKENS,
        ),
    )  # fmt: skip


@contextlib.contextmanager
def _child(run: Path, plan: Plan) -> Iterator[Any]:
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
    """Whole new lines of a growing file of JSON."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new_lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [msgspec.json.decode(line) for line in whole.splitlines()]
