"""Many settings over one set of rows: every trial is a run of its own, the losers are stopped on the way.

The data is checked and rendered once, and every trial maps the same rows. A trial is stopped when a third of its steps
are done and its best validation loss is above the median of what the earlier trials had come to by then (the median
stopping rule: Golovin et al., Google Vizier, 2017).
"""

import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from outcrop import datasets, hyperparameters
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.source import Source
from outcrop.errors import Invalid
from outcrop.jobs.children import tail
from outcrop.registry import Registry
from outcrop.rendering import Renderer
from outcrop.settings import Settings
from outcrop.training import Plan, Result
from outcrop.training.plan import PROGRESS, STOP, Evaluated, Progress
from outcrop.workflows.customize import lay_down, plan_of, training_child

# A trial is judged from this part of its steps on, against at least so many before it.
JUDGED_FROM, FEWEST_BEFORE = 1 / 3, 2
# These change the rows, which all trials share.
NOT_SWEPT = ("maxTokens", "evalPercentage", "seed")
POLL_S = 0.2


class Trial(msgspec.Struct, frozen=True):
    """One run of the sweep. `curve` has the part of the steps done and the validation loss (nats), point by point."""

    hyperparameters: dict[str, str]
    loss: float | None
    curve: list[tuple[float, float]]
    was_stopped: bool
    seconds: float
    failure: str = ""


def combinations(grid: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> list[dict[str, str]]:
    """Every combination of the grid's values. Raises Invalid for what cannot be swept, or is given twice."""
    for name in grid:
        if name not in hyperparameters.BY_NAME or name in NOT_SWEPT:
            allowed = ", ".join(one for one in hyperparameters.BY_NAME if one not in NOT_SWEPT)
            raise Invalid(f"the grid names {name!r}; it may name {allowed}")
        if name in given:
            raise Invalid(f"{name} is both set and in the grid")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def sweep(
    train: Path, validation: list[Path], base: str, given: Mapping[str, str], grid: Mapping[str, Sequence[str]],
    registry: Registry, settings: Settings, folder: Path, tell: Callable[[Trial], None],
) -> list[Trial]:  # fmt: skip
    """Run every combination in the folder, best first in the answer; `tell` hears of each as it ends.

    Without validation files a tenth of the rows is set aside. Raises Invalid for data or settings that cannot be used.
    """
    tried = combinations(grid, given)
    model = registry.base(base)
    sources = [Source(str(path), path.absolute(), path.stat().st_size) for path in (train, *validation)]
    reports = [
        datasets.check(one, SUPERVISED, fewest=1, most=1_000_000, most_bytes=settings.max_training_bytes)
        for one in sources
    ]
    aside = {} if validation or "evalPercentage" in given else {"evalPercentage": "10"}
    read = [hyperparameters.read({**given, **aside, **one}, model.num_parameters) for one in tried]
    request = {"base": base, "base_model": model.id, "context": model.context}
    renderer = Renderer(registry.weights(base).folder)
    rows = folder / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    lay_down(reports[0], reports[1:], renderer, read[0], request, rows, registry, settings)
    trials: list[Trial] = []
    for number, (said, options) in enumerate(zip(tried, read, strict=True)):
        run = folder / f"trial-{number}"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        lay_out_trial(run, rows, options, request, registry, settings)
        trials.append(_try(run, said, trials))
        tell(trials[-1])
    ranked = sorted(trials, key=lambda trial: float("inf") if trial.loss is None else trial.loss)
    (folder / "sweep.json").write_bytes(msgspec.json.format(msgspec.json.encode(ranked)))
    (folder / "sweep.svg").write_text(picture(ranked), encoding="utf-8")
    return ranked


def lay_out_trial(
    run: Path, rows: Path, options: dict[str, hyperparameters.Value | None], request: dict[str, Any],
    registry: Registry, settings: Settings,
) -> None:  # fmt: skip
    """A plan over the rows that lie elsewhere."""
    names = [str(path) for path in sorted(rows.glob("validation-*.rows"))]
    plan = plan_of(registry, request, options, names, settings)
    msgspec.structs.replace(plan, train_rows=str(rows / "train.rows")).write(run)


def _try(run: Path, said: dict[str, str], before: list[Trial]) -> Trial:
    began = time.monotonic()
    was_stopped = False
    with training_child(run, Plan.read(run)) as child:
        while child.poll() is None:
            if not was_stopped and is_losing(curve_of(run), before):
                (run / STOP).touch()
                was_stopped = True
            time.sleep(POLL_S)
    result = Result.read(run)
    curve = curve_of(run)
    seconds = time.monotonic() - began
    if result is None or result.status == "failed":
        reason = result.reason if result is not None else tail(run / "training.log")
        return Trial(said, None, curve, was_stopped, seconds, reason)
    best = statistics.fmean(result.validation_losses) if result.validation_losses else None
    return Trial(said, best, curve, was_stopped, seconds)


def is_losing(curve: list[tuple[float, float]], before: list[Trial]) -> bool:
    """Whether a trial that has come so far is not worth going on with."""
    if not curve or curve[-1][0] < JUDGED_FROM:
        return False
    done = curve[-1][0]
    others = [
        min(loss for share, loss in trial.curve if share <= done + 1e-9)
        for trial in before
        if any(share <= done + 1e-9 for share, _ in trial.curve)
    ]
    return len(others) >= FEWEST_BEFORE and min(loss for _, loss in curve) > statistics.median(others)


def curve_of(run: Path) -> list[tuple[float, float]]:
    """The validation losses so far, each with the part of the steps done."""
    path = run / PROGRESS
    data = path.read_bytes() if path.is_file() else b""
    lines = [msgspec.json.decode(line, type=Progress) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    steps = next((line.steps for line in lines if not isinstance(line, Evaluated)), 1)
    return [(line.step / steps, statistics.fmean(line.losses)) for line in lines if isinstance(line, Evaluated)]


def picture(trials: Sequence[Trial]) -> str:
    """The trials' curves as SVG, the best one dark."""
    points = [point for trial in trials for point in trial.curve]
    if not points:
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="40"><text x="10" y="24">no losses</text></svg>'
        )
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    scale = (high - low) or 1.0

    def at(share: float, loss: float) -> str:
        return f"{60 + 420 * share:.1f},{30 + 300 * (high - loss) / scale:.1f}"

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="380" font-family="sans-serif" font-size="12">',
        '<rect width="1000" height="380" fill="white"/>',
        '<path d="M60,30 V330 H480" fill="none" stroke="#888"/>',
        f'<text x="52" y="34" text-anchor="end">{high:.3g}</text><text x="52" y="334" text-anchor="end">{low:.3g}</text>',
        '<text x="60" y="18">validation loss (nats a token)</text><text x="480" y="350" text-anchor="end">end of the run</text>',
    ]
    for place, trial in enumerate(trials):
        colour = f"hsl({place * 47 % 360},60%,45%)" if place else "black"
        line = " ".join(at(*point) for point in trial.curve)
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in (at(*p).split(",") for p in trial.curve))
        parts.append(
            f'<g stroke="{colour}" fill="{colour}"><polyline points="{line}" fill="none" stroke-width="{1 if place else 2.5}"/>{dots}</g>'
        )
        if place < 18:
            said = ", ".join(f"{name} {value}" for name, value in trial.hyperparameters.items())
            loss = "failed" if trial.loss is None else f"{trial.loss:.4f}{' (stopped)' if trial.was_stopped else ''}"
            parts.append(f'<text x="495" y="{40 + 17 * place}" fill="{colour}">{escape(f"{loss}  {said}")}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
