"""What a job would take, without a job: the data checked and rendered, the training rehearsed."""

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outcrop import datasets, hyperparameters
from outcrop.datasets import Files, Limits
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED, Format
from outcrop.datasets.source import local_file
from outcrop.errors import Invalid
from outcrop.jobs.children import tail
from outcrop.registry import Registry
from outcrop.rendering import Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.training import Result
from outcrop.training.plan import PROGRESS, Rehearsed
from outcrop.workflows.preparation import Checked, Options, Preparation, training_child

# Of files on this machine; what a job takes is in the settings.
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Planned:
    """What was found out; `planning_s` and `planning_bytes` are what finding it out took."""

    rehearsed: Rehearsed
    longest_row: int
    hyperparameters: dict[str, str]
    planning_s: float
    planning_bytes: int


def plan(
    train: Path, validation: list[Path], base: str, given: dict[str, str], is_text: bool, storage: Storage,
    registry: Registry, settings: Settings,
) -> Planned:  # fmt: skip
    """Check and render the files as a job would, and rehearse the training in a folder that is then removed.

    Raises Invalid with what a job would fail with; NotFound for a base that is not in the catalogue.
    """
    began = time.monotonic()
    model = registry.base(base)
    customization = "CONTINUED_PRE_TRAINING" if is_text else "FINE_TUNING"
    options = hyperparameters.read(given, model.num_parameters, customization)
    checked = check_files(train, validation, options, PLAIN_TEXT if is_text else SUPERVISED, settings)
    request = {"base": base, "base_model": model.id, "context": model.context}
    with tempfile.TemporaryDirectory(prefix="plan-", dir=storage.folder / "runs") as name:
        run = Path(name)
        renderer = Renderer(registry.weights(base).folder)
        laid = Preparation.of(storage, registry, settings).lay_down(
            checked, renderer, options, request, run, rehearses_only=True
        )
        longest = laid.rows.longest()
        laid.rows.release()
        with training_child(run, laid.plan) as child:
            child.wait()
        result = Result.read(run)
        if result is None or result.status == "failed":
            raise Invalid(
                result.reason if result else f"the rehearsal ended without a word: {tail(run / 'training.log')}"
            )
        line = (run / PROGRESS).read_bytes().splitlines()[0]
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Planned(
        msgspec.json.decode(line, type=Rehearsed), longest, laid.hyperparameters, time.monotonic() - began, used * 1024
    )


def check_files(
    train: Path, validation: list[Path], options: Options, allowed: tuple[Format, ...], settings: Settings
) -> Checked:
    """Files of this machine, checked as a job checks those in S3. Raises Invalid."""
    if options["generalValidationS3Uri"] is not None:
        raise Invalid("generalValidationS3Uri is for jobs; here give the general rows as a further validation file")
    limits = Limits(1, MOST_ROWS, settings.max_training_bytes)
    files = Files(local_file(train), tuple(map(local_file, validation)))
    found = datasets.preflight(files, allowed, (limits, limits))
    found.refuse()
    return Checked(found)
