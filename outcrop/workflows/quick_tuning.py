"""Quick tunings of a base on some rows, by the product's own training: what a trial needs, and no custom model."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from outcrop import hyperparameters
from outcrop.datasets.conversion import written
from outcrop.datasets.formats import SUPERVISED
from outcrop.errors import Invalid
from outcrop.evaluation import Case
from outcrop.jobs.children import tail
from outcrop.registry import Registry, Weights
from outcrop.rendering import Conversation, Message, Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.training import Result
from outcrop.training.plan import PROGRESS, Rehearsed
from outcrop.workflows.plan import check_files
from outcrop.workflows.preparation import Preparation, training_child

# A quick tuning passes over its rows so often that this many are seen, within the range of epochCount; it stops early on the watched rows.
ROWS_SEEN = 3000
# Evaluations without a better loss, two passes over the rows: with one, tunings that rest on a plateau for a while were ended there.
PATIENCE = 8


@dataclass(frozen=True)
class Tuned:
    """Adapters on a base, and how long their training took."""

    weights: Weights
    seconds: float


@dataclass
class QuickTuner:
    """Tunings of one base, each in a folder of its own below `folder`. `given` are hyperparameters; `seconds` adds up."""

    storage: Storage
    registry: Registry
    settings: Settings
    base: str
    folder: Path
    seed: int = 0
    given: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def tune(self, train: Sequence[Case], watch: Sequence[Case], name: str) -> Tuned:
        """Adapters for the base; those of an earlier start that was cut short count, when rows and settings are the same.

        Raises Invalid with the training's own reason when it fails.
        """
        lines = [b"".join(map(_line, some)) for some in (train, watch)]
        what = hashlib.sha256(
            msgspec.json.encode([self.base, self.seed, self.given, *(line.hex() for line in lines)])
        ).hexdigest()
        run = self.folder / f"{name}-{what[:12]}"
        result = Result.read(run) if run.is_dir() else None
        if result is None or result.status == "failed":
            self._run(lines, len(train), run, rehearses_only=False)
            result = Result.read(run)
        if result is None or result.status == "failed" or result.checkpoint is None:
            reason = result.reason if result is not None else tail(run / "training.log")
            raise Invalid(f"the tuning on {len(train):,} rows failed: {reason}")
        self.seconds += result.seconds
        base = self.registry.weights(self.base)
        return Tuned(Weights(base.model_id, base.folder, run / result.checkpoint), result.seconds)

    def rehearse(self, train: Sequence[Case], watch: Sequence[Case]) -> Rehearsed | None:
        """What a tuning would take, without it; None when nothing was rehearsed."""
        run = self.folder / "rehearsal"
        self._run([b"".join(map(_line, some)) for some in (train, watch)], len(train), run, rehearses_only=True)
        lines = (run / PROGRESS).read_bytes().splitlines() if (run / PROGRESS).is_file() else []
        return msgspec.json.decode(lines[0], type=Rehearsed) if lines else None

    def _run(self, lines: Sequence[bytes], count: int, run: Path, rehearses_only: bool) -> None:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        for name, data in zip(("train", "watch"), lines, strict=True):
            (run / f"{name}.jsonl").write_bytes(data)
        base = self.registry.base(self.base)
        epochs = min(10, max(2, round(ROWS_SEEN / count)))
        given = {
            "epochCount": str(epochs),
            "earlyStoppingPatience": str(PATIENCE),
            "seed": str(self.seed),
            **self.given,
        }
        options = hyperparameters.read(given, base.num_parameters)
        checked = check_files(run / "train.jsonl", [run / "watch.jsonl"], options, SUPERVISED, self.settings)
        request = {"base": self.base, "base_model": base.id, "context": base.context}
        preparation = Preparation.of(self.storage, self.registry, self.settings)
        laid = preparation.lay_down(
            checked,
            Renderer(self.registry.weights(self.base).folder),
            options,
            request,
            run,
            rehearses_only=rehearses_only,
        )
        laid.rows.release()
        with training_child(run, laid.plan) as child:
            child.wait()


def _line(case: Case) -> bytes:
    return written(
        "messages",
        Conversation((*case.prompt.messages, Message("assistant", case.reference or "")), case.prompt.system),
        f"line {case.line}",
    )
