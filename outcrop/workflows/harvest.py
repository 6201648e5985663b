"""From what was asked and answered to the next data set: logs -> filters -> rows, each with its request."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from outcrop import synthesis
from outcrop.clock import now
from outcrop.datasets.comparison import FEWEST_BANDS, LARGEST_GROUP
from outcrop.datasets.conversion import check_form, written
from outcrop.datasets.likeness import BANDS, alike, signatures
from outcrop.datasets.source import split_uri
from outcrop.errors import Invalid, ModelFailed, OutcropError
from outcrop.logs import Filter, Logged, read_logs
from outcrop.registry import DataSet, Origin, Registry
from outcrop.rendering import Conversation, Message
from outcrop.storage import Storage
from outcrop.synthesis import Exchange, Teacher
from outcrop.workflows.answering import Answers, key_of
from outcrop.workflows.outputs import put

AT_ONCE = 8
# Prompts whose signatures are made at once.
BLOCK_ROWS = 64


@dataclass(frozen=True)
class Wanted:
    """Which calls are taken. `models` are ids by any of their names; none means all. Times are in UTC."""

    metadata: Filter
    models: tuple[str, ...] = ()
    after: datetime | None = None
    before: datetime | None = None

    def wants(self, call: Logged) -> bool:
        """Whether a call is meant."""
        at = call.at
        return (
            self.metadata(call.metadata)
            and (not self.models or any(synthesis.same_model(call.model, model) for model in self.models))
            and (self.after is None or (at is not None and at >= self.after))
            and (self.before is None or (at is not None and at < self.before))
        )


class Harvested(msgspec.Struct, frozen=True):
    """How many rows were kept, and why others were not."""

    rows: int
    reasons: dict[str, int]


class _Again(msgspec.Struct, frozen=True):
    """A teacher's answer in the place of the logged one, by what was asked of whom."""

    key: str
    text: str
    reason: str = ""


def harvest(
    uri: str, wanted: Wanted, target: str, form: str, storage: Storage, registry: Registry, teacher: Teacher | None = None,
    max_tokens: int = 1000, near: bool = True, corrections: Path | None = None,
) -> Harvested:  # fmt: skip
    """Write a data set from logged calls, with `.provenance.jsonl` beside it; `target` is an S3 URI or a path.

    Of calls with the same prompt the last one is taken; with `near`, of prompts that say nearly the same one. With a `teacher` every
    prompt is answered anew, what it has answered stays when that is cut short, in `.answers.jsonl` beside a target on this machine.
    `corrections` is a file of JSON lines {"requestId", "answer"}: answers that a person has written, or null for a row that is to go.
    Raises Invalid when nothing is left.
    """
    check_form(form)
    target = target if target.startswith("s3://") else str(Path(target).absolute())
    bucket, prefix = split_uri(uri)
    reasons: Counter[str] = Counter()
    found = list(_exchanges(read_logs(storage.objects, bucket, prefix), wanted, reasons))
    kept = _distinct(found, near, reasons)
    answers = _answers(kept, teacher, max_tokens, target, reasons)
    corrected = _corrections(corrections)
    lines: list[bytes] = []
    sources: list[dict[str, Any]] = []
    for number, one in enumerate(kept):
        answer, by = answers[number], teacher.name if teacher is not None else one.model
        if one.request_id in corrected:
            answer, by = corrected[one.request_id], "a person"
            reasons["taken out by a person"] += answer is None
        elif answer is None and teacher is None:
            reasons["the answer is empty, was cut, or was not logged"] += 1
        if answer is None:
            continue
        row = Conversation((*one.asked.messages, Message("assistant", answer)), one.asked.system)
        lines.append(written(form, row, one.place))
        sources.append({"requestId": one.request_id, "place": one.place, "model": one.model, "answeredBy": by})
    if not lines:
        why = "; ".join(f"{count:,} times: {reason}" for reason, count in reasons.most_common(5))
        raise Invalid(f"{uri}: no row is left. {why}".strip())
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    _write(storage, target, lines)
    _write(storage, f"{target}.provenance.jsonl", [msgspec.json.encode(source) + b"\n" for source in sources])
    details = {"teacher": teacher.name} if teacher is not None else {}
    registry.keep_data_set(
        DataSet(
            id=digest, uri=target, rows=len(lines), made_by="harvest", made_at=now(), origins=[Origin(uri, what="logs")],
            details={**details, "models": ", ".join(sorted({one.model for one in kept}))}, provenance=f"{target}.provenance.jsonl",
        )
    )  # fmt: skip
    return Harvested(len(lines), dict(reasons))


def _exchanges(logged: Iterable[Logged | str], wanted: Wanted, reasons: Counter[str]) -> Iterator[Exchange]:
    for call in logged:
        if isinstance(call, str):
            reasons["is no record of a log, or cannot be read"] += 1
            continue
        if not wanted.wants(call):
            reasons["is not meant by the filters"] += 1
            continue
        read = synthesis.exchange_of(call)
        if isinstance(read, str):
            reasons[read] += 1
        else:
            yield read


def _distinct(found: list[Exchange], near: bool, reasons: Counter[str]) -> list[Exchange]:
    """One call of each prompt, the last; in the order of the log."""
    last = {_key(one): index for index, one in enumerate(found)}
    kept = [found[index] for index in sorted(last.values())]
    reasons["the same prompt comes again later"] += len(found) - len(kept)
    if not near or not kept:
        return kept
    bands = np.concatenate([_bands(kept[begin : begin + BLOCK_ROWS]) for begin in range(0, len(kept), BLOCK_ROWS)])
    groups: dict[tuple[int, int], list[int]] = {}
    chosen: list[int] = []
    for index, one in enumerate(kept):
        places = [(band, int(bands[index, band])) for band in range(BANDS)]
        rivals = Counter(other for place in places for other in groups.get(place, ())[-LARGEST_GROUP:])
        if any(shared >= FEWEST_BANDS and alike(_key(one), _key(kept[other])) for other, shared in rivals.items()):
            reasons["nearly the same prompt came before"] += 1
            continue
        chosen.append(index)
        for place in places:
            groups.setdefault(place, []).append(index)
    return [kept[index] for index in chosen]


def _bands(some: list[Exchange]) -> np.ndarray:
    lines = [_key(one).replace("\n", " ").encode("utf-8", "replace") + b"\n" for one in some]
    starts = np.concatenate([[0], np.cumsum([len(line) for line in lines])[:-1]])
    return signatures(b"".join(lines), starts)


def _key(one: Exchange) -> str:
    return "\n".join([one.asked.system or "", *(message.text for message in one.asked.messages)])


def _answers(
    kept: list[Exchange], teacher: Teacher | None, max_tokens: int, target: str, reasons: Counter[str]
) -> list[str | None]:
    """Each row's answer; None where there is none to learn."""
    if teacher is None:
        return [one.answer if (one.answer or "").strip() and not one.is_cut else None for one in kept]
    asked = teacher  # not None in the function below
    file = Path(f"{target}.answers.jsonl") if not target.startswith("s3://") else None
    growing = Answers(file, _Again)
    keys = [key_of(one.asked, asked.name, str(max_tokens)) for one in kept]
    done = {again.key: again for again in growing.kept()}

    def act(number: int) -> _Again:
        try:
            said = asked.answer(kept[number].asked, max_tokens)
        except ModelFailed:
            raise  # the teacher is gone; what it has said stays
        except OutcropError as error:
            return _Again(keys[number], "", f"the teacher refuses it: {error.message}")
        reason = "" if said.is_whole and said.text.strip() else "the teacher's answer is empty, or was cut at its limit"
        return _Again(keys[number], said.text, reason)

    missing = [number for number, key in enumerate(keys) if key not in done]
    growing.ask(missing, act, AT_ONCE, None, lambda again: done.update({again.key: again}))
    for key in keys:
        if done[key].reason:
            reasons[done[key].reason] += 1
    return [done[key].text if not done[key].reason else None for key in keys]


def _corrections(file: Path | None) -> dict[str, str | None]:
    if file is None:
        return {}
    found: dict[str, str | None] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            one = msgspec.json.decode(line, type=dict[str, Any])
            found[str(one["requestId"])] = one["answer"] if one["answer"] is None else str(one["answer"])
        except (msgspec.DecodeError, KeyError) as error:
            raise Invalid(f'{file}: line {number} must be {{"requestId": ..., "answer": ...}}: {error}') from None
    return found


def _write(storage: Storage, target: str, lines: list[bytes]) -> None:
    if target.startswith("s3://"):
        bucket, key = split_uri(target)
        if storage.objects.bucket(bucket) is None:
            raise Invalid(f"{target}: there is no bucket {bucket!r}; create it first")
        put(storage.objects, bucket, key, iter(lines), "application/x-ndjson")
    else:
        Path(target).write_bytes(b"".join(lines))
