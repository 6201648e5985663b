"""The ways to solve a task, each tried on the same held-out rows: what `advise` compares."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import exp
from random import Random
from statistics import fmean

from outcrop import advice, evaluation, invocation
from outcrop.advice import Curve, Parts, Reasons, Retriever, Terms
from outcrop.advice.recommendation import FEW_SHOT, PROMPT, RETRIEVAL, TUNE, TUNE_FEW_SHOT, TUNE_RETRIEVAL
from outcrop.errors import Invalid
from outcrop.evaluation import Case, Metric, Response
from outcrop.evaluation.comparison import Figure
from outcrop.invocation.answer import renderer_of
from outcrop.rendering import Conversation, Message
from outcrop.synthesis import CatalogueTeacher
from outcrop.workflows.compare import Sampling, ask_all
from outcrop.workflows.quick_tuning import QuickTuner

SHOTS, PASSAGES = (1, 2, 4, 8), (1, 3)
# Parts of the training rows that a learning curve is drawn through; fewer than FEWEST_TRAINED rows are not tuned on.
CURVE, FEWEST_TRAINED = (1 / 8, 1 / 4, 1 / 2, 1), 16
# Share of a base's context that examples may take.
ROOM = 0.6
# Rows whose answers' perplexity is measured; rows with answers that training lacks, or of a category, below which no figure is given.
MOST_SCORED, FEWEST_OF_KIND = 60, 10
# A part of the prompt can go when what is lost is surely less (share).
WITHOUT_LOSS = 0.05
Scores = list[float | None]


@dataclass(frozen=True)
class Rows:
    """Held-out rows, rows to choose by, rows to learn from, and rows that watch a training."""

    test: list[Case]
    dev: list[Case]
    train: list[Case]
    watch: list[Case]

    @property
    def sizes(self) -> dict[str, int]:
        """How many of each."""
        return {name: len(getattr(self, name)) for name in ("test", "dev", "train", "watch")}

    @property
    def curve(self) -> list[int]:
        """How many rows the tunings of a learning curve get."""
        return [round(share * len(self.train)) for share in CURVE if share * len(self.train) >= FEWEST_TRAINED]


@dataclass
class Tried:
    """A way's answers to the held-out rows, their scores, how long they took (seconds), and what was chosen for the way."""

    responses: list[Response]
    scores: Scores
    seconds: float
    training_s: float = 0.0
    detail: str = ""

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return sum(bool(one.error) for one in self.responses)

    @property
    def input_tokens(self) -> float:
        """Mean of a request that was answered."""
        return fmean([one.input_tokens or 0 for one in self.responses if not one.error] or [0])


@dataclass
class Trial:
    """A base, the rows, who tunes, and what has been tried. `say` hears what is done next."""

    asking: invocation.Invocation
    base: str
    context: int
    rows: Rows
    metric: Metric
    tuner: QuickTuner
    sampling: Sampling
    slots: int
    say: Callable[[str], None]
    tried: dict[str, Tried] = field(default_factory=dict)

    # --- asking -----------------------------------------------------------------------------------------------------

    def tokens(self, case: Case) -> int:
        """How long a row's prompt is, its answer with it."""
        return len(renderer_of(self.asking.serving.target(self.base)).training_row(told(case)).tokens)

    def ask(self, model: str, cases: Sequence[Case]) -> list[Response]:
        """The answers, in order."""
        return ask_all(CatalogueTeacher(self.asking, model), cases, self.sampling, self.slots)

    def scores(self, responses: Sequence[Response], cases: Sequence[Case]) -> Scores:
        """By the judging metric; a label is one of all rows' labels, and no answer is wrong."""
        if self.metric.name == "label":
            rows = self.rows
            found = evaluation.label_scores(responses, cases, [*rows.train, *rows.watch, *rows.dev, *rows.test])
            return [0.0 if given.error else score for given, score in zip(responses, found, strict=True)]
        pairs = zip(responses, cases, strict=True)
        return [0.0 if given.error else self.metric.score(given, case) for given, case in pairs]

    def test(self, model: str, cases: Sequence[Case] | None = None) -> Tried:
        """Ask the held-out rows, as they stand or changed, and time it."""
        began = time.monotonic()
        responses = self.ask(model, self.rows.test if cases is None else cases)
        return Tried(responses, self.scores(responses, self.rows.test), time.monotonic() - began)

    def constant(self) -> Scores:
        """The scores of always giving the training rows' commonest answer."""
        references = [str(case.reference) for case in self.rows.train]
        commonest = max(sorted(set(references)), key=references.count)
        return self.scores([Response(commonest)] * len(self.rows.test), self.rows.test)

    def _tune(self, train: Sequence[Case], watch: Sequence[Case], name: str) -> float:
        """Tune, and serve it under that name; how long the training took."""
        tuned = self.tuner.tune(train, watch, name)
        self.asking.serving.trials[name] = tuned.weights
        return tuned.seconds

    # --- ways -------------------------------------------------------------------------------------------------------

    def prompt(self) -> None:
        """Every row as it stands."""
        self.say("plain prompt")
        self.tried[PROMPT] = self.test(self.base)

    def few_shot(self) -> list[Case]:
        """Worked examples, their number chosen on rows of their own; the examples of the best number, none when none have room."""
        pool = Random(self.sampling.seed + 1).sample(self.rows.train, min(len(self.rows.train), max(SHOTS)))
        longest = max(self.tokens(case) for case in self.rows.test)
        found: dict[int, float] = {}
        for count in SHOTS:
            if count > len(pool) or sum(map(self.tokens, pool[:count])) + longest > ROOM * self.context:
                break
            self.say(f"few-shot with {_many(count, 'example')}, on the rows that choose")
            answers = self.ask(self.base, [evaluation.with_shots(case, pool[:count]) for case in self.rows.dev])
            found[count] = _mean(self.scores(answers, self.rows.dev))
        if not found:
            return []
        count = _best(found)
        self.say(f"few-shot with {_many(count, 'example')}")
        self.tried[FEW_SHOT] = self.test(
            self.base, [evaluation.with_shots(case, pool[:count]) for case in self.rows.test]
        )
        self.tried[FEW_SHOT].detail = f"{_many(count, 'example')}, the best of {', '.join(map(str, found))}"
        return pool[:count]

    def retrieval(self, retriever: Retriever) -> int:
        """Passages before the question, their number chosen on rows of their own."""
        found: dict[int, float] = {}
        for count in PASSAGES:
            self.say(f"retrieval of {_many(count, 'passage')}, on the rows that choose")
            answers = self.ask(self.base, [advice.with_passages(case, retriever, count) for case in self.rows.dev])
            found[count] = _mean(self.scores(answers, self.rows.dev))
        count = _best(found)
        self.tried[RETRIEVAL] = self.test(
            self.base, [advice.with_passages(case, retriever, count) for case in self.rows.test]
        )
        self.tried[RETRIEVAL].detail = _many(count, "passage")
        return count

    def tunings(self, shots: list[Case]) -> Curve | None:
        """The learning curve; its last point is the tuned way, asked plainly and with the examples. None with too few rows."""
        scores = []
        for size in self.rows.curve:
            self.say(f"tuning on {size:,} rows")
            training_s = self._tune(self.rows.train[:size], self.rows.watch, f"{TUNE}-{size}")
            tried = self.test(f"{TUNE}-{size}")
            tried.training_s, tried.detail = training_s, f"on {size:,} rows"
            self.tried[TUNE] = tried
            scores.append([score or 0.0 for score in tried.scores])
        if not scores:
            return None
        if shots:
            self.say("the tuned model, with the examples")
            tried = self.test(
                f"{TUNE}-{self.rows.curve[-1]}", [evaluation.with_shots(case, shots) for case in self.rows.test]
            )
            tried.training_s, tried.detail = self.tried[TUNE].training_s, _many(len(shots), "example")
            self.tried[TUNE_FEW_SHOT] = tried
        return advice.fit(self.rows.curve, scores, self.sampling.seed)

    def tuned_retrieval(self, retriever: Retriever, count: int) -> None:
        """A tuning whose prompts have the passages, asked with them."""
        self.say("tuning with the documents' passages in the prompts")
        rows = self.rows
        train, watch, test = (
            [advice.with_passages(case, retriever, count) for case in some]
            for some in (rows.train, rows.watch, rows.test)
        )
        training_s = self._tune(train, watch, TUNE_RETRIEVAL)
        self.tried[TUNE_RETRIEVAL] = self.test(TUNE_RETRIEVAL, test)
        self.tried[TUNE_RETRIEVAL].training_s, self.tried[TUNE_RETRIEVAL].detail = training_s, _many(count, "passage")

    # --- what else the advice says ----------------------------------------------------------------------------------

    def reasons(self, parts: Parts, category: str, left_out: str) -> Reasons:
        """Unseen answers, prompts cut short, a category left out, and what few-shot foretold."""
        more = Reasons(unseen=self._unseen())
        if TUNE not in self.tried:
            return more
        if FEW_SHOT in self.tried:
            more.predicts = self._predicts()
        more.saved = self._shorter(parts) if parts.are_some else self._saved()
        if left_out:
            more.similar = self._left_out(category, left_out)
        return more

    def _unseen(self) -> dict[str, Figure]:
        seen = {case.reference for case in self.rows.train}
        fresh = [number for number, case in enumerate(self.rows.test) if case.reference not in seen]
        ways = [name for name in (PROMPT, RETRIEVAL, TUNE, TUNE_RETRIEVAL) if name in self.tried]
        if len(fresh) < FEWEST_OF_KIND:
            return {}
        return {
            name: Figure.of(evaluation.measure([self.tried[name].scores[number] or 0.0 for number in fresh]))
            for name in ways
        }

    def _predicts(self) -> str:
        """Whether rows that examples put right are rows that tuning puts right."""
        triples = zip(self.tried[PROMPT].scores, self.tried[FEW_SHOT].scores, self.tried[TUNE].scores, strict=True)
        wrong = [(b or 0.0, c or 0.0) for a, b, c in triples if (a or 0.0) < 0.5]
        right, left = [c for b, c in wrong if b >= 0.5], [c for b, c in wrong if b < 0.5]
        if len(wrong) < FEWEST_OF_KIND:
            return ""
        if not right:
            return f"examples put none of the {len(wrong)} rows right that plain prompting has wrong; tuning {100 * _mean(left):.0f} % of them: few-shot did not foretell what tuning does"
        rest = f", and {100 * _mean(left):.0f} % of the {len(left)} that they do not" if left else ""
        return f"of the rows that plain prompting has wrong, tuning puts right {100 * _mean(right):.0f} % of the {len(right)} that examples put right{rest}"

    def _saved(self) -> str:
        if FEW_SHOT not in self.tried:
            return ""
        return f"a tuned model is asked with {self.tried[TUNE].input_tokens:.0f} input tokens a request, worked examples take {self.tried[FEW_SHOT].input_tokens:.0f}"

    def _shorter(self, parts: Parts) -> str:
        """What of all that prompts say alike a tuned model can do without: everything at once, else one part after the other."""
        whole = self.tried[TUNE]
        found = []
        for some in (parts, *(parts.each if len(parts.each) > 1 else ())):
            self.say(f"tuning without {some.named}")
            rows = self.rows
            train, watch, test = (
                [advice.without_parts(case, some) for case in of] for of in (rows.train, rows.watch, rows.test)
            )
            self._tune(train, watch, "short")
            short = self.test("short", test)
            change = evaluation.difference(whole.scores, short.scores)
            can_go = change.low >= -WITHOUT_LOSS
            verdict = (
                "can go without loss"
                if can_go
                else "cannot go without loss"
                if change.high < 0
                else "may go: these rows do not tell"
            )
            found.append(
                f"{some.named} {verdict}: a model tuned without scores {100 * change.mean:+.1f} pt [{100 * change.low:+.1f}, {100 * change.high:+.1f}] at "
                f"{short.input_tokens:.0f} input tokens a request instead of {whole.input_tokens:.0f}"
            )
            if can_go:
                break
        return "; ".join(found)

    def _left_out(self, category: str, value: str) -> tuple[str, Figure, Figure]:
        """The base, and a model tuned without the rows of a category, on that category."""
        self.say(f"tuning without the rows of {category} {value}")

        def is_of_it(case: Case) -> bool:
            return str(evaluation.value_at(case.row, category)) == value

        train, watch = ([case for case in some if not is_of_it(case)] for some in (self.rows.train, self.rows.watch))
        self._tune(train, watch or self.rows.watch, "others")
        within = [number for number, case in enumerate(self.rows.test) if is_of_it(case)]
        asked = [self.rows.test[number] for number in within]
        after = self.scores(self.ask("others", asked), asked)
        before = [self.tried[PROMPT].scores[number] for number in within]
        return f"{category} {value}", _figure(before), _figure(after)

    def terms(self) -> tuple[Terms | None, str]:
        """Which of a true and a changed answer the base finds likelier, term by term; and the answers' perplexity."""
        self.say("does the base know the terms?")
        cases = [*self.rows.dev, *self.rows.train]
        found = advice.probes(cases, self.sampling.seed)

        def cost(told: Conversation) -> tuple[float, int]:
            try:
                return invocation.loss(self.asking, self.base, told)
            except Invalid:  # longer than the context
                return 0.0, 0

        with ThreadPoolExecutor(self.slots) as pool:
            true, false = (
                list(pool.map(cost, [one.true for one in found])),
                list(pool.map(cost, [one.false for one in found])),
            )
            whole = list(pool.map(cost, map(told, cases[:MOST_SCORED])))
        both = [(t[0], f[0]) for t, f in zip(true, false, strict=True) if t[1] and f[1]]
        tokens = sum(count for _, count in whole)
        return advice.known([t for t, _ in both], [f for _, f in both]), _perplexity(
            sum(loss for loss, _ in whole), tokens
        )


def _perplexity(loss: float, tokens: int) -> str:
    """What the answers cost the base, in words."""
    if not tokens:
        return ""
    each = exp(min(loss / tokens, 50))
    return f"the base's perplexity of the answers is {'above 1,000' if each > 1000 else f'{each:,.1f}'} a token"


def told(case: Case) -> Conversation:
    """A row with its reference as the answer."""
    return Conversation((*case.prompt.messages, Message("assistant", case.reference or "")), case.prompt.system)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _best(found: dict[int, float]) -> int:
    """The number with the best score, the smaller of equal ones."""
    return max(found, key=lambda number: (found[number], -number))


def _mean(scores: Sequence[float | None]) -> float:
    return fmean(score or 0.0 for score in scores)


def _figure(scores: Sequence[float | None]) -> Figure:
    return Figure.of(evaluation.measure([score or 0.0 for score in scores]))
