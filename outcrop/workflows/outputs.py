"""What a customization job writes to its output folder in S3.

Metrics stand where AWS's documentation says and where AWS's notebooks read, because the two disagree:
`validation_artifacts/post_fine_tuning_validation/validation_metrics.csv` and
`.../post_fine_tuning_validation/validation/validation_metrics.csv`. The weights, which AWS never writes, stand beside.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outcrop.datasets.source import split_uri
from outcrop.storage import Objects
from outcrop.training.plan import PROGRESS, Evaluated, Progress, StepDone
from outcrop.workflows.trials import Trial, picture, table

STEPS = "training_artifacts/step_wise_training_metrics.csv"
VALIDATION = "validation_artifacts/post_fine_tuning_validation"
WEIGHTS, CHECKPOINTS, DATA_CHECK = "weights", "checkpoints", "data_check.json"


@dataclass(frozen=True)
class Metrics:
    """The two tables, as CSV."""

    training: str
    validation: list[str]
    general: str | None = None


def metrics_files(run: Path) -> Metrics:
    """The tables of a run: a row per step, counted from 0 as AWS does, and a row per evaluation for each validation file.

    The general rows' table begins with step -1, which is before training.
    """
    decoder = msgspec.json.Decoder(Progress)
    lines = [decoder.decode(line) for line in _progress(run).splitlines()]
    training = ["step_number,epoch_number,training_loss,perplexity"]
    validation: list[list[str]] = []
    general = ["step_number,epoch_number,general_loss,perplexity"]
    for line in lines:
        if isinstance(line, StepDone):
            training.append(f"{line.step - 1},{line.epoch},{line.loss:.6f},{_perplexity(line.loss)}")
        elif isinstance(line, Evaluated):
            while len(validation) < len(line.losses):
                validation.append(["step_number,epoch_number,validation_loss,perplexity"])
            for rows, loss in zip(validation, line.losses, strict=True):
                rows.append(f"{line.step - 1},{line.epoch},{loss:.6f},{_perplexity(loss)}")
            if line.general_loss is not None:
                general.append(f"{line.step - 1},{line.epoch},{line.general_loss:.6f},{_perplexity(line.general_loss)}")
    tables = ["\n".join(rows) + "\n" for rows in (training, general, *validation)]
    return Metrics(tables[0], tables[2:], tables[1] if len(general) > 1 else None)


def _progress(run: Path) -> bytes:
    return (run / PROGRESS).read_bytes() if (run / PROGRESS).is_file() else b""


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700.0)):.6f}"


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints that a run has finished, in the order of their steps."""
    return sorted((run / CHECKPOINTS).glob("step-*"))


def write_sweep(objects: Objects, output_uri: str, job_id: str, ranked: list[Trial]) -> str | None:
    """Table, picture and the best trial's weights under `{output}/model-customization-sweep-{id}/`; the weights' URI."""
    bucket, prefix = prefix_of(output_uri, f"model-customization-sweep-{job_id}")
    objects.put_bytes(
        bucket, prefix + "sweep.json", msgspec.json.format(msgspec.json.encode(ranked)), "application/json"
    )
    objects.put_bytes(bucket, prefix + "sweep.csv", table(ranked).encode(), "text/csv")
    objects.put_bytes(bucket, prefix + "sweep.svg", picture(ranked).encode(), "image/svg+xml")
    best = ranked[0].checkpoint if ranked and ranked[0].loss is not None else None
    if best is None:
        return None
    _write_folder(objects, bucket, f"{prefix}{WEIGHTS}", Path(best))
    return f"s3://{bucket}/{prefix}{WEIGHTS}/"


def write_data_check(objects: Objects, output_uri: str, job_id: str, report: dict[str, Any]) -> None:
    """What the check of the data found, as `data_check.json` in the output folder."""
    bucket, prefix = prefix_of(output_uri, f"model-customization-job-{job_id}")
    objects.put_bytes(
        bucket, f"{prefix}{DATA_CHECK}", msgspec.json.format(msgspec.json.encode(report)), "application/json"
    )


def write_outputs(
    objects: Objects, output_uri: str, job_id: str, metrics: Metrics, weights: Path | None, checkpoints: list[Path]
) -> None:
    """Metrics, checkpoints and the best weights under `{output}/model-customization-job-{id}/`.

    A checkpoint's folder can be given to CreateCustomModel.
    """
    bucket, prefix = prefix_of(output_uri, f"model-customization-job-{job_id}")
    objects.put_bytes(bucket, prefix + STEPS, metrics.training.encode(), "text/csv")
    if metrics.general is not None:
        objects.put_bytes(bucket, f"{prefix}{VALIDATION}/general_metrics.csv", metrics.general.encode(), "text/csv")
    for number, rows in enumerate(metrics.validation):
        names = ["", "validation/"] if number == 0 else [f"validation-{number}/"]
        for name in names:
            objects.put_bytes(bucket, f"{prefix}{VALIDATION}/{name}validation_metrics.csv", rows.encode(), "text/csv")
    for checkpoint in checkpoints:
        _write_folder(objects, bucket, f"{prefix}{CHECKPOINTS}/{checkpoint.name}", checkpoint)
    if weights is not None:
        _write_folder(objects, bucket, f"{prefix}{WEIGHTS}", weights)


def prefix_of(output_uri: str, name: str) -> tuple[str, str]:
    """Bucket and prefix, with its slash, of a folder of that name under an output URI."""
    bucket, folder = split_uri(output_uri)
    return bucket, f"{folder.rstrip('/')}/{name}/" if folder.strip("/") else f"{name}/"


def _write_folder(objects: Objects, bucket: str, prefix: str, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            put(objects, bucket, f"{prefix}/{path.name}", iter(lambda file=file: file.read(1 << 20), b""))  # type: ignore[misc]


def put(
    objects: Objects, bucket: str, key: str, chunks: Iterable[bytes], content_type: str = "application/octet-stream"
) -> None:
    """Write an object of any size."""
    objects.put_chunks(bucket, key, chunks, {"ContentType": content_type})
