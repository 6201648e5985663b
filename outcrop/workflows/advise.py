"""Prompt, few-shot, retrieval or fine-tuning: every way tried on the user's own held-out rows, and one recommendation."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import msgspec

from outcrop import advice, evaluation
from outcrop.advice import Advice, Option, Parts, Retriever, Ways
from outcrop.advice.recommendation import ORDER
from outcrop.datasets.source import open_file
from outcrop.errors import Invalid
from outcrop.evaluation import Arm, Case, Metric, Questions
from outcrop.evaluation.comparison import Figure, compare
from outcrop.evaluation.metrics import SHARE
from outcrop.machine import available_cpus
from outcrop.registry import Registry
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.synthesis import passages_of, read_documents
from outcrop.workflows.answering import own_engine
from outcrop.workflows.compare import Sampling, lay_down, make_folder
from outcrop.workflows.quick_tuning import QuickTuner
from outcrop.workflows.synthesize import sources_of
from outcrop.workflows.ways import FEWEST_OF_KIND, PASSAGES, SHOTS, Rows, Trial, Tried, told

# The trainings' folder has a name that nobody else gives: it is removed when all is done.
RESULT, PAGE, COMPARISON, RUNS = "advice.json", "advice.html", "comparison.html", ".outcrop-advice-runs"
# Held-out rows, rows for choosing between numbers of examples and passages, and rows that watch a training: shares of the data, and at most.
TEST, DEV, WATCH = (0.3, 400), (0.15, 100), (0.1, 100)
# Of fewer there would be less than 30 to judge by, which say nothing.
FEWEST_ROWS = 100
# What starting a training takes besides its steps (seconds), for the outlook.
START_S = 4.0


@dataclass(frozen=True)
class Wanted:
    """What is asked. `documents` are files, folders or S3 prefixes; `category` a key of rows that are alike; `worth` what a dearer way
    must gain (share), `enough` what is good enough; `price` what a million tokens in and out cost, `hour_price` an hour of training; `most` how many rows are learned from
    at most; `given` are hyperparameters of the tunings."""

    data: str
    base: str
    documents: Sequence[str] = ()
    metric: str = ""
    system: str = ""
    category: str = ""
    max_tokens: int = 256
    seed: int = 0
    worth: float = 0.05
    enough: float = 0.7
    price: tuple[float, float] | None = None
    hour_price: float = 0.0
    most: int = 3000
    given: dict[str, str] = field(default_factory=dict)


class Outlook(msgspec.Struct, frozen=True):
    """What it will take, said before anything is done; times are of this machine (seconds)."""

    rows: dict[str, int]
    requests: int
    input_tokens: int
    trainings: int
    training_rows: int
    asking_s: float
    training_s: float


Say = Callable[[str], None]


@dataclass(frozen=True)
class Advise:
    """The work of an advice."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, wanted: Wanted, folder: Path, say: Say, only_outlook: bool = False) -> Advice | Outlook:
        """Say what it will take; try every way; write advice.json, advice.html and comparison.html into the folder.

        Trainings of an earlier start that was cut short count. Raises Invalid for data that is too little or has no references, NotFound
        for a base that is not there.
        """
        began = time.monotonic()
        base = self.registry.base(wanted.base)
        make_folder(folder)
        rows = self._rows(wanted)
        everything = [*rows.test, *rows.dev, *rows.train]
        retriever = self._retriever(wanted)
        parts, left_out = advice.common_parts(everything), _left_out(rows, wanted.category)
        runs = folder / RUNS
        tuner = QuickTuner(self.storage, self.registry, self.settings, wanted.base, runs, wanted.seed, wanted.given)
        with own_engine(self.storage, self.registry, self.settings, "advice", wanted.base) as asking:
            trial = Trial(
                asking, wanted.base, base.context or 4096, rows, _metric(wanted, everything), tuner,
                Sampling(wanted.max_tokens, 0.0, wanted.seed), self.settings.engine_slots, say,
            )  # fmt: skip
            outlook = _outlook(trial, retriever, parts, left_out)
            _say_outlook(outlook, say)
            if only_outlook:
                return outlook
            trial.prompt()
            shots = trial.few_shot()
            passages = trial.retrieval(retriever) if retriever is not None else 0
            curve = trial.tunings(shots)
            if retriever is not None and curve is not None:
                trial.tuned_retrieval(retriever, passages)
            more = trial.reasons(parts, wanted.category, left_out)
            terms, more.perplexity = trial.terms()
        scores = {name: tried.scores for name, tried in trial.tried.items()}
        options = [_option(name, trial.tried[name], rows, wanted) for name in ORDER if name in trial.tried]
        ways = Ways(scores, trial.constant(), wanted.worth, wanted.enough, wanted.hour_price)
        found = advice.advise(ways, options, trial.metric.name, rows.sizes, more, curve, terms)
        seconds = {"all": round(time.monotonic() - began, 1), "training": round(tuner.seconds, 1)}
        manifest = {
            "wanted": msgspec.to_builtins(wanted),
            "outlook": msgspec.to_builtins(outlook),
            "processors": available_cpus(),
        }
        warnings = [*found.warnings, *_warnings(trial)]
        found = msgspec.structs.replace(found, seconds=seconds, manifest=manifest, warnings=warnings)
        _write(found, trial, wanted, folder)
        shutil.rmtree(runs, ignore_errors=True)
        return found

    def _rows(self, wanted: Wanted) -> Rows:
        """Held-out rows first, then those that choose, those that watch, and the rest to learn from; equal questions stay together."""
        cases = evaluation.read_cases(open_file(self.storage.objects, wanted.data), wanted.system)
        missing = next((case.line for case in cases if not (case.reference or "").strip()), None)
        if missing is not None:
            raise Invalid(f"{wanted.data}: line {missing} has no reference answer; advice needs one in every row")
        if wanted.category and all(evaluation.value_at(case.row, wanted.category) is None for case in cases):
            raise Invalid(f"{wanted.data}: no row has the key {wanted.category!r}")
        groups: dict[str, list[Case]] = {}
        for case in cases:
            groups.setdefault(evaluation.question_of(case), []).append(case)
        if len(groups) < FEWEST_ROWS:
            raise Invalid(
                f"{wanted.data} has {len(groups)} different prompts; advice needs {FEWEST_ROWS} at least, some to learn from and some to judge by"
            )
        shuffled = list(groups.values())
        Random(wanted.seed).shuffle(shuffled)
        taken: list[list[Case]] = []
        for share, most in (TEST, DEV, WATCH):
            part: list[Case] = []
            while shuffled and len(part) < min(most, share * len(cases)):
                part += shuffled.pop()
            taken.append(part)
        train = [case for group in shuffled for case in group]
        if not train:
            raise Invalid(f"{wanted.data}: too many rows have the same prompt; none is left to learn from")
        return Rows(taken[0], taken[1], train[: wanted.most], taken[2])

    def _retriever(self, wanted: Wanted) -> Retriever | None:
        if not wanted.documents:
            return None
        sources = sources_of(list(wanted.documents), self.storage)
        return Retriever([passage.text for document in read_documents(sources) for passage in passages_of(document)])


def _metric(wanted: Wanted, cases: Sequence[Case]) -> Metric:
    name = wanted.metric or evaluation.fitting(cases)[0]
    metric = evaluation.grader(name) if evaluation.is_grader(name) else evaluation.named([name])[0]
    if metric.form != SHARE or name == "similarity":
        raise Invalid(f"the metric {name} cannot judge ways; take one from 0 to 1, such as exact, label, f1 or number")
    return metric


def _left_out(rows: Rows, category: str) -> str:
    """The smallest value of a category with enough held-out rows to judge by, as long as it is not most of the rows."""
    if not category:
        return ""
    values = [str(evaluation.value_at(case.row, category)) for case in rows.test]
    likely = [value for value in set(values) if FEWEST_OF_KIND <= values.count(value) <= len(values) / 2]
    return min(likely, key=lambda value: (values.count(value), value), default="")


def _outlook(trial: Trial, retriever: Retriever | None, parts: Parts, left_out: str) -> Outlook:
    """From some requests and one rehearsal of the largest training: what all of it will take here."""
    rows, sizes = trial.rows, trial.rows.curve
    more = (retriever is not None) + parts.are_some + bool(left_out) if sizes else 0
    trained = sum(sizes) + more * len(rows.train)
    tests = 2 + len(sizes) + bool(sizes) + 2 * (retriever is not None) + parts.are_some
    requests = tests * len(rows.test) + (len(SHOTS) + len(PASSAGES) * (retriever is not None)) * len(rows.dev)
    began = time.monotonic()
    some = rows.dev[:16]
    trial.ask(trial.base, some)
    a_request = (time.monotonic() - began) / len(some)
    rehearsed = trial.tuner.rehearse(rows.train, rows.watch) if sizes else None
    training_s = (
        rehearsed.seconds * trained / len(rows.train) + START_S * (len(sizes) + more) if rehearsed is not None else 0.0
    )
    tokens = fmean(trial.tokens(case) for case in rows.test)
    # Examples and passages make half of the requests about twice as long.
    return Outlook(
        rows.sizes,
        requests,
        round(1.5 * requests * tokens),
        len(sizes) + more,
        trained,
        round(requests * a_request, 1),
        round(training_s, 1),
    )


def _say_outlook(outlook: Outlook, say: Say) -> None:
    rows = outlook.rows
    say(
        f"{rows['train']:,} rows to learn from, {rows['watch']:,} to watch a training, {rows['dev']:,} to choose by, {rows['test']:,} held out. "
        f"It will take about {outlook.requests:,} requests (some {outlook.input_tokens:,} tokens in) and {outlook.trainings} quick tunings on "
        f"{outlook.training_rows:,} rows in all: about {outlook.asking_s + outlook.training_s:,.0f} s on this machine"
    )


def _warnings(trial: Trial) -> list[str]:
    """Rows that ways could not answer, and held-out rows that are nearly training rows."""
    found = [
        f"{name}: {tried.failed} of {len(tried.responses)} rows got no answer and count as wrong; the first: {next(one.error for one in tried.responses if one.error)}"
        for name, tried in trial.tried.items()
        if tried.failed
    ]
    near = evaluation.overlap(trial.rows.test, [told(case) for case in trial.rows.train]).all
    if near:
        found.append(
            f"{len(near)} of {len(trial.rows.test)} held-out prompts are nearly the same as a training row's: what is tuned may remember them"
        )
    return found


def _option(name: str, tried: Tried, rows: Rows, wanted: Wanted) -> Option:
    answered = [one for one in tried.responses if not one.error]
    given, taken = (
        fmean(getattr(one, part) or 0 for one in answered) if answered else 0.0
        for part in ("input_tokens", "output_tokens")
    )
    cost = (given * wanted.price[0] + taken * wanted.price[1]) / 1000 if wanted.price else None
    shapes = advice.shapes_of([str(case.reference) for case in rows.train])
    form = fmean(advice.shape_share([one.text for one in answered], shapes)) if answered else None
    return Option(
        name=name, figure=Figure.of(evaluation.measure(tried.scores)), form=form, input_tokens=given, output_tokens=taken,
        seconds_a_request=tried.seconds / len(tried.responses), cost_a_thousand=cost, training_s=tried.training_s, detail=tried.detail,
    )  # fmt: skip


def _write(found: Advice, trial: Trial, wanted: Wanted, folder: Path) -> None:
    """The advice, and the ways held against each other row by row."""
    arms = []
    for name in (name for name in ORDER if name in trial.tried):
        given = trial.tried[name].responses
        tokens: dict[str, Any] = {
            metric: [None if one.error else getattr(one, part) for one in given]
            for metric, part in (("tokens-in", "input_tokens"), ("tokens-out", "output_tokens"))
        }
        arms.append(Arm(name, given, {trial.metric.name: trial.tried[name].scores, **tokens}))
    questions = Questions(
        trial.rows.test,
        (wanted.category,) if wanted.category else (),
        title=f"{Path(wanted.data).name}: ways with {wanted.base}",
    )
    compared = compare(questions, arms, [trial.metric, *evaluation.named(["tokens-in", "tokens-out"])], wanted.seed)
    lay_down(folder / COMPARISON, evaluation.page(compared).encode())
    lay_down(folder / PAGE, advice.page(found).encode())
    lay_down(folder / RESULT, msgspec.json.format(msgspec.json.encode(found)))
