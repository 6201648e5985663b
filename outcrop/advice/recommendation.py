"""One recommendation from measured arms, and the report's table of when to tune, filled in.

The ways stand in the order of what they ask of their user: words, examples, an index, a training, a training and examples, a training and an
index. The first is taken; a dearer one takes its place when it is better by a paired test corrected for the ways tried, and by at least
`worth`. What is not better than always giving the commonest answer has learned nothing, whatever its score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outcrop.advice.curve import Curve
from outcrop.advice.terms import Terms
from outcrop.evaluation import difference
from outcrop.evaluation.charts import p_value
from outcrop.evaluation.comparison import Figure, verdict
from outcrop.evaluation.significance import holm
from outcrop.evaluation.significance import test as significance_of

PROMPT, FEW_SHOT, RETRIEVAL, TUNE = "prompt", "few-shot", "retrieval", "tune"
TUNE_FEW_SHOT, TUNE_RETRIEVAL = "tune + few-shot", "tune + retrieval"
ORDER = (PROMPT, FEW_SHOT, RETRIEVAL, TUNE, TUNE_FEW_SHOT, TUNE_RETRIEVAL)
CONSTANT = "the commonest answer"
NOTHING = "nothing"


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A way, what it reaches, and what a request costs. `training_s` is what its training took; `detail` what was chosen for it."""

    name: str
    figure: Figure
    form: float | None = None
    """Share of answers in the references' form."""
    input_tokens: float
    output_tokens: float
    seconds_a_request: float
    cost_a_thousand: float | None = None
    training_s: float = 0.0
    detail: str = ""


class Row(msgspec.Struct, frozen=True):
    """A row of the report's table: what it says of a kind of problem, and what was measured of this task."""

    problem: str
    report: str
    measured: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome. `choice` is a name of ORDER, or NOTHING."""

    choice: str
    sentence: str
    reasons: list[str]
    options: list[Option]
    table: list[Row]
    curve: Curve | None = None
    terms: Terms | None = None
    judged_by: str
    rows: dict[str, int]
    warnings: list[str] = []
    seconds: dict[str, float] = {}
    manifest: dict[str, Any] = {}


@dataclass(frozen=True)
class Ways:
    """The scores of each way on the same held-out rows, by its name of ORDER; `constant` are those of the commonest answer. A row that a way
    cannot answer is wrong: who takes the way gets no answer there."""

    scores: dict[str, list[float | None]]
    constant: list[float | None]
    worth: float = 0.05
    enough: float = 0.7
    hour_price: float = 0.0
    """What an hour of training costs."""


@dataclass
class Reasons:
    """What else was measured, for the sentence's reasons and the table."""

    unseen: dict[str, Figure] = field(default_factory=dict)
    """By way: rows whose answer no training row has."""
    similar: tuple[str, Figure, Figure] | None = None
    """A category that was left out of a training: its name, the base on it, and that model."""
    saved: str = ""
    predicts: str = ""
    perplexity: str = ""


def advise(
    ways: Ways,
    options: Sequence[Option],
    judged_by: str,
    rows: dict[str, int],
    more: Reasons,
    curve: Curve | None,
    terms: Terms | None,
) -> Advice:
    """Choose, say why, and fill in the table."""
    named = {option.name: option for option in options}
    tried = [name for name in ORDER if name in ways.scores]
    steps = _steps(ways, tried)
    choice = PROMPT
    for name in tried[1:]:
        if _is_better(steps[choice, name], ways.worth):
            choice = name
    best = max(tried, key=lambda name: named[name].figure.mean)
    has_learned = difference(ways.constant, ways.scores[best]).low > 0
    poor = choice == PROMPT and named[PROMPT].figure.mean < ways.enough
    reasons = [_reason(named, choice, name, steps, ways.worth) for name in tried if name != choice]
    reasons.insert(
        0, f"{choice} reaches {_said(named[choice].figure)}; always giving the commonest answer {_mean(ways.constant)}"
    )
    if not has_learned:
        sentence = (
            f"Nothing measured here helps: {best} reaches {_said(named[best].figure)}, which is not shown to be better than always giving the commonest "
            f"answer ({_mean(ways.constant)}); the answers do not seem to follow from the prompts. Look at the data before anything else."
        )
        choice = NOTHING
    elif poor:
        sentence = (
            f"Nothing measured here helps enough: plain prompting reaches {_said(named[PROMPT].figure)}, and no other way is shown to be better by "
            f"{100 * ways.worth:.0f} points; get more rows, other data, documents, or a larger base."
        )
        choice = NOTHING
    else:
        sentence = _sentence(choice, named, ways)
    reasons += [
        one
        for one in (
            more.predicts,
            more.saved,
            more.perplexity,
            "" if choice == NOTHING else _break_even(named, ways.worth, ways.hour_price),
        )
        if one
    ]
    return Advice(choice=choice, sentence=sentence, reasons=reasons, options=list(options), table=_table(named, more, curve, terms), curve=curve, terms=terms,
                  judged_by=judged_by, rows=rows, warnings=_warnings(rows))  # fmt: skip


Step = tuple[Any, float]


def _steps(ways: Ways, tried: Sequence[str]) -> dict[tuple[str, str], Step]:
    """Every dearer way against every cheaper one: the difference, and its p corrected for all that are tried."""
    pairs = [(cheap, dear) for number, cheap in enumerate(tried) for dear in tried[number + 1 :]]
    changes = {pair: difference(ways.scores[pair[0]], ways.scores[pair[1]]) for pair in pairs}
    p_values = holm([significance_of(ways.scores[cheap], ways.scores[dear]).p for cheap, dear in pairs])
    return {pair: (changes[pair], p) for pair, p in zip(pairs, p_values, strict=True)}


def _is_better(step: Step, worth: float) -> bool:
    change, p = step
    return verdict(change, p) == "better" and change.mean >= worth


def _reason(named: dict[str, Option], choice: str, name: str, steps: dict[tuple[str, str], Step], worth: float) -> str:
    cheaper = ORDER.index(name) < ORDER.index(choice)
    change, p = steps[(name, choice) if cheaper else (choice, name)]
    said = f"{100 * change.mean:+.1f} pt [{100 * change.low:+.1f}, {100 * change.high:+.1f}], p {p_value(p)}"
    if cheaper:
        return f"{choice} is {said} against {name} ({_said(named[name].figure)})"
    if _is_better((change, p), 0.0):
        return f"{name} ({_said(named[name].figure)}) is {said} against {choice}: less than the {100 * worth:.0f} pt that its cost is taken to be worth"
    judged = "worse" if verdict(change, p) == "worse" else "not shown to be better"
    return f"{name} ({_said(named[name].figure)}) is {judged}: {said}"


def _sentence(choice: str, named: dict[str, Option], ways: Ways) -> str:
    said = _said(named[choice].figure)
    detail = f" ({named[choice].detail})" if named[choice].detail else ""
    others = max(
        (named[name].figure.mean for name in ways.scores if name != choice and ORDER.index(name) < ORDER.index(choice)),
        default=0.0,
    )
    if choice == PROMPT:
        return f"Do not tune: plain prompting reaches {said}, and nothing dearer is shown to be better by {100 * ways.worth:.0f} points."
    if choice == FEW_SHOT:
        return f"Do not tune: worked examples in the prompt{detail} reach {said}, and nothing dearer is shown to be better by {100 * ways.worth:.0f} points."
    if choice == RETRIEVAL:
        return f"Do not tune: give the model the documents{detail}; that reaches {said}, and no training is shown to better it by {100 * ways.worth:.0f} points."
    what = {
        TUNE: "Tune",
        TUNE_FEW_SHOT: "Tune, and show examples",
        TUNE_RETRIEVAL: "Tune, and give the model the documents",
    }[choice]
    return f"{what}{detail}: that reaches {said}; the best way without it reaches {100 * others:.1f} %."


def _break_even(named: dict[str, Option], worth: float, hour_price: float) -> str:
    """From how many requests on a tuned model's shorter prompts have paid for its training: in prices where there are some, else in time."""
    tuned = named.get(TUNE)
    rivals = [named[name] for name in (PROMPT, FEW_SHOT, RETRIEVAL) if name in named]
    if tuned is None or not rivals:
        return ""
    rival = max(rivals, key=lambda option: option.figure.mean)
    if tuned.figure.mean < rival.figure.mean - worth:
        return ""
    if tuned.cost_a_thousand is not None and rival.cost_a_thousand is not None:
        saved, training = (rival.cost_a_thousand - tuned.cost_a_thousand) / 1000, tuned.training_s / 3600 * hour_price
        prices = f"1,000 requests cost {tuned.cost_a_thousand:,.4f} tuned and {rival.cost_a_thousand:,.4f} with {rival.name}, the training {training:,.4f}"
        return (
            f"{prices}: tuning never pays by price"
            if saved <= 0
            else f"{prices}: it has paid for itself after {training / saved:,.0f} requests"
        )
    saved = rival.seconds_a_request - tuned.seconds_a_request
    if saved <= 0:
        return f"tuning never pays by speed alone: a request takes {1000 * tuned.seconds_a_request:.1f} ms of this machine, with {rival.name} {1000 * rival.seconds_a_request:.1f} ms"
    return f"tuning took {tuned.training_s:,.0f} s and saves {1000 * saved:.1f} ms a request against {rival.name}: it has paid for itself after {tuned.training_s / saved:,.0f} requests"


def _table(named: dict[str, Option], more: Reasons, curve: Curve | None, terms: Terms | None) -> list[Row]:
    def form(name: str) -> str:
        option = named.get(name)
        return f"{name} {100 * option.form:.0f} %" if option is not None and option.form is not None else ""

    def score(name: str) -> str:
        return f"{name} {_said(named[name].figure)}" if name in named else ""

    joined = "; ".join(filter(None, map(form, (PROMPT, FEW_SHOT, TUNE))))
    skill = "; ".join(filter(None, map(score, (PROMPT, FEW_SHOT, TUNE))))
    similar = "not measured: it needs a category that can be left out (--category)"
    if more.similar is not None:
        name, before, after = more.similar
        similar = f"{name} was left out of a training: base {_said(before)}, tuned on the others {_said(after)}"
    fresh = "no held-out row has an answer that training rows lack"
    if more.unseen:
        fresh = f"rows whose whole answer no training row has: {'; '.join(f'{name} {_said(figure)}' for name, figure in more.unseen.items())}"
    if terms is not None:
        fresh += f". Terms: the base prefers the true one in {100 * terms.share:.0f} % [{100 * terms.low:.0f}, {100 * terms.high:.0f}] of {terms.asked} (50 % is chance): {terms.verdict}"
    return [
        Row(
            "hold a format or tone",
            "tuning very likely, prompting likely",
            f"answers in the references' form: {joined}",
        ),
        Row("a new skill", "tuning likely", skill + (f". {curve.says}" if curve is not None else "")),
        Row("similar skills improve, too", "unlikely", similar),
        Row("new knowledge, used in general", "very unlikely", fresh),
    ]


def _warnings(rows: dict[str, int]) -> list[str]:
    if rows["test"] < 100:
        return [
            f"{rows['test']} held-out rows: differences below some {100 * 2.8 * 0.5 / rows['test'] ** 0.5:.0f} points are not seen; more rows would decide more"
        ]
    return []


def _said(figure: Figure) -> str:
    return f"{100 * figure.mean:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def _mean(scores: Sequence[float | None]) -> str:
    counted = [score for score in scores if score is not None]
    return f"{100 * sum(counted) / max(len(counted), 1):.1f} %"
