"""Many settings over one set of rows, and the best of them.

The data is checked and rendered once; every trial maps the same rows and the same base model, so that several run at once
in the memory of one and what each of them adds.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outcrop import hyperparameters
from outcrop.datasets.formats import SUPERVISED
from outcrop.errors import Invalid
from outcrop.jobs import Job, Lost, Tell
from outcrop.jobs.worker import Stopped
from outcrop.machine import free_memory, idle_cpus
from outcrop.registry import Registry
from outcrop.rendering import Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.workflows.outputs import write_sweep
from outcrop.workflows.plan import check_files
from outcrop.workflows.preparation import Checked, Options, Preparation, check
from outcrop.workflows.trials import SAID, Said, Search, Trial, Trials, picture, search_of, table

# Set aside when there is no validation file, because trials are compared by validation loss.
ASIDE = "10"


@dataclass(frozen=True)
class Space:
    """What is swept: values, ranges, and the number of trials (None: every combination of the values)."""

    values: Mapping[str, Sequence[str]]
    ranges: Mapping[str, tuple[str, str]]
    trials: int | None = None


@dataclass(frozen=True)
class Sweep:
    """The work of a sweep."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, job: Job, tell: Tell) -> None:
        """Check, render once, try, and write table, picture and the best weights to the output folder."""
        request = job.request
        if "trials" in job.result:  # a worker died after it had written everything
            return
        space = Space(request["grid"], request["ranges"], request["trials"])
        given, run = (
            _with_validation(request["hyperParameters"], request["validation_uris"]),
            self.storage.run_folder(job.id),
        )
        options = hyperparameters.read(given, request["num_parameters"], request["customization"])
        with tell.phase("validation"):
            base = self.registry.weights(request["base"]).folder
            checked = check(request, options, self.storage.objects, self.settings, base)
            checked.found.refuse()
        with tell.phase("training"):
            trials = self._trials(run, checked, options, request, given, space)

            def say(trial: Trial) -> None:
                tell.event(kind="trial", **msgspec.to_builtins(trial))

            def wants_stop() -> bool:
                if tell.is_lost.is_set():
                    raise Lost(job.id)
                return tell.wants_stop.is_set()

            ranked = trials.run(say, wants_stop)
            if ranked and ranked[0].checkpoint and not (Path(ranked[0].checkpoint) / "adapter_config.json").is_file():
                self.registry.complete(Path(ranked[0].checkpoint), self.registry.weights(request["base"]).folder)
            winner = write_sweep(self.storage.objects, request["output_uri"], job.id, ranked)
            tell.result(trials=msgspec.to_builtins(ranked), weights_uri=winner)
            shutil.rmtree(run, ignore_errors=True)
            if tell.wants_stop.is_set():
                raise Stopped
            if all(trial.loss is None for trial in ranked):
                raise Invalid(f"every trial failed; the first one: {ranked[0].failure}")

    def files(
        self, train: Path, validation: list[Path], base: str, given: Mapping[str, str], space: Space, folder: Path,
        say: Callable[[Trial], None], at_once: int | None = None,
    ) -> list[Trial]:  # fmt: skip
        """The same over files of this machine, in a folder that is kept; best first in the answer.

        Raises Invalid for data or settings that cannot be used.
        """
        model = self.registry.base(base)
        given = _with_validation(given, validation)
        options = hyperparameters.read(given, model.num_parameters)
        checked = check_files(train, validation, options, SUPERVISED, self.settings)
        request = {"base": base, "base_model": model.id, "context": model.context, "num_parameters": model.num_parameters,
                   "customization": "FINE_TUNING"}  # fmt: skip
        for before in folder.glob(f"trial-*/{SAID}"):
            shutil.rmtree(before.parent)
        folder.mkdir(parents=True, exist_ok=True)
        ranked = self._trials(folder, checked, options, request, given, space, at_once).run(say)
        (folder / "sweep.json").write_bytes(msgspec.json.format(msgspec.json.encode(ranked)))
        (folder / "sweep.csv").write_text(table(ranked), encoding="utf-8")
        (folder / "sweep.svg").write_text(picture(ranked), encoding="utf-8")
        return ranked

    # --- the stations -----------------------------------------------------------------------------------------------

    def _trials(
        self, folder: Path, checked: Checked, options: Options, request: dict[str, Any], given: Mapping[str, str],
        space: Space, at_once: int | None = None,
    ) -> Trials:  # fmt: skip
        """Rows and a plan for all, and what makes a trial's plan of it."""
        search: Search = search_of(space.values, space.ranges, space.trials, given)
        preparation = Preparation.of(self.storage, self.registry, self.settings)
        rows = folder / "rows"
        rows.mkdir(exist_ok=True)
        renderer = Renderer(self.registry.weights(request["base"]).folder)
        laid = preparation.lay_down(checked, renderer, options, request, rows)
        names = [str((rows / name).absolute()) for name in laid.plan.validation_rows]
        at_once = at_once or self.settings.training_threads or idle_cpus()
        memory = (round(self.settings.training_memory_gb * 1e9) or free_memory()) // at_once

        def lay_out(run: Path, said: Said) -> None:
            read = hyperparameters.read({**given, **said}, request["num_parameters"], request["customization"])
            read["batchSize"] = hyperparameters.batch_size(read, len(laid.rows))
            msgspec.structs.replace(
                preparation.plan(request, read, names), train_rows=str((rows / "train.rows").absolute()), is_trial=True,
                threads=1, processes=1, memory_bytes=memory,
            ).write(run)  # fmt: skip

        return Trials(folder, search, lay_out, at_once)


def _with_validation(given: Mapping[str, str], validation: Sequence[object]) -> dict[str, str]:
    return dict(given) if validation or "evalPercentage" in given else {**given, "evalPercentage": ASIDE}
