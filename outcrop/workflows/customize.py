"""From a training file in S3 to a custom model that can be deployed."""

import hashlib
import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

import outcrop
from outcrop import datasets, hyperparameters
from outcrop.clock import now
from outcrop.errors import Invalid
from outcrop.jobs import Job, Tell
from outcrop.jobs.children import tail
from outcrop.jobs.worker import Stopped
from outcrop.registry import CustomModel, Registry, Weights
from outcrop.rendering import Conversation, Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage, sha256_of
from outcrop.training import Plan, Result
from outcrop.training.plan import PROGRESS, RESULT, STOP
from outcrop.workflows.distill import Distill
from outcrop.workflows.outputs import checkpoints_of, metrics_files, write_data_check, write_outputs
from outcrop.workflows.preparation import Checked, Options, Preparation, check, longest_row, steps_of, training_child

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
        options = hyperparameters.read(request["hyperParameters"], request["num_parameters"], request["customization"])
        run = self.storage.run_folder(job.id)

        prepared = Prepared.read(run)
        if prepared is None and request.get("distillation") is not None:
            prepared = self._distill(job, renderer, weights.folder, options, run, tell)
        elif prepared is None:
            with tell.phase("validation"):
                checked = self._check(job, request, options, weights.folder, tell)
            with tell.phase("dataProcessing"):
                prepared = self._prepare(checked, renderer, options, request, run, tell)
                tell.check()
        with tell.phase("training"):
            result = self._train(run, tell)
            self._keep(job, result, prepared, run, tell)
            if result.status == "failed":
                raise Invalid(f"training failed: {result.reason}")
            if result.status == "stopped":
                raise Stopped

    # --- the stations -----------------------------------------------------------------------------------------------

    def _check(self, job: Job, request: dict[str, Any], options: Options, base: Path, tell: Tell) -> Checked:
        """The data's check; what it finds is an event, and stands whole beside the job's other outputs, also when the job fails."""
        checked = check(request, options, self.storage.objects, self.settings, base)
        found = checked.found
        write_data_check(self.storage.objects, request["output_uri"], job.id, found.described())
        tell.event(
            kind="data", rows=checked.train.rows, validation_rows=[report.rows for report in checked.validation],
            verdict=found.verdict, findings=dict(found.counts),
        )  # fmt: skip
        found.refuse()
        return checked

    def _distill(self, job: Job, renderer: Renderer, base: Path, options: Options, run: Path, tell: Tell) -> "Prepared":
        """The same for a distillation, whose training file is first made from its prompts."""
        distill = Distill(self.storage, self.registry, self.settings)
        with tell.phase("validation"):
            taken = distill.read(job, tell)
        with tell.phase("dataProcessing"):
            longest = longest_row(options, job.request["context"])

            def fits(row: Conversation) -> str:
                (rendered,) = renderer.training_rows([row])
                if isinstance(rendered, Invalid):
                    return rendered.message
                size = len(rendered.tokens)
                return (
                    f"the row has {size:,} tokens; the student takes {longest:,} (maxTokens)" if size > longest else ""
                )

            uri, made_by = distill.make(job, taken, fits, run, tell)
            request = {**job.request, "training_uri": uri}
            checked = self._check(job, request, options, base, tell)
            prepared = self._prepare(checked, renderer, options, request, run, tell, made_by)
            tell.check()
        return prepared

    def _prepare(
        self,
        checked: Checked,
        renderer: Renderer,
        options: Options,
        request: dict[str, Any],
        run: Path,
        tell: Tell,
        made_by: dict[str, Any] | None = None,
    ) -> "Prepared":
        """Rows in the base model's tokens, the plan beside them, and last of all the note that both are whole."""
        laid = Preparation.of(self.storage, self.registry, self.settings).lay_down(
            checked, renderer, options, request, run
        )
        tell.event(
            kind="plan", rows=len(laid.rows), tokens=len(laid.rows.tokens), answer_tokens=int(laid.rows.is_answer.sum()),
            longest_row=laid.rows.longest(), rows_cut=0, steps=steps_of(laid.plan, laid.rows), threads=laid.plan.threads,
        )  # fmt: skip
        tell.result(hyperParameters=laid.hyperparameters)
        prepared = Prepared(
            hyperparameters=laid.hyperparameters, renderer=renderer.hash, training_data=_lineage(checked.train),
            validation_data=[_lineage(report) for report in checked.validation], made_by=made_by,
            base_sha256=weights_sha256(self.registry.weights(request["base"])),
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
            training_uri=request["training_uri"], training_config=request.get("training_config") or {},
            customization_config=request.get("customization_config") or {}, validation_uris=request["validation_uris"],
            output_uri=request["output_uri"], hyperparameters=prepared.hyperparameters,
            training_loss=result.training_loss, validation_losses=result.validation_losses, tags=request["model_tags"],
            lineage={
                "training_data": prepared.training_data, "validation_data": prepared.validation_data,
                "base": request["base"], "renderer": prepared.renderer, "outcrop": outcrop.__version__,
                "steps": result.step, "tokens": result.tokens, "seconds": round(result.seconds, 1),
                "stopped_early": result.stopped_early, "status": result.status,
                "general_losses": result.general_losses, "base_sha256": prepared.base_sha256,
                "request": {name: request.get(name) for name in ("hyperParameters", "base_model", "context", "num_parameters", "distillation")},
                "software": _software(run), **({"distillation": prepared.made_by} if prepared.made_by else {}),
            },
        )  # fmt: skip
        self.registry.register(model, weights)
        if result.status == "completed":
            self._clear(run)
        tell.result(
            model_arn=model.arn, training_loss=result.training_loss, validation_losses=result.validation_losses,
            stopped_early=result.stopped_early, steps=result.step, general_losses=result.general_losses,
        )  # fmt: skip

    @staticmethod
    def _clear(run: Path) -> None:
        """Remove what only the run needed: rows, state, and checkpoints, which are in the output folder."""
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        for path in (*run.glob("*.rows"), *run.glob("*.targets"), *run.glob("state.*"), run / PREPARED):
            path.unlink(missing_ok=True)


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What was settled before training, beside the rows and the plan that it says are whole."""

    hyperparameters: dict[str, str]
    renderer: str
    training_data: dict[str, Any]
    validation_data: list[dict[str, Any]]
    base_sha256: str = ""
    made_by: dict[str, Any] | None = None
    """How a distillation's training data was made."""

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


def weights_sha256(weights: Weights) -> str:
    """One hash of all weights that a training begins with: a base's, and an adapter's on top."""
    folders = [weights.folder, *([weights.adapter] if weights.adapter else [])]
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def _software(run: Path) -> dict[str, Any]:
    """What, besides data and settings, a run's bits depend on."""
    plan = Plan.read(run)
    with (run / PROGRESS).open("rb") as lines:
        rehearsed = msgspec.json.decode(lines.readline())
    return {
        "torch": version("torch"), "machine": platform.machine(), "device": plan.device, "threads": plan.threads,
        "processes": plan.processes, "microbatch_tokens": rehearsed.get("microbatch_tokens", plan.settings.microbatch_tokens),
    }  # fmt: skip


def _last_told(tell: Tell) -> tuple[int, int]:
    """The last line of training that the job's events have: a child that goes on says some of them again."""
    return max((_place(event) for event in tell.told() if event["kind"] in ORDER), default=(-1, 0))


def _place(line: dict[str, Any]) -> tuple[int, int]:
    """Where a line stands in progress.jsonl: by step, the step itself before its evaluation."""
    return line.get("step", 0), ORDER[line["kind"]]


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
