"""Models, and ways to ask them, over the same rows: answers, scores, and a comparison that says how it was made."""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec

import outcrop
from outcrop import evaluation, invocation, synthesis
from outcrop.clock import now
from outcrop.datasets.source import Source, open_file
from outcrop.errors import Invalid, ModelFailed, OutcropError
from outcrop.evaluation import Arm, Case, Comparison, Metric, Questions, Response
from outcrop.evaluation.comparison import compare as hold_against
from outcrop.evaluation.likeness import Embed, check_ready, schema_faults
from outcrop.invocation.answer import renderer_of
from outcrop.invocation.embedding import MOST_TEXTS
from outcrop.registry import Registry
from outcrop.settings import Settings
from outcrop.storage import Storage, sha256_of
from outcrop.synthesis import CatalogueTeacher, Teacher
from outcrop.workflows.answering import Answers, key_of, own_engine
from outcrop.workflows.customize import weights_sha256
from outcrop.workflows.guards import custom_behind, earlier_looks, overlap_with_training

ANSWERS, RESULT, PAGE = "answers", "comparison.json", "comparison.html"
REMOTE_AT_ONCE = 8


@dataclass(frozen=True)
class Way:
    """One way to answer: a model, where it is ("" is this installation), and with how many worked examples."""

    model: str
    endpoint: str = ""
    shots: int = 0
    label: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        called = self.label or self.model
        return f"{called} + {self.shots} shot{'s' if self.shots > 1 else ''}" if self.shots else called


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: greedily at temperature 0. `seed` is of draws, shots, bootstrap and permutations."""

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Wanted:
    """What is compared on what. `metrics` are names, the first of them the judge; none means those that fit the references."""

    data: str
    ways: Sequence[Way]
    metrics: Sequence[str] = ()
    shots_from: str = ""
    system: str = ""
    slices: Sequence[str] = ()
    group: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    embedder: str = ""
    most: int | None = None


class _Kept(msgspec.Struct, frozen=True):
    """An answer by what it depends on."""

    key: str
    said: Response


Heard = Callable[[str, int, int], None]


def _nobody(arm: str, done: int, of: int) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Compare:
    """The work of a comparison."""

    storage: Storage
    registry: Registry
    settings: Settings

    def __call__(self, wanted: Wanted, folder: Path, tell: Heard = _nobody) -> Comparison:
        """Ask every arm every row, score, compare, and write comparison.json, comparison.html and the answers into the folder.

        What was answered stays: a second start asks only what is missing. A row that a model refuses, because it is too long or for
        another reason of its own, counts as failed. Raises Invalid for data, models or metrics that cannot be used, and ModelFailed
        when a model is gone; what was answered until then is kept.
        """
        began = time.monotonic()
        source = open_file(self.storage.objects, wanted.data)
        shots, cases = self._shots(wanted, self._cases(source, wanted))
        metrics = self._metrics(wanted, cases)
        make_folder(folder)
        arms, manifest, seconds = [], self._manifest(wanted, source, cases, shots), {}
        rendered: dict[tuple[str, int], str] = {}  # arms that share a renderer read the same prompts
        local = [way.model for way in wanted.ways if not way.endpoint]
        with self._engine(*local, *([wanted.embedder] if wanted.embedder else [])) as asking:
            embed = None if asking is None or not wanted.embedder else embedding(asking, wanted.embedder)
            for way in wanted.ways:
                started = time.monotonic()
                teacher, identity = self._teacher(way, asking)
                asked = [evaluation.with_shots(case, shots[: way.shots]) for case in cases]
                manifest["arms"].append(self._described(way, identity, asked, asking, rendered))
                responses = self._ask(way, teacher, identity, asked, wanted.sampling, folder, tell)
                seconds[way.name] = round(time.monotonic() - started, 2)
                arms.append(
                    Arm(way.name, responses, _scores(metrics, responses, cases, _price(way, wanted.prices), embed))
                )
        questions = Questions(
            cases, wanted.slices, wanted.group, Path(source.uri).name, self._warnings(wanted, source, cases)
        )
        found = hold_against(questions, arms, metrics, wanted.sampling.seed)
        seconds["asking"] = round(sum(seconds.values()), 2)
        seconds["all"] = round(time.monotonic() - began, 2)
        found = msgspec.structs.replace(found, manifest=manifest, seconds=seconds)
        lay_down(folder / PAGE, evaluation.page(found).encode())
        lay_down(folder / RESULT, msgspec.json.format(msgspec.json.encode(found)))
        return found

    # --- what is asked ----------------------------------------------------------------------------------------------

    def _cases(self, source: Source, wanted: Wanted) -> list[Case]:
        cases = evaluation.read_cases(source, wanted.system, wanted.most)
        if wanted.schema is not None:
            schema_faults({}, dict(wanted.schema))  # now, not when all has been asked
            cases = [Case(one.line, one.prompt, one.reference, {"schema": wanted.schema, **one.row}) for one in cases]
        for key in (*wanted.slices, *([wanted.group] if wanted.group else [])):
            if all(evaluation.value_at(case.row, key) is None for case in cases):
                raise Invalid(
                    f"{source.uri}: no row has the key {key!r}; there are {', '.join(list(cases[0].row)[:12])}"
                )
        return cases

    @staticmethod
    def _metrics(wanted: Wanted, cases: Sequence[Case]) -> list[Metric]:
        names = list(wanted.metrics) or evaluation.fitting(cases)
        if not names:
            raise Invalid(
                f"{wanted.data}: the rows have no reference answers; name a metric that needs none with --metric"
            )
        if "cost" in names and not wanted.prices:
            raise Invalid("the metric cost needs prices; give them with --price NAME=IN,OUT")
        arms = {name for way in wanted.ways for name in (way.name, way.label, way.model)}
        if unknown := sorted(set(wanted.prices) - arms):
            raise Invalid(
                f"--price names {unknown[0]!r}, which is no arm; there are {', '.join(way.name for way in wanted.ways)}"
            )
        if "similarity" in names and not wanted.embedder:
            raise Invalid("the metric similarity needs an embedding model; name one with --embedder")
        for name in names:
            check_ready(name)
        always = [*(["cost"] if wanted.prices else []), *evaluation.ALWAYS]
        chosen = dict.fromkeys([*names, *always])
        return [
            evaluation.grader(name) if evaluation.is_grader(name) else evaluation.named([name])[0] for name in chosen
        ]

    def _shots(self, wanted: Wanted, cases: list[Case]) -> tuple[list[Case], list[Case]]:
        """Worked examples in the order in which they are taken, and the rows that are asked: none of them is shown.

        Examples are rows of `shots_from`, or, without it, rows of the data, which then no arm is asked. Raises Invalid for too few.
        """
        most = max((way.shots for way in wanted.ways), default=0)
        if not most:
            return [], cases
        rng = Random(wanted.sampling.seed)
        if not wanted.shots_from:
            pool = [case for case in cases if case.reference is not None]
            if len(pool) <= most:
                raise Invalid(
                    f"{wanted.data}: {len(pool)} rows with references are too few to show {most} of them; name others with --shots-from"
                )
            shots = rng.sample(pool, most)
            shown = {evaluation.question_of(shot) for shot in shots}
            return shots, [case for case in cases if evaluation.question_of(case) not in shown]
        pool = evaluation.read_cases(open_file(self.storage.objects, wanted.shots_from), wanted.system)
        asked = {evaluation.question_of(case) for case in cases}
        fresh = [case for case in pool if case.reference is not None and evaluation.question_of(case) not in asked]
        if len(fresh) < most:
            raise Invalid(
                f"{wanted.shots_from}: {len(fresh)} rows can be shown, {most} shots are asked for; the others are rows of the evaluation"
            )
        return rng.sample(fresh, most), cases

    # --- who is asked -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _engine(self, *models: str) -> Iterator[invocation.Invocation | None]:
        if not models:
            yield None
            return
        with own_engine(self.storage, self.registry, self.settings, "compare", *dict.fromkeys(models)) as asking:
            yield asking

    def _teacher(self, way: Way, asking: invocation.Invocation | None) -> tuple[Teacher, str]:
        """Who answers, and what its answers depend on besides the question."""
        if not way.endpoint:
            assert asking is not None
            target = asking.serving.target(way.model)
            return CatalogueTeacher(asking, way.model), f"{weights_sha256(target.weights)} {renderer_of(target).hash}"
        teacher = synthesis.remote_teacher(way.model, way.endpoint, self.settings.teacher_key)
        return teacher, teacher.name

    def _ask(
        self, way: Way, teacher: Teacher, identity: str, asked: Sequence[Case], sampling: Sampling, folder: Path, tell: Heard
    ) -> list[Response]:  # fmt: skip
        """The arm's answers in the order of the rows; those of an earlier start count."""
        (folder / ANSWERS).mkdir(exist_ok=True)
        growing = Answers(folder / ANSWERS / f"{_file_name(way.name)}.jsonl", _Kept)
        drawn = (str(sampling.max_tokens), str(sampling.temperature), str(sampling.seed))
        keys = [key_of(case.prompt, identity, *drawn) for case in asked]
        done = {kept.key: kept for kept in growing.kept()}
        missing = list({key: number for number, key in enumerate(keys) if key not in done}.values())

        def act(number: int) -> _Kept:
            return _Kept(keys[number], respond(teacher, asked[number], sampling))

        def told(kept: _Kept) -> None:
            done[kept.key] = kept
            tell(way.name, len(done), len(asked))

        growing.ask(missing, act, REMOTE_AT_ONCE if way.endpoint else self.settings.engine_slots, None, told)
        return [done[key].said for key in keys]

    # --- what is said of it -----------------------------------------------------------------------------------------

    @staticmethod
    def _manifest(wanted: Wanted, source: Source, cases: Sequence[Case], shots: Sequence[Case]) -> dict[str, Any]:
        """All that the answers depend on, so that two comparisons can be told apart, or known to be the same."""
        return {
            "data": {"uri": source.uri, "sha256": sha256_of(source.path), "rows": len(cases), "asked": rows_hash(cases)},
            "system": wanted.system or None,
            "shots": {"from": wanted.shots_from or source.uri, "lines": [shot.line for shot in shots]} if shots else None,
            "sampling": msgspec.to_builtins(wanted.sampling), "group": wanted.group or None,
            "outcrop": outcrop.__version__, "at": now().isoformat(timespec="seconds"), "arms": [],
        }  # fmt: skip

    @staticmethod
    def _described(
        way: Way, identity: str, asked: Sequence[Case], asking: invocation.Invocation | None,
        rendered: dict[tuple[str, int], str],
    ) -> dict[str, Any]:  # fmt: skip
        """An arm in the manifest. `prompts` is one hash of all prompts as the model read them, in its own tokens; of a remote model,
        whose template is not known, of the conversations."""
        described: dict[str, Any] = {"name": way.name, "model": way.model, "shots": way.shots}
        if way.endpoint or asking is None:
            return {**described, "endpoint": way.endpoint, "conversations": rows_hash(asked)}
        renderer = renderer_of(asking.serving.target(way.model))
        key = (renderer.hash, way.shots)
        if key not in rendered:
            tokens = hashlib.sha256()
            for case in asked:
                with contextlib.suppress(Invalid):
                    tokens.update(msgspec.json.encode(renderer.prompt(case.prompt)))
            rendered[key] = tokens.hexdigest()
        return {**described, "weights": identity, "renderer": renderer.hash, "prompts": rendered[key]}

    def _warnings(self, wanted: Wanted, source: Source, cases: Sequence[Case]) -> list[str]:
        """What a reader should know before the figures: rows that training had, and earlier looks at the same rows."""
        found = []
        if not wanted.shots_from and (most := max(way.shots for way in wanted.ways)):
            found.append(
                f"{most} rows of the data are shown as examples and are asked of no arm; --shots-from takes them from another file"
            )
        for model in dict.fromkeys(way.model for way in wanted.ways if not way.endpoint):
            found += overlap_with_training(self.storage, self.registry, model, cases)
        return found + earlier_looks(self.storage, cases, {self._arm(way, wanted): way.name for way in wanted.ways})

    def _arm(self, way: Way, wanted: Wanted) -> str:
        """What makes an arm another one: model and place, shots, system prompt."""
        model = way.model
        if not way.endpoint and (custom := custom_behind(self.storage, self.registry, model)) is not None:
            model = custom.arn
        return hashlib.sha256(msgspec.json.encode([model, way.endpoint, way.shots, wanted.system])).hexdigest()[:16]


def make_folder(folder: Path) -> None:
    """A folder for what is written. Raises Invalid when there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"--out {folder}: this folder cannot be made: {error.strerror}") from None


def lay_down(path: Path, data: bytes) -> None:
    """A file that is there whole, or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(data)
    unfinished.rename(path)


def respond(teacher: Teacher, case: Case, sampling: Sampling) -> Response:
    """The answer to a row; a row that the model refuses has the reason. Raises ModelFailed when the model is gone."""
    began = time.perf_counter()
    try:
        said = teacher.answer(case.prompt, sampling.max_tokens, sampling.temperature, sampling.seed)
    except ModelFailed as error:  # nobody answers any more; what was said until now stays
        raise ModelFailed(error.message.removeprefix("the teacher ")) from None
    except OutcropError as error:
        return Response("", error=error.message.removeprefix("the teacher "))
    took = round((time.perf_counter() - began) * 1000, 2)
    text = said.text.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be kept
    if not said.input_tokens:  # a remote model that does not count
        return Response(text, None, None, took, said.is_whole)
    return Response(text, said.input_tokens, said.output_tokens, took, said.is_whole)


def ask_all(teacher: Teacher, cases: Sequence[Case], sampling: Sampling, at_once: int) -> list[Response]:
    """The answers in the order of the rows, none of them kept. Raises ModelFailed."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda case: respond(teacher, case, sampling), cases))


def rows_hash(cases: Sequence[Case]) -> str:
    """One hash of what is asked and wanted, in order."""
    return hashlib.sha256("".join(case.key for case in cases).encode()).hexdigest()


def _scores(
    metrics: Sequence[Metric], responses: Sequence[Response], cases: Sequence[Case], price: tuple[float, float] | None,
    embed: Embed | None,
) -> dict[str, list[float | None]]:  # fmt: skip
    """Every metric of every answer; a row without an answer has None."""
    pairs = list(zip(responses, cases, strict=True))
    found = {
        metric.name: [None if given.error else metric.score(given, case) for given, case in pairs] for metric in metrics
    }
    if "label" in found:
        found["label"] = evaluation.label_scores(responses, cases)
    if "cost" in found and price is not None:
        found["cost"] = [_cost(given, price) for given in responses]
    if "similarity" in found and embed is not None:
        places = [number for number, (given, case) in enumerate(pairs) if given.text.strip() and case.reference]
        likenesses = evaluation.cosines(
            embed, [(responses[number].text, str(cases[number].reference)) for number in places]
        )
        scored: list[float | None] = [
            0.0 if not given.error and not given.text.strip() and case.reference else None for given, case in pairs
        ]
        for number, value in zip(places, likenesses, strict=True):
            scored[number] = value
        found["similarity"] = scored
    return found


def _cost(given: Response, price: tuple[float, float]) -> float | None:
    """The price of 1,000 such requests, prices being those of a million tokens."""
    if given.error or given.input_tokens is None or given.output_tokens is None:
        return None
    return (given.input_tokens * price[0] + given.output_tokens * price[1]) / 1000


def _price(way: Way, prices: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
    return next((prices[name] for name in (way.name, way.label, way.model) if name in prices), None)


def embedding(asking: invocation.Invocation, model: str) -> Embed:
    """What makes vectors of any number of texts."""

    def one(text: str) -> list[float] | None:
        try:
            return invocation.embed(asking, model, [text]).vectors[0]
        except Invalid:  # it is empty, or longer than the model reads
            return None

    def embed(texts: list[str]) -> list[list[float] | None]:
        found: list[list[float] | None] = []
        for begin in range(0, len(texts), MOST_TEXTS):
            some = texts[begin : begin + MOST_TEXTS]
            try:
                found += invocation.embed(asking, model, some).vectors
            except Invalid:
                found += map(one, some)
        return found

    return embed


def _file_name(arm: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", arm)
    return plain if plain == arm else f"{plain}-{hashlib.sha256(arm.encode()).hexdigest()[:6]}"
