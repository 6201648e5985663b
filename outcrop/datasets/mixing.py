"""General and special data in one file, by ratio; and one file parted in several, without a group in two of them."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outcrop.datasets.conversion import check_form, read_any, written
from outcrop.datasets.formats import Content
from outcrop.datasets.likeness import plain
from outcrop.datasets.source import Source, read_lines
from outcrop.errors import Invalid
from outcrop.rendering import Conversation

PARTS = ("train", "validation", "test")


def mix(
    shares: Sequence[tuple[Source, float]], target: Path, form: str, rows: int | None = None, seed: int = 0
) -> dict[str, int]:
    """Draw rows of several files by their shares, in an order drawn by the seed; how many came from each.

    No row comes twice: without `rows` there are as many as the shares allow. Beside the target, `.sources.jsonl` says for each row
    where it came from. Raises Invalid when a file has too few rows.
    """
    check_form(form)
    if not shares or any(share <= 0 for _, share in shares):
        raise Invalid("a mixture needs files with shares above 0, such as general.jsonl=0.3 special.jsonl=0.7")
    whole = sum(share for _, share in shares)
    read = [[(line, content) for line, content, _ in read_any(source)] for source, _ in shares]
    most = int(min(len(found) * whole / share for found, (_, share) in zip(read, shares, strict=True)))
    wanted = rows if rows is not None else most
    if not 1 <= wanted <= most:
        raise Invalid(f"{wanted:,} rows cannot be mixed so without taking some twice; at most {most:,} can")
    draw = random.Random(seed)
    counts = _parts_of(wanted, [share / whole for _, share in shares])
    chosen = [
        (source.uri, line, content)
        for found, count, (source, _) in zip(read, counts, shares, strict=True)
        for line, content in draw.sample(found, count)
    ]
    draw.shuffle(chosen)
    with target.open("wb") as file, target.with_name(target.name + ".sources.jsonl").open("wb") as sources:
        for uri, line, content in chosen:
            file.write(written(form, content, f"{uri}: line {line}"))
            sources.write(msgspec.json.encode({"uri": uri, "line": line}) + b"\n")
    return {source.uri: count for count, (source, _) in zip(counts, shares, strict=True)}


def _parts_of(total: int, shares: list[float]) -> list[int]:
    """Whole numbers that add up to `total`, by the largest remainders."""
    exact = [total * share for share in shares]
    counts = [int(part) for part in exact]
    for index in sorted(range(len(shares)), key=lambda one: counts[one] - exact[one])[: total - sum(counts)]:
        counts[index] += 1
    return counts


@dataclass
class _Group:
    lines: list[int] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Parts:
    """How a file was parted: rows, groups and labels of each part."""

    rows: dict[str, int]
    groups: dict[str, int]
    labels: dict[str, Counter[str]]


def part(
    source: Source, folder: Path, shares: dict[str, float], by: str = "", stratify: str = "", seed: int = 0,
    keys: Source | None = None,
) -> Parts:  # fmt: skip
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl` as far as they have a share (%) of the rows.

    Rows whose `by` (a key, dots between levels) has the same value stay together; so do, in any case, rows with the same prompt. With
    `keys`, a file with a line of JSON for each row, such as a provenance file, `by` is looked up there. `stratify` is a key, or "answer":
    each part gets its values in about the same proportions. Rows keep what they say; keys that a form with messages does not have are left out.
    Raises Invalid when a key is missing, or when a part would be empty.
    """
    wanted = {name: shares.get(name, 0.0) for name in PARTS}
    if abs(sum(wanted.values()) - 100) > 1e-9 or any(share < 0 for share in wanted.values()):
        raise Invalid(f"the parts are {wanted}; they must add up to 100 %")
    outputs = {(folder / f"{name}.jsonl").absolute() for name in PARTS}
    if outputs & {source.path.absolute(), *([keys.path.absolute()] if keys is not None else [])}:
        raise Invalid(f"{folder}: {source.uri} would be written over; name another folder")
    rows = list(read_any(source))
    others = (
        [msgspec.json.decode(line, type=dict[str, Any]) for _, line in read_lines(keys)] if keys is not None else []
    )
    if keys is not None and len(others) != len(rows):
        raise Invalid(f"{keys.uri} has {len(others):,} lines for {len(rows):,} rows")
    groups = _groups(source, rows, others, by, stratify)
    placed = _place(groups, wanted, len(rows), random.Random(seed))
    empty = [name for name, share in wanted.items() if share and not placed[name]]
    if empty:
        raise Invalid(
            f"{empty[0]} would be empty: there are {len(groups):,} groups, the largest of {max(len(one.lines) for one in groups):,} rows"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, share in wanted.items():
        if not share:
            (folder / f"{name}.jsonl").unlink(missing_ok=True)  # of an earlier split: it would not belong to this one
        else:
            lines = sorted(line for group in placed[name] for line in group.lines)
            with (folder / f"{name}.jsonl").open("wb") as file:
                for index in lines:
                    file.write(_line(rows[index][2], by))
    return Parts(
        {name: sum(len(group.lines) for group in found) for name, found in placed.items() if wanted[name]},
        {name: len(found) for name, found in placed.items() if wanted[name]},
        {name: sum((group.labels for group in found), Counter()) for name, found in placed.items() if wanted[name]},
    )


def read_any_json(source: Source) -> list[tuple[int, None, dict[str, Any]]]:
    """The lines of a file of JSON objects, whatever they mean."""
    return [
        (number, None, msgspec.json.decode(line, type=dict[str, Any]))
        for number, line in enumerate(source.path.read_bytes().splitlines(), 1)
    ]


def _groups(
    source: Source,
    rows: list[tuple[int, Content, dict[str, Any]]],
    others: list[dict[str, Any]],
    by: str,
    stratify: str,
) -> list[_Group]:
    """Rows that must stay together: by their key, and by their prompt."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, (line, content, row) in enumerate(rows):
        marks = [("prompt", _prompt(content))]
        if by:
            marks.append(("key", str(_value(others[index] if others else row, by, f"{source.uri}: line {line}"))))
        for mark in marks:
            parent[root(index)] = root(first.setdefault(mark, index))
    groups: dict[int, _Group] = defaultdict(_Group)
    for index, (line, content, row) in enumerate(rows):
        group = groups[root(index)]
        group.lines.append(index)
        if stratify == "answer" and isinstance(content, Conversation):
            group.labels[content.messages[-1].text] += 1
        elif stratify:
            group.labels[str(_value(others[index] if others else row, stratify, f"{source.uri}: line {line}"))] += 1
        else:
            group.labels[""] += 1
    return list(groups.values())


def _place(groups: list[_Group], wanted: dict[str, float], rows: int, draw: random.Random) -> dict[str, list[_Group]]:
    """Each group to the part that lacks most of what the group has; large groups first, equal ones in an order drawn."""
    labels = sum((group.labels for group in groups), Counter[str]())
    lacking = {
        name: {label: count * share / 100 for label, count in labels.items()} for name, share in wanted.items() if share
    }
    placed: dict[str, list[_Group]] = {name: [] for name in wanted}
    draw.shuffle(groups)
    for group in sorted(groups, key=lambda one: -len(one.lines)):

        def lack(name: str, group: _Group = group) -> float:
            return sum(count * lacking[name][label] / labels[label] for label, count in group.labels.items())

        name = max(lacking, key=lambda one: (lack(one), wanted[one]))
        placed[name].append(group)
        for label, count in group.labels.items():
            lacking[name][label] -= count
    return placed


def _prompt(content: Content) -> str:
    if isinstance(content, Conversation):
        return plain("\x1f".join([content.system or "", *(message.text for message in content.messages[:-1])]))
    return plain(content)


def _value(row: Any, key: str, where: str) -> Any:
    for name in key.split("."):
        if not isinstance(row, dict) or name not in row:
            raise Invalid(f"{where} has no {key}; a key that every row has is needed")
        row = row[name]
    return row


def _line(row: dict[str, Any], by: str) -> bytes:
    """A row as it was; a form with messages has no room for further keys."""
    kept = {
        name: value
        for name, value in row.items()
        if "messages" not in row or name in ("schemaVersion", "system", "messages")
    }
    return msgspec.json.encode(kept if by else row) + b"\n"
