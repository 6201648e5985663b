"""What a job would take, without a job: the data checked and rendered, the training rehearsed."""

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outcrop import datasets, hyperparameters
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.datasets.source import Source
from outcrop.errors import Invalid
from outcrop.jobs.children import tail
from outcrop.registry import Registry
from outcrop.rendering import Renderer
from outcrop.settings import Settings
from outcrop.training import Result
from outcrop.training.plan import PROGRESS, Rehearsed
from outcrop.workflows.customize import lay_down, training_child


@dataclass(frozen=True)
class Planned:
    """What was found out; `planning_s` and `planning_bytes` are what finding it out took."""

    rehearsed: Rehearsed
    longest_row: int
    hyperparameters: dict[str, str]
    planning_s: float
    planning_bytes: int


def plan(
    train: Path,
    validation: list[Path],
    base: str,
    given: dict[str, str],
    is_text: bool,
    registry: Registry,
    settings: Settings,
) -> Planned:
    """Check and render the files as a job would, and rehearse the training in a folder that is then removed.

    Raises Invalid with what a job would fail with; NotFound for a base that is not in the catalogue.
    """
    began = time.monotonic()
    model = registry.base(base)
    options = hyperparameters.read(given, model.num_parameters)
    allowed = PLAIN_TEXT if is_text else SUPERVISED
    most = settings.max_pretraining_rows if is_text else settings.max_training_rows
    reports = [
        datasets.check(
            _source(path), allowed, fewest=1, most=max(most, 1_000_000), most_bytes=settings.max_training_bytes
        )
        for path in (train, *validation)
    ]  # fmt: skip
    request = {"base": base, "base_model": model.id, "context": model.context}
    with tempfile.TemporaryDirectory(prefix="outcrop-plan-") as name:
        run = Path(name)
        renderer = Renderer(registry.weights(base).folder)
        laid, rows, effective = lay_down(
            reports[0], reports[1:], renderer, options, request, run, registry, settings, rehearses_only=True
        )
        longest = rows.longest()
        del rows
        with training_child(run, laid) as child:
            child.wait()
        result = Result.read(run)
        if result is None or result.status == "failed":
            raise Invalid(
                result.reason if result else f"the rehearsal ended without a word: {tail(run / 'training.log')}"
            )
        line = (run / PROGRESS).read_bytes().splitlines()[0]
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Planned(msgspec.json.decode(line, type=Rehearsed), longest, effective, time.monotonic() - began, used * 1024)


def _source(path: Path) -> Source:
    if not path.is_file():
        raise Invalid(f"{path}: there is no such file")
    return Source(str(path), path.absolute(), path.stat().st_size)
