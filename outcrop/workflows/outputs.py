"""What a customization job writes to its output folder in S3.

Metrics stand where AWS's documentation says and where AWS's notebooks read, because the two disagree:
`validation_artifacts/post_fine_tuning_validation/validation_metrics.csv` and
`.../post_fine_tuning_validation/validation/validation_metrics.csv`. The weights, which AWS never writes, stand beside.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outcrop.datasets.source import split_uri
from outcrop.storage import Objects
from outcrop.training.plan import PROGRESS, Evaluated, Progress, StepDone

STEPS = "training_artifacts/step_wise_training_metrics.csv"
VALIDATION = "validation_artifacts/post_fine_tuning_validation"
WEIGHTS, CHECKPOINTS = "weights", "checkpoints"


@dataclass(frozen=True)
class Metrics:
    """The two tables, as CSV."""

    training: str
    validation: list[str]


def metrics_files(run: Path) -> Metrics:
    """The tables of a run: a row per step, counted from 0 as AWS does, and a row per evaluation for each validation file."""
    decoder = msgspec.json.Decoder(Progress)
    lines = [decoder.decode(line) for line in _progress(run).splitlines()]
    training = ["step_number,epoch_number,training_loss,perplexity"]
    validation: list[list[str]] = []
    for line in lines:
        if isinstance(line, StepDone):
            training.append(f"{line.step - 1},{line.epoch},{line.loss:.6f},{_perplexity(line.loss)}")
        elif isinstance(line, Evaluated):
            while len(validation) < len(line.losses):
                validation.append(["step_number,epoch_number,validation_loss,perplexity"])
            for table, loss in zip(validation, line.losses, strict=True):
                table.append(f"{line.step - 1},{line.epoch},{loss:.6f},{_perplexity(loss)}")
    return Metrics("\n".join(training) + "\n", ["\n".join(table) + "\n" for table in validation])


def _progress(run: Path) -> bytes:
    return (run / PROGRESS).read_bytes() if (run / PROGRESS).is_file() else b""


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700.0)):.6f}"


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints that a run has finished, in the order of their steps."""
    return sorted((run / CHECKPOINTS).glob("step-*"))


def write_outputs(
    objects: Objects, output_uri: str, job_id: str, metrics: Metrics, weights: Path | None, checkpoints: list[Path]
) -> None:
    """Metrics, checkpoints and the best weights under `{output}/model-customization-job-{id}/`.

    A checkpoint's folder can be given to CreateCustomModel.
    """
    bucket, folder = split_uri(output_uri)
    prefix = f"{folder.rstrip('/')}/" if folder.strip("/") else ""
    prefix += f"model-customization-job-{job_id}/"
    objects.put_bytes(bucket, prefix + STEPS, metrics.training.encode(), "text/csv")
    for number, table in enumerate(metrics.validation):
        names = ["", "validation/"] if number == 0 else [f"validation-{number}/"]
        for name in names:
            objects.put_bytes(bucket, f"{prefix}{VALIDATION}/{name}validation_metrics.csv", table.encode(), "text/csv")
    for checkpoint in checkpoints:
        _write_folder(objects, bucket, f"{prefix}{CHECKPOINTS}/{checkpoint.name}", checkpoint)
    if weights is not None:
        _write_folder(objects, bucket, f"{prefix}{WEIGHTS}", weights)


def _write_folder(objects: Objects, bucket: str, prefix: str, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            etag = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            file.seek(0)
            copy = objects.new_file(iter(lambda: file.read(1 << 20), b""))
        objects.put(bucket, f"{prefix}/{path.name}", copy, etag, {"ContentType": "application/octet-stream"})
