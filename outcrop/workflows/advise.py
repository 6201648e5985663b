"""Prompt, few-shot, retrieval or fine-tuning: every way tried on the user's own held-out rows, and one recommendation."""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean

import msgspec

from outcrop import advice, evaluation, hyperparameters, invocation
from outcrop.advice import Advice, Curve, Option, Probe, Reasons, Retriever, Terms, Ways
from outcrop.advice.recommendation import FEW_SHOT, ORDER, PROMPT, RETRIEVAL, TUNE, TUNE_FEW_SHOT, TUNE_RETRIEVAL
from outcrop.datasets.conversion import written
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.source import open_file
from outcrop.errors import Invalid
from outcrop.evaluation import Arm, Case, Comparison, Metric, Questions, Response
from outcrop.evaluation.comparison import Figure, compare
from outcrop.evaluation.metrics import SHARE
from outcrop.invocation.answer import renderer_of
from outcrop.jobs.children import tail
from outcrop.machine import available_cpus
from outcrop.registry import Registry, Weights
from outcrop.rendering import Conversation, Message, Renderer
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.synthesis import CatalogueTeacher, passages_of, read_documents
from outcrop.training import Result
from outcrop.training.plan import PROGRESS, Rehearsed
from outcrop.workflows.answering import own_engine
from outcrop.workflows.compare import Sampling, ask_all
from outcrop.workflows.plan import check_files
from outcrop.workflows.preparation import Preparation, training_child
from outcrop.workflows.synthesize import sources_of

RESULT, PAGE = "advice.json", "advice.html"
# Held-out rows, rows for choosing between numbers of examples and passages, and rows that watch a training: shares of the data, and at most.
TEST, DEV, WATCH = (0.3, 400), (0.15, 100), (0.1, 100)
FEWEST_ROWS = 60
SHOTS, PASSAGES = (1, 2, 4, 8), (1, 3)
# Parts of the training rows that a learning curve is drawn through; fewer than FEWEST_TRAINED rows are not tuned on.
CURVE, FEWEST_TRAINED = (1 / 8, 1 / 4, 1 / 2, 1), 16
# A quick tuning passes over its rows so often that this many are seen, within the range of epochCount; it stops early on the watched rows.
ROWS_SEEN = 3000
# Share of a prompt's room that examples or passages may take.
ROOM = 0.6


@dataclass(frozen=True)
class Wanted:
    """What is asked. `documents` are files, folders or S3 prefixes; `category` a key of rows that are alike; `worth` what a dearer way
    must gain (share), `enough` what is good enough; `price` what a million tokens in and out cost; `most` how many rows are learned from at most."""

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
    most: int = 3000
    given: dict[str, str] = field(default_factory=dict)


class Outlook(msgspec.Struct, frozen=True):
    """What it will take, said before anything is done."""

    rows: dict[str, int]
    requests: int
    input_tokens: int
    trainings: int
    training_rows: int
    asking_s: float
    training_s: float


@dataclass(frozen=True)
class _Rows:
    test: list[Case]
    dev: list[Case]
    train: list[Case]
    watch: list[Case]


@dataclass
class _Tried:
    """A way's answers to the held-out rows."""

    responses: list[Response]
    seconds: float
    training_s: float = 0.0
    detail: str = ""


Say = Callable[[str], None]


@dataclass(frozen=True)
class Advise:
    """The work of an advice."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, wanted: Wanted, folder: Path, say: Say, only_outlook: bool = False) -> Advice | Outlook:
        """Say what it will take; try every way; write advice.json, advice.html and comparison.html into the folder.

        Answers and trainings of an earlier start with the same data and settings count. Raises Invalid for data that is too little or has no
        references, NotFound for a base that is not there.
        """
        began = time.monotonic()
        base = self.registry.base(wanted.base)
        rows = self._rows(wanted)
        metric = self._metric(wanted, [*rows.test, *rows.dev, *rows.train])
        retriever = self._retriever(wanted)
        parts = advice.common_parts([*rows.test, *rows.dev, *rows.train])
        left_out = _left_out(rows, wanted.category)
        folder.mkdir(parents=True, exist_ok=True)
        trainer = _Trainer(self, wanted, rows, folder / "runs")
        with own_engine(self.storage, self.registry, self.settings, "advice", wanted.base) as asking:
            asker = _Asker(asking, wanted, metric, rows, folder, self.settings.engine_slots)
            outlook = self._outlook(wanted, rows, asker, trainer, retriever, parts, left_out)
            _say_outlook(outlook, say)
            if only_outlook:
                return outlook
            tried: dict[str, _Tried] = {}
            say("plain prompt")
            tried[PROMPT] = asker.test(wanted.base, rows.test)
            shots = self._few_shot(asker, wanted, rows, base.context or 4096, tried, say)
            most = self._retrieval(asker, wanted, rows, retriever, tried, say)
            curve = self._tunings(asker, trainer, rows, shots, tried, say)
            if retriever is not None and TUNE in tried:
                say("tuning with the documents' passages in the prompts")
                trained = trainer.tune(
                    [advice.with_passages(case, retriever, most) for case in rows.train],
                    [advice.with_passages(case, retriever, most) for case in rows.watch],
                    "retrieval",
                )
                asking.serving.trials[TUNE_RETRIEVAL] = trained.weights
                tried[TUNE_RETRIEVAL] = asker.test(
                    TUNE_RETRIEVAL, [advice.with_passages(case, retriever, most) for case in rows.test]
                )
                tried[TUNE_RETRIEVAL].training_s, tried[TUNE_RETRIEVAL].detail = (
                    trained.seconds,
                    f"{most} passage{'s' if most > 1 else ''}",
                )
            more = Reasons()
            scores = {name: asker.scores(one.responses, rows.test) for name, one in tried.items()}
            self._more(asker, trainer, rows, parts, left_out, scores, tried, more, say)
            say("does the base know the terms?")
            terms = _terms(asking, wanted, [*rows.dev, *rows.train], self.settings.engine_slots)
            software = {"base": wanted.base, "renderer": Renderer(self.registry.weights(wanted.base).folder).hash}
        options = [self._option(name, tried[name], scores[name], rows, wanted) for name in ORDER if name in tried]
        constant = _constant(metric, rows, asker)
        sizes = {"test": len(rows.test), "dev": len(rows.dev), "train": len(rows.train), "watch": len(rows.watch)}
        found = advice.advise(
            Ways(scores, constant, wanted.worth, wanted.enough), options, metric.name, sizes, more, curve, terms
        )
        seconds = {"all": round(time.monotonic() - began, 1), "training": round(trainer.seconds, 1)}
        found = msgspec.structs.replace(
            found,
            seconds=seconds,
            manifest={
                **software,
                "wanted": msgspec.to_builtins(wanted),
                "outlook": msgspec.to_builtins(outlook),
                "processors": available_cpus(),
            },
        )
        self._write(found, rows, tried, scores, metric, wanted, folder)
        shutil.rmtree(folder / "runs", ignore_errors=True)
        return found

    # --- rows -------------------------------------------------------------------------------------------------------

    def _rows(self, wanted: Wanted) -> _Rows:
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
        return _Rows(taken[0], taken[1], train[: wanted.most], taken[2])

    @staticmethod
    def _metric(wanted: Wanted, cases: Sequence[Case]) -> Metric:
        name = wanted.metric or evaluation.fitting(cases)[0]
        metric = evaluation.grader(name) if evaluation.is_grader(name) else evaluation.named([name])[0]
        if metric.form != SHARE or name == "similarity":
            raise Invalid(
                f"the metric {name} cannot judge ways; take one from 0 to 1, such as exact, label, f1 or number"
            )
        return metric

    def _retriever(self, wanted: Wanted) -> Retriever | None:
        if not wanted.documents:
            return None
        sources = sources_of(list(wanted.documents), self.storage)
        return Retriever([passage.text for document in read_documents(sources) for passage in passages_of(document)])

    # --- ways -------------------------------------------------------------------------------------------------------

    def _few_shot(
        self, asker: "_Asker", wanted: Wanted, rows: _Rows, context: int, tried: dict[str, _Tried], say: Say
    ) -> list[Case]:
        """Worked examples, their number chosen on rows of their own; the examples of the best number."""
        pool = Random(wanted.seed + 1).sample(rows.train, min(len(rows.train), max(SHOTS)))
        longest = max(asker.tokens(case) for case in rows.test)
        found: dict[int, float] = {}
        for count in SHOTS:
            if count > len(pool) or sum(asker.tokens(shot) for shot in pool[:count]) + longest > ROOM * context:
                break
            say(f"few-shot with {count} example{'s' if count > 1 else ''}, on the rows that choose")
            answers = asker.ask(wanted.base, [evaluation.with_shots(case, pool[:count]) for case in rows.dev])
            found[count] = _mean(asker.scores(answers, rows.dev))
        if not found:
            return []
        count = max(found, key=lambda number: (found[number], -number))
        say(f"few-shot with {count}")
        tried[FEW_SHOT] = asker.test(wanted.base, [evaluation.with_shots(case, pool[:count]) for case in rows.test])
        tried[FEW_SHOT].detail = f"{count} example{'s' if count > 1 else ''}, the best of {', '.join(map(str, found))}"
        return pool[:count]

    def _retrieval(
        self,
        asker: "_Asker",
        wanted: Wanted,
        rows: _Rows,
        retriever: Retriever | None,
        tried: dict[str, _Tried],
        say: Say,
    ) -> int:
        """Passages before the question, their number chosen on rows of their own."""
        if retriever is None:
            return 0
        found: dict[int, float] = {}
        for count in PASSAGES:
            say(f"retrieval of {count} passage{'s' if count > 1 else ''}, on the rows that choose")
            answers = asker.ask(wanted.base, [advice.with_passages(case, retriever, count) for case in rows.dev])
            found[count] = _mean(asker.scores(answers, rows.dev))
        count = max(found, key=lambda number: (found[number], -number))
        tried[RETRIEVAL] = asker.test(wanted.base, [advice.with_passages(case, retriever, count) for case in rows.test])
        tried[RETRIEVAL].detail = f"{count} passage{'s' if count > 1 else ''}"
        return count

    def _tunings(
        self, asker: "_Asker", trainer: "_Trainer", rows: _Rows, shots: list[Case], tried: dict[str, _Tried], say: Say
    ) -> Curve | None:
        """The learning curve; its last point is the tuned way, asked plainly and with the examples."""
        sizes = [round(share * len(rows.train)) for share in CURVE if share * len(rows.train) >= FEWEST_TRAINED]
        if not sizes:
            return None
        scores = []
        for size in sizes:
            say(f"tuning on {size:,} rows")
            trained = trainer.tune(rows.train[:size], rows.watch, f"{size}")
            asker.asking.serving.trials[f"tuned-{size}"] = trained.weights
            answered = asker.test(f"tuned-{size}", rows.test)
            scores.append([score or 0.0 for score in asker.scores(answered.responses, rows.test)])
            answered.training_s, answered.detail = trained.seconds, f"on {size:,} rows"
            tried[TUNE] = answered
        if shots:
            say("the tuned model, with the examples")
            tried[TUNE_FEW_SHOT] = asker.test(
                f"tuned-{sizes[-1]}", [evaluation.with_shots(case, shots) for case in rows.test]
            )
            tried[TUNE_FEW_SHOT].training_s = tried[TUNE].training_s
            tried[TUNE_FEW_SHOT].detail = f"{len(shots)} example{'s' if len(shots) > 1 else ''}"
        return advice.fit(sizes, scores)

    def _more(
        self,
        asker: "_Asker",
        trainer: "_Trainer",
        rows: _Rows,
        parts: advice.Parts,
        left_out: str,
        scores: dict[str, list[float | None]],
        tried: dict[str, _Tried],
        more: Reasons,
        say: Say,
    ) -> None:
        """What else the sentence and the table want: unseen answers, a category left out, prompts cut short, what few-shot foretold."""
        seen = {case.reference for case in rows.train}
        fresh = [number for number, case in enumerate(rows.test) if case.reference not in seen]
        if len(fresh) >= 10:
            for name in (PROMPT, RETRIEVAL, TUNE, TUNE_RETRIEVAL):
                if name in scores and any(scores[name][number] is not None for number in fresh):
                    more.unseen[name] = Figure.of(evaluation.measure([scores[name][number] for number in fresh]))
        if TUNE not in tried:
            return
        if FEW_SHOT in tried:
            more.predicts = _predicts(scores)
        if parts.are_some:
            say("tuning without what all prompts say alike")
            cut = [[advice.without_parts(case, parts) for case in some] for some in (rows.train, rows.watch, rows.test)]
            asker.asking.serving.trials["short"] = trainer.tune(cut[0], cut[1], "short").weights
            short = asker.test("short", cut[2])
            change = evaluation.difference(scores[TUNE], asker.scores(short.responses, rows.test))
            tokens = [fmean(one.input_tokens or 0 for one in answered.responses) for answered in (tried[TUNE], short)]
            named = ", ".join(
                what
                for what, text in (
                    ("the system prompt", parts.system),
                    ("the common beginning", parts.begin),
                    ("the common end", parts.end),
                )
                if text
            )
            can_go = (
                "can go without a loss that these rows show"
                if change.high > 0 or change.mean > -0.02
                else "cannot go without loss"
            )
            more.saved = f"{named} {can_go}: a model tuned without scores {100 * change.mean:+.1f} pt [{100 * change.low:+.1f}, {100 * change.high:+.1f}] at {tokens[1]:.0f} input tokens a request instead of {tokens[0]:.0f}"
        elif FEW_SHOT in tried:
            tokens = [fmean(one.input_tokens or 0 for one in tried[name].responses) for name in (FEW_SHOT, TUNE)]
            more.saved = f"a tuned model is asked with {tokens[1]:.0f} input tokens a request, worked examples take {tokens[0]:.0f}"
        if left_out:
            key = asker.wanted.category
            say(f"tuning without the rows of {key} {left_out}")
            within = [
                number for number, case in enumerate(rows.test) if str(evaluation.value_at(case.row, key)) == left_out
            ]
            others = [
                [case for case in some if str(evaluation.value_at(case.row, key)) != left_out]
                for some in (rows.train, rows.watch)
            ]
            asker.asking.serving.trials["others"] = trainer.tune(others[0], others[1] or rows.watch, "others").weights
            asked = [rows.test[number] for number in within]
            after = asker.scores(asker.ask("others", asked), asked)
            before = [scores[PROMPT][number] for number in within]
            more.similar = (
                f"{key} {left_out}",
                Figure.of(evaluation.measure(before)),
                Figure.of(evaluation.measure(after)),
            )

    # --- what it takes, and what came of it -------------------------------------------------------------------------

    def _outlook(
        self,
        wanted: Wanted,
        rows: _Rows,
        asker: "_Asker",
        trainer: "_Trainer",
        retriever: Retriever | None,
        parts: advice.Parts,
        left_out: str,
    ) -> Outlook:
        """From some requests and one rehearsal of the largest training: what all of it will take here."""
        sizes = [round(share * len(rows.train)) for share in CURVE if share * len(rows.train) >= FEWEST_TRAINED]
        trained = sum(sizes) + len(rows.train) * ((retriever is not None) + parts.are_some + bool(left_out))
        tests = 3 + len(sizes) + 2 * (retriever is not None) + parts.are_some
        requests = tests * len(rows.test) + (len(SHOTS) + len(PASSAGES) * (retriever is not None)) * len(rows.dev)
        began = time.monotonic()
        some = rows.dev[:16]
        asker.ask(wanted.base, some)
        a_request = (time.monotonic() - began) / len(some)
        plain = fmean(asker.tokens(case) for case in rows.test)
        rehearsed = trainer.rehearse() if sizes else None
        seconds = (rehearsed.seconds if rehearsed is not None else 0.0) * trained / max(len(rows.train), 1) + 4.0 * len(
            sizes
        )
        return Outlook(
            {"test": len(rows.test), "dev": len(rows.dev), "train": len(rows.train), "watch": len(rows.watch)}, requests,
            round(requests * plain * 1.5), len(sizes) + (retriever is not None) + parts.are_some + bool(left_out), trained,
            round(requests * a_request, 1), round(seconds, 1),
        )  # fmt: skip

    def _option(self, name: str, tried: _Tried, scores: list[float | None], rows: _Rows, wanted: Wanted) -> Option:
        answered = [one for one in tried.responses if not one.error]
        tokens = [
            fmean(getattr(one, part) or 0 for one in answered) if answered else 0.0
            for part in ("input_tokens", "output_tokens")
        ]
        cost = (tokens[0] * wanted.price[0] + tokens[1] * wanted.price[1]) / 1000 if wanted.price else None
        shapes = advice.shapes_of([str(case.reference) for case in rows.train])
        form = fmean(advice.shape_share([one.text for one in answered], shapes)) if answered else None
        return Option(
            name=name, figure=Figure.of(evaluation.measure(scores)), form=form, input_tokens=tokens[0], output_tokens=tokens[1],
            seconds_a_request=tried.seconds / max(len(tried.responses), 1), cost_a_thousand=cost, training_s=tried.training_s, detail=tried.detail,
        )  # fmt: skip

    def _write(
        self,
        found: Advice,
        rows: _Rows,
        tried: dict[str, _Tried],
        scores: dict[str, list[float | None]],
        metric: Metric,
        wanted: Wanted,
        folder: Path,
    ) -> None:
        arms = []
        for name in ORDER:
            if name in tried:
                given = tried[name].responses
                more = {
                    part: [
                        None
                        if one.error
                        else getattr(
                            one, part.replace("tokens-in", "input_tokens").replace("tokens-out", "output_tokens")
                        )
                        for one in given
                    ]
                    for part in ("tokens-in", "tokens-out")
                }
                arms.append(Arm(name, given, {metric.name: scores[name], **more}))
        metrics = [metric, *evaluation.named(["tokens-in", "tokens-out"])]
        slices = (wanted.category,) if wanted.category else ()
        compared: Comparison = compare(
            Questions(rows.test, slices, title=f"{Path(wanted.data).name}: ways with {wanted.base}"), arms, metrics
        )
        (folder / "comparison.html").write_text(evaluation.page(compared), encoding="utf-8")
        (folder / RESULT).write_bytes(msgspec.json.format(msgspec.json.encode(found)))
        (folder / PAGE).write_text(advice.page(found), encoding="utf-8")


@dataclass(frozen=True)
class _Asker:
    """Asks the base, or a trial, rows; keeps what was said."""

    asking: invocation.Invocation
    wanted: Wanted
    metric: Metric
    rows: _Rows
    folder: Path
    slots: int

    def tokens(self, case: Case) -> int:
        """How long a row's prompt is, its answer with it."""
        told = Conversation((*case.prompt.messages, Message("assistant", case.reference or "")), case.prompt.system)
        return len(renderer_of(self.asking.serving.target(self.wanted.base)).training_row(told).tokens)

    def ask(self, model: str, cases: Sequence[Case]) -> list[Response]:
        """The answers, in order."""
        return ask_all(
            CatalogueTeacher(self.asking, model),
            cases,
            Sampling(self.wanted.max_tokens, 0.0, self.wanted.seed),
            self.slots,
        )

    def test(self, model: str, cases: Sequence[Case]) -> _Tried:
        """The answers to held-out rows, and how long all of them took."""
        began = time.monotonic()
        responses = self.ask(model, cases)
        return _Tried(responses, time.monotonic() - began)

    def scores(self, responses: Sequence[Response], cases: Sequence[Case]) -> list[float | None]:
        """By the judging metric; a label is one of all rows' labels."""
        if self.metric.name == "label":
            everything = [*self.rows.train, *self.rows.watch, *self.rows.dev, *self.rows.test]
            return evaluation.label_scores(responses, cases, everything)
        return [
            None if given.error else self.metric.score(given, case)
            for given, case in zip(responses, cases, strict=True)
        ]


@dataclass(frozen=True)
class _Trained:
    weights: Weights
    seconds: float


@dataclass
class _Trainer:
    """Quick tunings with the product's own training, each in a folder of its own."""

    owner: Advise
    wanted: Wanted
    rows: _Rows
    folder: Path
    seconds: float = 0.0

    def tune(self, train: Sequence[Case], watch: Sequence[Case], name: str) -> _Trained:
        """Adapters for the base. Raises Invalid with the training's own reason when it fails."""
        run = self.folder / name
        result = Result.read(run) if run.is_dir() else None
        if result is None:
            self._run(train, watch, run, rehearses_only=False)
            result = Result.read(run)
        if result is None or result.status == "failed" or result.checkpoint is None:
            reason = result.reason if result is not None else tail(run / "training.log")
            raise Invalid(f"the tuning on {len(train):,} rows failed: {reason}")
        self.seconds += result.seconds
        base = self.owner.registry.weights(self.wanted.base)
        return _Trained(Weights(base.model_id, base.folder, run / result.checkpoint), result.seconds)

    def rehearse(self) -> Rehearsed | None:
        """What the largest tuning will take."""
        run = self.folder / "rehearsal"
        self._run(self.rows.train, self.rows.watch, run, rehearses_only=True)
        lines = (run / PROGRESS).read_bytes().splitlines() if (run / PROGRESS).is_file() else []
        return msgspec.json.decode(lines[0], type=Rehearsed) if lines else None

    def _run(self, train: Sequence[Case], watch: Sequence[Case], run: Path, rehearses_only: bool) -> None:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        for name, cases in (("train", train), ("watch", watch)):
            (run / f"{name}.jsonl").write_bytes(b"".join(_line(case) for case in cases))
        base = self.owner.registry.base(self.wanted.base)
        epochs = min(10, max(2, round(ROWS_SEEN / len(train))))
        given = {
            "epochCount": str(epochs),
            "earlyStoppingPatience": "4",
            "seed": str(self.wanted.seed),
            **self.wanted.given,
        }
        options = hyperparameters.read(given, base.num_parameters)
        checked = check_files(run / "train.jsonl", [run / "watch.jsonl"], options, SUPERVISED, self.owner.settings)
        request = {"base": self.wanted.base, "base_model": base.id, "context": base.context}
        preparation = Preparation.of(self.owner.storage, self.owner.registry, self.owner.settings)
        laid = preparation.lay_down(
            checked,
            Renderer(self.owner.registry.weights(self.wanted.base).folder),
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


def _left_out(rows: _Rows, category: str) -> str:
    """The smallest value of a category with enough held-out rows to judge by, as long as it is not most of the rows."""
    if not category:
        return ""
    values = [str(evaluation.value_at(case.row, category)) for case in rows.test]
    likely = sorted(
        {value for value in values if 10 <= values.count(value) <= len(values) / 2},
        key=lambda value: (values.count(value), value),
    )
    return likely[0] if likely else ""


def _mean(scores: Sequence[float | None]) -> float:
    return fmean(score or 0.0 for score in scores)


def _constant(metric: Metric, rows: _Rows, asker: _Asker) -> list[float | None]:
    """The scores of always giving the training rows' commonest answer."""
    references = [str(case.reference) for case in rows.train]
    commonest = max(sorted(set(references)), key=references.count)
    return asker.scores([Response(commonest)] * len(rows.test), rows.test)


def _predicts(scores: dict[str, list[float | None]]) -> str:
    """Whether rows that examples put right are rows that tuning puts right."""
    triples = [
        (a, b, c)
        for a, b, c in zip(scores[PROMPT], scores[FEW_SHOT], scores[TUNE], strict=True)
        if a is not None and b is not None and c is not None
    ]
    wrong = [(b, c) for a, b, c in triples if a < 0.5]
    if len(wrong) < 10:
        return ""
    put_right, left = [c for b, c in wrong if b >= 0.5], [c for b, c in wrong if b < 0.5]
    if not put_right:
        return f"examples put none of the {len(wrong)} rows right that plain prompting has wrong; tuning {100 * _mean(left):.0f} % of them: few-shot did not foretell what tuning does"
    rest = f", and {100 * _mean(left):.0f} % of the {len(left)} that they do not" if left else ""
    return f"of the rows that plain prompting has wrong, tuning puts right {100 * _mean(put_right):.0f} % of the {len(put_right)} that examples put right{rest}"


def _terms(asking: invocation.Invocation, wanted: Wanted, cases: Sequence[Case], slots: int) -> Terms | None:
    """Which of a true and a changed answer the base finds likelier, term by term."""
    found: list[Probe] = advice.probes(cases, wanted.seed)

    def cost(told: Conversation) -> tuple[float, int]:
        with contextlib.suppress(Invalid):
            return invocation.loss(asking, wanted.base, told)
        return 0.0, 0

    with ThreadPoolExecutor(slots) as pool:
        true, false = (
            list(pool.map(lambda probe: cost(probe.true), found)),
            list(pool.map(lambda probe: cost(probe.false), found)),
        )
    both = [(t, f) for t, f in zip(true, false, strict=True) if t[1] and f[1]]
    tokens = sum(t[1] for t, _ in both)
    return advice.known([t[0] for t, _ in both], [f[0] for _, f in both], sum(t[0] for t, _ in both) / max(tokens, 1))


def _say_outlook(outlook: Outlook, say: Say) -> None:
    rows = outlook.rows
    say(
        f"{rows['train']:,} rows to learn from, {rows['watch']:,} to watch a training, {rows['dev']:,} to choose by, {rows['test']:,} held out. "
        f"It will take about {outlook.requests:,} requests (some {outlook.input_tokens:,} tokens in) and {outlook.trainings} quick tunings on "
        f"{outlook.training_rows:,} rows in all: about {outlook.asking_s + outlook.training_s:,.0f} s on this machine"
    )
