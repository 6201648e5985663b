"""From rows in S3 to scored responses at Bedrock's places: asked, judged, written, and summed up with intervals."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from outcrop import evaluation, invocation
from outcrop.datasets.source import find
from outcrop.errors import Invalid
from outcrop.evaluation import Arm, Case, Comparison, Metric, Questions, Response, judge, programmatic
from outcrop.evaluation.comparison import compare
from outcrop.evaluation.judge import Judged, Verdict
from outcrop.evaluation.metrics import COUNT, SHARE
from outcrop.evaluation.perturbation import perturbed
from outcrop.evaluation.programmatic import Programmatic
from outcrop.jobs import Job, Tell
from outcrop.jobs.worker import Stopped
from outcrop.names import id_of
from outcrop.registry import Registry
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.workflows.answering import Answers, own_engine
from outcrop.workflows.compare import rows_hash
from outcrop.workflows.outputs import put

# AWS's limit of rows; a job says so instead of leaving rows out.
MOST_ROWS = 1000
JUDGE_TOKENS = 512


class _Answered(msgspec.Struct, frozen=True):
    """What a model said to a row, or to the row's changed prompt of that number (from 1; 0 is the row's own)."""

    row: int
    version: int
    text: str
    is_whole: bool = True
    error: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: int | None = None


class _Judged(msgspec.Struct, frozen=True):
    """A judge's verdict on a row's response."""

    row: int
    metric: str
    result: float | str | None
    explanation: str


@dataclass(frozen=True)
class _Set:
    """A data set of the job with its rows and what is measured on them."""

    name: str
    task: str
    digest: str
    """Of the rows: what was said to others does not count when the file is exchanged between two tries."""
    cases: list[Case]
    computed: list[Programmatic]
    judged: list[tuple[Judged, str]]
    """Metrics that a judge rates, each with the judge."""


@dataclass(frozen=True)
class Evaluate:
    """The work of an evaluation job. Its engines are its own, so that it does not wait for the server's."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, job: Job, tell: Tell) -> None:
        """Ask, judge, score, write. When a worker dies, the next one goes on with what has no answer or verdict yet.

        Raises Invalid for rows that cannot be used, and, after everything has been written, when a judge gave no readable verdict at all.
        """
        if job.result.get("is_written"):  # a worker died after it had written everything
            _refuse(job.result.get("unread", []))
            return
        request, run = job.request, self.storage.run_folder(job.id)
        sets = [self._set(request, asked) for asked in request["datasets"]]
        generators = [model["id"] for model in request["models"] if not model["is_precomputed"]]
        judges = [name for name in (request["judge"], request["custom_judge"]) if name]
        unread: list[str] = []
        with own_engine(
            self.storage, self.registry, self.settings, "evaluation", *dict.fromkeys([*generators, *judges])
        ) as asking:
            for number, one in enumerate(sets):
                scored = []
                for place, model in enumerate(request["models"]):
                    responses = self._responses(
                        one, model, asking, run / f"{number}-{place}-{one.digest}.answers", tell
                    )
                    verdicts = self._verdicts(
                        one, responses, asking, run / f"{number}-{place}-{one.digest}.verdicts", tell
                    )
                    self._write(job, one, model, responses, verdicts)
                    tell.check()
                    scored.append((model["id"], responses, verdicts))
                    unread += [
                        *_unanswered(model["id"], responses),
                        *_unread(one, model["id"], verdicts),
                        *_unscored(one, model["id"], responses),
                    ]
                self._summarize(job, one, scored)
                tell.event(kind="evaluated", dataset=one.name, rows=len(one.cases))
        self._keep_metrics(job)
        tell.result(is_written=True, unread=unread)
        shutil.rmtree(run, ignore_errors=True)
        _refuse(unread)

    # --- the stations -----------------------------------------------------------------------------------------------

    def _set(self, request: dict[str, Any], asked: dict[str, Any]) -> _Set:
        cases = evaluation.read_cases(find(self.storage.objects, asked["uri"]))
        if len(cases) > MOST_ROWS:
            raise Invalid(
                f"{asked['uri']} has {len(cases):,} rows; an evaluation job takes {MOST_ROWS:,} (outcrop compare takes any number)"
            )
        own = {
            one["name"]: judge.custom(one["name"], one["instructions"], [tuple(pair) for pair in one["scale"]])
            for one in request["custom"]
        }
        judged: list[tuple[Judged, str]] = []
        computed: list[Programmatic] = []
        for name in asked["metrics"]:
            if name in own:
                judged.append((own[name], request["custom_judge"]))
            elif name in judge.BUILT_IN:
                judged.append((judge.BUILT_IN[name], request["judge"]))
            else:
                metric = programmatic.find(asked["task"], name)
                assert not isinstance(metric, str)  # the door has looked
                computed.append(metric)
        return _Set(asked["name"], asked["task"], rows_hash(cases)[:12], cases, computed, judged)

    def _responses(
        self, one: _Set, model: dict[str, Any], asking: invocation.Invocation, file: Path, tell: Tell
    ) -> dict[tuple[int, int], _Answered]:  # fmt: skip
        """What the model says to every row, and to every changed prompt where a metric wants it; or what the rows bring with them."""
        if model["is_precomputed"]:
            return {(row, 0): _brought(row, case, model["id"]) for row, case in enumerate(one.cases)}
        growing = Answers(file, _Answered)
        done = {(kept.row, kept.version): kept for kept in growing.kept()}
        versions = 6 if any(metric.perturbs for metric in one.computed) else 1
        missing = [
            (row, version) for row in range(len(one.cases)) for version in range(versions) if (row, version) not in done
        ]

        def told(kept: _Answered) -> None:
            done[kept.row, kept.version] = kept

        with contextlib.suppress(Stopped):  # what there is gets written first
            growing.ask(missing, partial(_answered, one.cases, model, asking), self.settings.engine_slots, tell, told)
        return done

    def _verdicts(
        self, one: _Set, responses: dict[tuple[int, int], _Answered], asking: invocation.Invocation, file: Path, tell: Tell
    ) -> dict[tuple[int, str], _Judged]:  # fmt: skip
        """What the judges say of every response that there is."""
        growing = Answers(file, _Judged)
        done = {(kept.row, kept.metric): kept for kept in growing.kept()}
        missing = [
            (row, judged, by)
            for judged, by in one.judged
            for row in range(len(one.cases))
            if (row, 0) in responses and not responses[row, 0].error and (row, judged.name) not in done
        ]

        def act(question: tuple[int, Judged, str]) -> _Judged:
            row, judged, by = question
            verdict = _verdict(asking, by, judged, one.cases[row], responses[row, 0].text)
            return _Judged(row, judged.name, verdict.result, verdict.explanation)

        def told(kept: _Judged) -> None:
            done[kept.row, kept.metric] = kept

        with contextlib.suppress(Stopped):
            growing.ask(missing, act, self.settings.engine_slots, tell, told)
        return done

    def _write(
        self, job: Job, one: _Set, model: dict[str, Any], responses: dict[tuple[int, int], _Answered], verdicts: dict[tuple[int, str], _Judged]
    ) -> None:  # fmt: skip
        """The rows with their scores, where Bedrock writes them."""
        bucket, prefix = place_of(job)
        name = f"{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join([job.arn, one.name, model['id']]))}_output.jsonl"
        key = f"{prefix}models/{_key(model['id'])}/taskTypes/{one.task}/datasets/{one.name}/{name}"
        put(self.storage.objects, bucket, key, _records(one, model["id"], responses, verdicts), "application/x-ndjson")

    def _summarize(
        self,
        job: Job,
        one: _Set,
        scored: Sequence[tuple[str, dict[tuple[int, int], _Answered], dict[tuple[int, str], _Judged]]],
    ) -> None:
        """Means with intervals, and of two models the paired differences: a page and JSON beside Bedrock's files."""
        arms = [_arm(one, *of_model) for of_model in scored]
        metrics = [
            metric
            for metric in _metrics(one)
            if any(score is not None for arm in arms for score in arm.scores[metric.name])
        ]
        if not metrics:
            return
        if any(score is not None for arm in arms for score in arm.scores["tokens-out"]):
            metrics += evaluation.named(["tokens-out"])
        slices = ("category",) if any("category" in case.row for case in one.cases) else ()
        warnings = [
            f"rated by {by}: what its ratings are worth is not known here"
            for by in dict.fromkeys(by for _, by in one.judged)
        ]
        questions = Questions(one.cases, slices, title=f"{job.name}: {one.name}", warnings=warnings)
        found: Comparison = compare(questions, arms, metrics)
        bucket, prefix = place_of(job)
        summary = msgspec.json.format(msgspec.json.encode(found))
        self.storage.objects.put_bytes(bucket, f"{prefix}summary/{one.name}.json", summary, "application/json")
        self.storage.objects.put_bytes(
            bucket, f"{prefix}summary/{one.name}.html", evaluation.page(found).encode(), "text/html"
        )

    def _keep_metrics(self, job: Job) -> None:
        bucket, prefix = place_of(job)
        for one in job.request["custom"]:
            data = msgspec.json.format(msgspec.json.encode({"customMetricDefinition": one["definition"]}))
            self.storage.objects.put_bytes(
                bucket, f"{prefix}custom_metrics/{one['name']}.json", data, "application/json"
            )


def _metrics(one: _Set) -> list[Metric]:
    """What a set's summary shows; ratings in words have no mean."""
    found = [Metric(metric.name, metric.what, _unused, SHARE, metric.more_is_better) for metric in one.computed]
    for judged, _ in one.judged:
        values = [value for _, value in judged.scale if not isinstance(value, str)]
        if len(values) == len(judged.scale):
            form = SHARE if all(0 <= value <= 1 for value in values) else COUNT
            found.append(
                Metric(judged.name, judged.question or judged.instructions, _unused, form, judged.more_is_better)
            )
    return found


def _arm(
    one: _Set, model: str, responses: dict[tuple[int, int], _Answered], verdicts: dict[tuple[int, str], _Judged]
) -> Arm:
    """A model's responses with all scores, as a comparison has them."""
    given = [responses[row, 0] for row in range(len(one.cases))]
    scores = {metric.name: _computed(metric, one.cases, responses) for metric in one.computed}
    for judged, _ in one.judged:
        found = [verdicts.get((row, judged.name)) for row in range(len(one.cases))]
        results = [None if verdict is None else verdict.result for verdict in found]
        scores[judged.name] = [float(result) if isinstance(result, int | float) else None for result in results]
    scores["tokens-out"] = [
        None if answer.error or answer.output_tokens is None else float(answer.output_tokens) for answer in given
    ]
    return Arm(model, [
        Response(answer.text, answer.input_tokens, answer.output_tokens, answer.latency_ms, answer.is_whole, answer.error) for answer in given
    ], scores)  # fmt: skip


def _refuse(unread: Sequence[str]) -> None:
    """Raise Invalid when something asked for has no result on any row."""
    if unread:
        raise Invalid("; ".join(unread))


def place_of(job: Job) -> tuple[str, str]:
    """Bucket and prefix of a job's output: `{output}/{job name}/{uuid}/`; the uuid is the same at every try."""
    bucket, _, prefix = job.request["output_uri"].removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    return bucket, f"{prefix}{job.name}/{uuid.uuid5(uuid.NAMESPACE_URL, job.arn)}/"


def _key(model: str) -> str:
    """A model in a key: an ARN's last part."""
    return id_of(model)


def _unused(given: Response, case: Case) -> float | None:
    raise AssertionError("scores are handed over")


def _brought(row: int, case: Case, source: str) -> _Answered:
    """A row's own response. Raises Invalid when it has none of that source."""
    given = case.row.get("modelResponses")
    for one in given if isinstance(given, list) else ():
        if isinstance(one, dict) and one.get("modelIdentifier") == source and isinstance(one.get("response"), str):
            return _Answered(row, 0, one["response"])
    raise Invalid(
        f"line {case.line}: modelResponses has no response with modelIdentifier {source!r}, which inferenceSourceIdentifier names"
    )


def _answered(
    cases: Sequence[Case], model: dict[str, Any], asking: invocation.Invocation, question: tuple[int, int]
) -> _Answered:
    row, version = question
    case = cases[row]
    prompt = case.prompt
    if version:
        changed = perturbed(case.question, seed=row)[version - 1]
        prompt = evaluation.asking_instead(prompt, changed)
    given = model["sampling"]
    ask = invocation.Ask(
        prompt, given["max_tokens"], given["temperature"], given["top_p"], stop_sequences=tuple(given["stop"])
    )
    try:
        said = invocation.answer_when_free(asking, model["id"], ask)
    except Invalid as error:
        return _Answered(row, version, "", error=error.message)
    return _Answered(
        row, version, said.text, said.stopped_by != "length", "", said.input_tokens, said.output_tokens, said.latency_ms
    )


def _verdict(asking: invocation.Invocation, by: str, judged: Judged, case: Case, response: str) -> Verdict:
    try:
        question = judge.ask(judged, case, response)
        said = invocation.answer_when_free(
            asking, by, invocation.Ask(question, JUDGE_TOKENS, schema=judge.schema_of(judged))
        )
    except Invalid as error:
        return Verdict(None, error.message)
    return judge.read(judged, said.text)


def _computed(
    metric: Programmatic, cases: Sequence[Case], responses: dict[tuple[int, int], _Answered]
) -> list[float | None]:
    found: list[float | None] = []
    for row, case in enumerate(cases):
        answer = responses.get((row, 0)) or _Answered(row, 0, "", error="the job was stopped before")
        others = [responses[row, version] for version in range(1, 6) if (row, version) in responses]
        found.append(
            None
            if answer.error
            else metric.score(answer.text, [other.text for other in others if not other.error], case)
        )
    return found


def _records(
    one: _Set, model: str, responses: dict[tuple[int, int], _Answered], verdicts: dict[tuple[int, str], _Judged]
) -> Iterator[bytes]:
    computed = {metric.name: _computed(metric, one.cases, responses) for metric in one.computed}
    for row, case in enumerate(one.cases):
        if (row, 0) not in responses:  # the job was stopped before
            continue
        answer = responses[row, 0]
        scores: list[dict[str, Any]] = [
            {"metricName": name, "result": results[row]} for name, results in computed.items()
        ]
        for judged, by in one.judged:
            verdict = verdicts.get((row, judged.name))
            said = verdict.explanation if verdict is not None else "there is no response to judge"
            result = verdict.result if verdict is not None else None
            scores.append(
                {
                    "metricName": judged.name,
                    "result": result,
                    "evaluatorDetails": [{"modelIdentifier": by, "explanation": said}],
                }
            )
        response: dict[str, Any] = {"modelIdentifier": model, "response": answer.text}
        if answer.error:
            response = {"modelIdentifier": model, "response": None, "error": answer.error}
        yield (
            msgspec.json.encode(
                {"automatedEvaluationResult": {"scores": scores}, "inputRecord": case.row, "modelResponses": [response]}
            )
            + b"\n"
        )


def _unanswered(model: str, responses: dict[tuple[int, int], _Answered]) -> list[str]:
    """A model that answers no row."""
    given = [answer for (_, version), answer in responses.items() if not version]
    if given and all(answer.error for answer in given):
        return [f"{model} answers none of {len(given)} rows; the first: {given[0].error}"]
    return []


def _unscored(one: _Set, model: str, responses: dict[tuple[int, int], _Answered]) -> list[str]:
    """Computed metrics without a result on any row that was answered."""
    if not any(not answer.error for (_, version), answer in responses.items() if not version):
        return []
    return [
        f"{metric.name} of {model} has no result on any row of {one.name}: the rows have no referenceResponse, or not what the metric needs"
        for metric in one.computed
        if all(score is None for score in _computed(metric, one.cases, responses))
    ]


def _unread(one: _Set, model: str, verdicts: dict[tuple[int, str], _Judged]) -> list[str]:
    """Metrics of which no row has a result."""
    found = []
    for judged, by in one.judged:
        mine = [verdict for (_, name), verdict in verdicts.items() if name == judged.name]
        if mine and all(verdict.result is None for verdict in mine):
            found.append(
                f"{judged.name} of {model}: the evaluator model {by} gave no verdict on any of {len(mine)} responses; the first: {mine[0].explanation}"
            )
    return found
