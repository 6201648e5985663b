"""A model in use: what its logs say has changed, and how it does on rows that it is asked again and again."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from outcrop import evaluation, invocation, synthesis
from outcrop.clock import now
from outcrop.datasets.conversion import read_any
from outcrop.datasets.source import open_file, split_uri
from outcrop.errors import Invalid, NotFound
from outcrop.evaluation import Case
from outcrop.evaluation.comparison import Figure, verdict
from outcrop.evaluation.drift import Call, Change, changes
from outcrop.evaluation.significance import FEWEST
from outcrop.evaluation.significance import test as significance_of
from outcrop.logs import Logged, read_logs
from outcrop.registry import Registry
from outcrop.rendering import Conversation
from outcrop.serving import Serving
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.synthesis import CatalogueTeacher
from outcrop.workflows.answering import own_engine
from outcrop.workflows.compare import Sampling, ask_all, embedding, make_folder
from outcrop.workflows.guards import custom_behind

HISTORY, SPOTS = "watch.jsonl", "spots.jsonl"
TRAINING, CALLS = "training", "calls"


@dataclass(frozen=True)
class Wanted:
    """What is watched. `recent_h` divides recent calls from earlier ones; `against` is TRAINING, CALLS, or "" for whichever there is.
    `data` are rows for spot checks, `spot` how many of them are asked."""

    model: str
    logs: str = ""
    recent_h: float = 24.0
    against: str = ""
    data: str = ""
    spot: int = 50
    metric: str = ""
    embedder: str = ""
    max_tokens: int = 256
    seed: int = 0


class Spot(msgspec.Struct, frozen=True):
    """A spot check: the scores by row, None where there was no answer."""

    at: datetime
    metric: str
    keys: list[str]
    scores: list[float | None]


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found. `spot` is this spot check's figure, `change` its paired difference from the first one."""

    model: str
    at: datetime
    against: str
    before: int
    after: int
    unread: int
    changes: list[Change]
    spot: Figure | None = None
    metric: str = ""
    change: Figure | None = None
    verdict: str = ""
    notes: list[str] = []
    has_stopped: bool = False
    """There were calls before, and none recently."""

    @property
    def is_calm(self) -> bool:
        """Whether nothing is to be told."""
        return not any(one.is_told for one in self.changes) and self.verdict != "worse" and not self.has_stopped

    @property
    def summary(self) -> str:
        """The look in a few words."""
        if not self.is_calm:
            return "there is something to tell"
        return "nothing to tell" if self.changes or self.change is not None else "too few calls to say anything"


@dataclass(frozen=True)
class Watch:
    """The work of a look."""

    storage: Storage
    registry: Registry
    settings: Settings
    configured: dict[str, Any] | None
    """The logging configuration in force."""

    def __call__(self, wanted: Wanted, folder: Path) -> Watched:
        """Look once; what was found is added to watch.jsonl in the folder. Raises Invalid when there is nothing to look at, NotFound."""
        make_folder(folder)
        notes: list[str] = []
        models = [name for name in (wanted.model if wanted.data else "", wanted.embedder) if name]
        with own_engine(self.storage, self.registry, self.settings, "watch", *models) as asking:
            calls, unread = self._calls(wanted, asking.serving, notes)
            border = now() - timedelta(hours=wanted.recent_h)
            recent = [call for at, call in calls if at >= border]
            before, against = self._before(wanted, [call for at, call in calls if at < border], notes)
            has_stopped = not recent and len(before) >= FEWEST and against.endswith("earlier calls")
            if has_stopped:
                notes.append(f"no calls in the last {wanted.recent_h:g} hours, after {len(before):,} before them")
            elif min(len(before), len(recent)) < FEWEST and calls:
                notes.append(
                    f"{len(before)} before and {len(recent)} recent calls: fewer than {FEWEST} on a side say nothing of a change"
                )
            embed = embedding(asking, wanted.embedder) if wanted.embedder else None
            found = changes(before, recent, embed, wanted.seed)
            spot = self._spot(wanted, asking, folder, notes) if wanted.data else {}
        told: dict[str, Any] = {"notes": notes, "has_stopped": has_stopped, **spot}
        watched = Watched(model=wanted.model, at=now(), against=against, before=len(before), after=len(recent), unread=unread, changes=found, **told)  # fmt: skip
        with (folder / HISTORY).open("ab") as history:
            history.write(msgspec.json.encode(watched) + b"\n")
        return watched

    def _calls(self, wanted: Wanted, serving: Serving, notes: list[str]) -> tuple[list[tuple[datetime, Call]], int]:
        """The model's calls with their times, and how many could not be read as text."""
        if not wanted.logs and wanted.data and (self.configured or {}).get("s3Config") is None:
            notes.append("no calls are logged here (docs/logs.md): only the spot check is made")
            return [], 0
        bucket, prefix = split_uri(wanted.logs) if wanted.logs else self._configured()
        names, unread, found = self._names(wanted.model, serving), 0, []
        for logged in read_logs(self.storage.objects, bucket, prefix):
            if isinstance(logged, str):
                unread += 1
            elif logged.model in names or any(synthesis.same_model(logged.model, name) for name in names):
                read = _call(logged)
                at = logged.at
                if read is None or at is None:
                    unread += 1
                else:
                    found.append((at, read))
        if not found:
            serving.target(wanted.model)  # raises NotFound for a name that is none, such as a misspelt one
        return found, unread

    def _configured(self) -> tuple[str, str]:
        place = (self.configured or {}).get("s3Config")
        if place is None:
            raise Invalid(
                "no calls are logged here; configure the invocation log (docs/logs.md), or name a prefix of logs with --logs"
            )
        return place["bucketName"], place.get("keyPrefix", "")

    def _names(self, model: str, serving: Serving) -> set[str]:
        """What calls of it may be logged under: its name, id and ARN, and those of the deployments of a custom model."""
        custom = custom_behind(self.storage, self.registry, model)
        behind: list[Any] = [
            *serving.deployments.all(),
            *serving.provisioned.all(),
            *([custom] if custom is not None else []),
        ]
        names = {model}
        for one in behind:
            is_meant = model in (one.arn, one.name, one.id)
            is_a_deployment = (
                custom is not None
                and model in (custom.arn, custom.name, custom.id)
                and getattr(one, "model_arn", "") == custom.arn
            )
            if is_meant or is_a_deployment:
                names |= {one.arn, one.name, one.id}
        return names

    def _before(self, wanted: Wanted, earlier: list[Call], notes: list[str]) -> tuple[list[Call], str]:
        """What recent calls are held against: earlier ones, or the prompts that the model was trained on."""
        if wanted.against == CALLS or (not wanted.against and len(earlier) >= FEWEST):
            return earlier, f"{len(earlier):,} earlier calls"
        custom = custom_behind(self.storage, self.registry, wanted.model)
        if custom is None:
            if wanted.against == TRAINING:
                raise Invalid(
                    f"{wanted.model} is no custom model; hold its calls against earlier ones (--against calls)"
                )
            return earlier, f"{len(earlier):,} earlier calls"
        uri = (custom.lineage.get("training_data") or {}).get("uri") or custom.training_uri
        try:
            rows = [content for _, content, _ in read_any(open_file(self.storage.objects, uri))]
        except (Invalid, NotFound) as error:
            notes.append(f"the training data of {custom.name} cannot be read: {error.message}")
            return earlier, f"{len(earlier):,} earlier calls"
        asked = [Call(_last_question(row.messages)) for row in rows if isinstance(row, Conversation)]
        return asked, f"the {len(asked):,} prompts that it was trained on"

    def _spot(self, wanted: Wanted, asking: invocation.Invocation, folder: Path, notes: list[str]) -> dict[str, Any]:
        """The same rows as ever, and how the model does on them now and did at first."""
        cases = evaluation.read_cases(open_file(self.storage.objects, wanted.data))
        chosen: list[Case] = Random(wanted.seed).sample(cases, min(wanted.spot, len(cases)))
        name = wanted.metric or next(iter(evaluation.fitting(cases)), "")
        if not name:
            raise Invalid(
                f"{wanted.data}: the rows have no reference answers; a spot check needs them, or a metric that does without (--metric)"
            )
        metric = evaluation.grader(name) if evaluation.is_grader(name) else evaluation.named([name])[0]
        answers = ask_all(
            CatalogueTeacher(asking, wanted.model),
            chosen,
            Sampling(wanted.max_tokens, 0.0, wanted.seed),
            self.settings.engine_slots,
        )
        scores = (
            evaluation.label_scores(answers, chosen, cases)
            if name == "label"
            else [
                None if given.error else metric.score(given, case) for given, case in zip(answers, chosen, strict=True)
            ]
        )
        now_spot = Spot(now(), metric.name, [case.key for case in chosen], scores)
        first = next(
            (spot for spot in _spots(folder / SPOTS) if spot.metric == now_spot.metric and spot.keys == now_spot.keys),
            None,
        )
        if first is None and next(_spots(folder / SPOTS), None) is not None:
            notes.append("the spot check's rows or metric are others than before: this is the first look at them")
        if len(chosen) < FEWEST:
            notes.append(f"a spot check of {len(chosen)} rows gives no verdict; {FEWEST} are needed (--spot)")
        with (folder / SPOTS).open("ab") as file:
            file.write(msgspec.json.encode(now_spot) + b"\n")
        told: dict[str, Any] = {"metric": metric.name}
        if all(score is None for score in scores):
            return {**told, "verdict": "worse", "notes": [*notes, f"the spot check has no answer: {answers[0].error}"]}
        told["spot"] = Figure.of(evaluation.measure(scores))
        if first is not None and any(
            a is not None and b is not None for a, b in zip(first.scores, scores, strict=True)
        ):
            change = evaluation.difference(first.scores, scores)
            told |= {
                "change": Figure.of(change),
                "verdict": verdict(change, significance_of(first.scores, scores).p, metric.more_is_better),
            }
        return told


def _spots(path: Path) -> Iterator[Spot]:
    if path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # the last one may have been cut off
                yield msgspec.json.decode(line, type=Spot)


def _call(logged: Logged) -> Call | None:
    """A logged call as what is watched of it; None for what is no text."""
    if logged.error:
        return Call("", has_failed=True, input_tokens=logged.input_tokens)
    exchange = synthesis.exchange_of(logged)
    if isinstance(exchange, str):
        return None
    return Call(
        _last_question(exchange.asked.messages),
        exchange.answer or "",
        False,
        exchange.is_cut,
        logged.input_tokens,
        logged.output_tokens,
    )


def _last_question(messages: Any) -> str:
    return next((message.text for message in reversed(messages) if message.role == "user"), "")
