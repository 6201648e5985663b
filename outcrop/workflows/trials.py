"""Trials of many settings over one set of rows: what is tried next, which are stopped on the way, and what came of them.

A trial is stopped when a third of its steps are done and its best validation loss is above the median of what the others
had come to by then (the median stopping rule: Golovin et al., Google Vizier, 2017).
"""

import csv
import io
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Protocol

import msgspec

from outcrop import hyperparameters
from outcrop.errors import Invalid
from outcrop.jobs.children import tail
from outcrop.training import Plan, Result
from outcrop.training.plan import PROGRESS, STOP, Evaluated, Progress
from outcrop.workflows.preparation import training_child

# A trial is judged from this part of its steps on, against at least so many others.
JUDGED_FROM, FEWEST_OTHERS = 1 / 3, 2
# These change the rows, which all trials share.
NOT_SWEPT = ("maxTokens", "evalPercentage", "generalValidationS3Uri", "seed")
POLL_S = 0.2
# Of the picture: Okabe and Ito's colours, which most people can tell apart.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#999999")
MOST_NAMED = 18
MOST_TRIALS = 1000
SAID = "trial.json"

Said = dict[str, str]


class Trial(msgspec.Struct, frozen=True):
    """One run. `curve` has the part of the steps done and the validation loss (nats), point by point."""

    hyperparameters: Said
    loss: float | None
    curve: list[tuple[float, float]]
    was_stopped: bool
    seconds: float
    failure: str = ""
    checkpoint: str | None = None
    """Folder of the best weights."""


class Search(Protocol):
    """What to try next."""

    def ask(self) -> Said | None:
        """Settings to try, or None when there are no more."""

    def skip(self, said: Said) -> None:
        """An earlier process has begun this one."""

    def hear(self, trial: Trial) -> None:
        """A trial has ended, in this process or in one before it."""


class Grid:
    """Every combination, in order."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._left = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]

    def ask(self) -> Said | None:
        return self._left.pop(0) if self._left else None

    def skip(self, said: Said) -> None:
        self._left.remove(said)

    def hear(self, trial: Trial) -> None:
        """Nothing to learn: what is tried was settled before."""


class Guided:
    """So many trials, each chosen by what the earlier ones came to (TPE: Bergstra et al., 2011, as optuna has it).

    Values of a range are drawn evenly in the logarithm. Raises Invalid when optuna is not installed.
    """

    def __init__(
        self, values: Mapping[str, Sequence[str]], ranges: Mapping[str, tuple[str, str]], trials: int, seed: int
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise Invalid("ranges are searched by optuna; install outcrop[sweeps], or give a grid of values") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(list(some)) for name, some in values.items()
        }
        for name, (low, high) in ranges.items():
            if hyperparameters.BY_NAME[name].kind is int:
                self._space[name] = optuna.distributions.IntDistribution(int(low), int(high), log=True)
            else:
                self._space[name] = optuna.distributions.FloatDistribution(float(low), float(high), log=True)
        self._sampler, self._seed = optuna.samplers.TPESampler, seed
        self._study = optuna.create_study(sampler=self._sampler(seed=seed))
        self._asked: list[tuple[Said, Any]] = []
        self._left, self._new_trial = trials, optuna.trial.create_trial

    def ask(self) -> Said | None:
        if self._left <= 0:
            return None
        self._left -= 1
        asked = self._study.ask(self._space)
        said = {
            name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in asked.params.items()
        }
        self._asked.append((said, asked))
        return said

    def skip(self, said: Said) -> None:
        self._left -= 1
        self._seed += 1  # what was drawn before is not drawn again
        self._study.sampler = self._sampler(seed=self._seed)

    def hear(self, trial: Trial) -> None:
        asked = next((entry for entry in self._asked if entry[0] == trial.hyperparameters), None)
        loss = float("inf") if trial.loss is None else trial.loss
        if asked is not None:
            self._asked.remove(asked)
            self._study.tell(asked[1], loss)
        else:
            params = {name: _as(kind, trial.hyperparameters[name]) for name, kind in self._space.items()}
            self._study.add_trial(self._new_trial(params=params, distributions=self._space, value=loss))


def _as(kind: Any, text: str) -> Any:
    low = getattr(kind, "low", None)
    return text if low is None else type(low)(text)


def search_of(
    values: Mapping[str, Sequence[str]], ranges: Mapping[str, tuple[str, str]], trials: int | None,
    given: Mapping[str, str],
) -> Search:  # fmt: skip
    """A search over these values and ranges. Raises Invalid for what cannot be swept, is given twice or out of range."""
    for name in (*values, *ranges):
        if name not in hyperparameters.BY_NAME or name in NOT_SWEPT:
            allowed = ", ".join(one for one in hyperparameters.BY_NAME if one not in NOT_SWEPT)
            raise Invalid(f"the sweep names {name!r}; it may name {allowed}")
        if name in given:
            raise Invalid(f"{name} is both set and swept")
        if name in values and name in ranges:
            raise Invalid(f"{name} has both values and a range")
        for text in (*values.get(name, ()), *ranges.get(name, ())):
            hyperparameters.BY_NAME[name].read(text)
    for name, (low, high) in ranges.items():
        if hyperparameters.BY_NAME[name].kind is str or not 0 < float(low) < float(high):
            raise Invalid(f"the range of {name} is {low} to {high}; it must be two rising numbers above 0")
    if not values and not ranges:
        raise Invalid("the sweep names no hyperparameter; give values, such as batchSize=8,32")
    if any(not some for some in values.values()):
        raise Invalid("a hyperparameter of the sweep has no values")
    if ranges and not trials:
        raise Invalid("a range needs the number of trials")
    if (combinations := math.prod(map(len, values.values()))) > MOST_TRIALS and not trials:
        raise Invalid(f"the grid has {combinations:,} combinations; at most {MOST_TRIALS:,} are tried")
    return Guided(values, ranges, trials, int(given.get("seed", 0))) if trials else Grid(values)


@dataclass
class _Running:
    run: Path
    said: Said
    context: Any
    child: Any
    was_stopped: bool = False


@dataclass
class Trials:
    """Trials in folders of one folder, so many at once. `lay_out` writes a trial's plan into its folder.

    What an earlier process had finished counts, and what it had begun goes on.
    """

    folder: Path
    search: Search
    lay_out: Callable[[Path, Said], None]
    at_once: int
    ended: list[Trial] = field(default_factory=list)
    _waiting: list[tuple[Path, Said]] = field(default_factory=list)
    _number: int = 0

    def run(self, tell: Callable[[Trial], None], wants_stop: Callable[[], bool] = lambda: False) -> list[Trial]:
        """All of them, best first. When a stop is wanted those under way end where they are, and no more begin."""
        self._waiting = self._take_up()
        self._number = len(list(self.folder.glob("trial-*")))
        running: list[_Running] = []
        try:
            while True:
                while len(running) < self.at_once and not wants_stop() and (begun := self._begin_next(tell)):
                    running.append(begun)
                if not running:
                    return self.ranked()
                time.sleep(POLL_S)
                for one in [one for one in running if one.child.poll() is not None]:
                    running.remove(one)
                    one.context.__exit__(None, None, None)
                    self._end(one.run, one.said, one.was_stopped)
                    tell(self.ended[-1])
                self._stop_losers(running, wants_stop())
        finally:
            for one in running:
                one.context.__exit__(None, None, None)

    def _begin_next(self, tell: Callable[[Trial], None]) -> _Running | None:
        """Start what an earlier process left, or what the search asks for; None when there is no more."""
        while not self._waiting:
            said = self.search.ask()
            if said is None:
                return None
            self._number += 1
            try:
                self._waiting.append((self._lay_out(self._number - 1, said), said))
            except Invalid as error:  # such as options that exclude each other
                self._hear(Trial(said, None, [], False, 0.0, error.message))
                tell(self.ended[-1])
        run, said = self._waiting.pop(0)
        context = training_child(run, Plan.read(run))
        return _Running(run, said, context, context.__enter__())

    def _stop_losers(self, running: list[_Running], all_of_them: bool) -> None:
        curves = {one.run: curve_of(one.run) for one in running}
        for one in running:
            others = [trial.curve for trial in self.ended] + [
                curves[other.run] for other in running if other is not one
            ]
            if not one.was_stopped and (all_of_them or is_losing(curves[one.run], others)):
                (one.run / STOP).touch()
                one.was_stopped = True

    def ranked(self) -> list[Trial]:
        """Those that have ended, best first."""
        return sorted(self.ended, key=lambda trial: float("inf") if trial.loss is None else trial.loss)

    def _take_up(self) -> list[tuple[Path, Said]]:
        """What an earlier process left: what had ended is heard, what had not is the answer."""
        left = []
        for said_file in sorted(self.folder.glob(f"trial-*/{SAID}")):
            run, said = said_file.parent, msgspec.json.decode(said_file.read_bytes(), type=Said)
            self.search.skip(said)
            if Result.read(run) is not None:
                self._end(run, said, (run / STOP).exists())
            else:
                left.append((run, said))
        return left

    def _lay_out(self, number: int, said: Said) -> Path:
        run = self.folder / f"trial-{number:03d}"
        run.mkdir()
        try:
            self.lay_out(run, said)
        except Invalid:
            run.rmdir()
            raise
        (run / SAID).write_bytes(msgspec.json.encode(said))
        return run

    def _end(self, run: Path, said: Said, was_stopped: bool) -> None:
        result, curve = Result.read(run), curve_of(run)
        if result is None or result.status == "failed":
            reason = result.reason if result is not None else tail(run / "training.log")
            trial = Trial(said, None, curve, was_stopped, 0.0, reason)
        else:
            best = statistics.fmean(result.validation_losses) if result.validation_losses else None
            checkpoint = str(run / result.checkpoint) if result.checkpoint else None
            trial = Trial(said, best, curve, was_stopped, result.seconds, checkpoint=checkpoint)
        self._hear(trial)

    def _hear(self, trial: Trial) -> None:
        self.ended.append(trial)
        self.search.hear(trial)


def is_losing(curve: list[tuple[float, float]], others: Sequence[list[tuple[float, float]]]) -> bool:
    """Whether a trial that has come so far is not worth going on with."""
    if not curve or curve[-1][0] < JUDGED_FROM:
        return False
    done = curve[-1][0]
    so_far = [[loss for share, loss in other if share <= done + 1e-9] for other in others]
    best = [min(losses) for losses in so_far if losses]
    return len(best) >= FEWEST_OTHERS and min(loss for _, loss in curve) > statistics.median(best)


def curve_of(run: Path) -> list[tuple[float, float]]:
    """The validation losses so far, each with the part of the steps done."""
    path = run / PROGRESS
    data = path.read_bytes() if path.is_file() else b""
    lines = [msgspec.json.decode(line, type=Progress) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    steps = next((line.steps for line in lines if not isinstance(line, Evaluated)), 1)
    return [
        (line.step / steps, statistics.fmean(line.losses))
        for line in lines
        if isinstance(line, Evaluated) and line.losses
    ]


def table(trials: Sequence[Trial]) -> str:
    """The trials as CSV, in the order given."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.hyperparameters))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rank", *names, "validation_loss", "was_stopped", "seconds", "failure"])
    for place, trial in enumerate(trials, 1):
        loss = "" if trial.loss is None else f"{trial.loss:.6f}"
        values = [trial.hyperparameters.get(name, "") for name in names]
        rows.writerow([place, *values, loss, trial.was_stopped, f"{trial.seconds:.1f}", trial.failure])
    return text.getvalue()


def picture(trials: Sequence[Trial]) -> str:
    """The trials' curves as SVG, the best one black and thick; losses on a logarithmic axis."""
    points = [(share, max(loss, 1e-9)) for trial in trials for share, loss in trial.curve]
    if not points:
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="40"><text x="10" y="24">no losses</text></svg>'
        )
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    height = math.log(high / low) or 1.0

    def at(share: float, loss: float) -> tuple[float, float]:
        return 70 + 420 * share, 30 + 300 * math.log(high / max(loss, 1e-9)) / height

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="1020" height="370" font-family="sans-serif" font-size="12">',
        '<rect width="1020" height="370" fill="white"/>',
        '<path d="M70,30 V330 H490" fill="none" stroke="#888888"/>',
        '<text x="70" y="18">validation loss (nats a token, logarithmic)</text>',
        '<text x="490" y="350" text-anchor="end">end of the run</text>',
    ]
    for loss in (high, (high * low) ** 0.5, low):
        parts.append(f'<text x="62" y="{at(0, loss)[1] + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    for place, trial in reversed(list(enumerate(trials))):
        colour = COLOURS[(place - 1) % len(COLOURS)] if place else "#000000"
        places = [at(*point) for point in trial.curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places)
        parts.append(
            f'<g stroke="{colour}" fill="{colour}"><polyline points="{line}" fill="none" '
            f'stroke-width="{1 if place else 2.5}"/>{dots}</g>'
        )
        if place < MOST_NAMED:
            said = ", ".join(f"{name} {value}" for name, value in trial.hyperparameters.items())
            loss_said = (
                "failed" if trial.loss is None else f"{trial.loss:.4f}{' (stopped)' if trial.was_stopped else ''}"
            )
            y = 40 + 17 * place
            parts.append(f'<path d="M505,{y - 4} h16" stroke="{colour}" stroke-width="3"/>')
            parts.append(f'<text x="528" y="{y}">{escape(f"{loss_said}  {said}")}</text>')
    if len(trials) > MOST_NAMED:
        parts.append(f'<text x="528" y="{40 + 17 * MOST_NAMED}">and {len(trials) - MOST_NAMED} more</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
