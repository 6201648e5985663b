"""A copy of a training file without what a check found, and a log of every change. An answer is never changed.

A row is mended where what must be written is certain: an unknown key goes, a slip in schemaVersion is written right, commas
before a closing bracket go, an empty system prompt goes, a reserved string in a prompt loses its colon. Any other row that would
fail the job is left out, and so are rows that come twice and those whose prompt is held out.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outcrop.datasets.families import FAMILIES, Family
from outcrop.datasets.formats import DOCUMENTS, RESERVED, SCHEMA, Format, Problem, read_row
from outcrop.datasets.kinds import FAILS, KINDS
from outcrop.datasets.preflight import Preflight
from outcrop.datasets.source import MOST_LINE_BYTES, read_lines
from outcrop.errors import Invalid

# Strings are matched first, so that a comma within one stays.
COMMA = re.compile(rb'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')
MOST_ROUNDS = 8


@dataclass
class Changes:
    """How many rows were kept as they are, mended, and left out; `log` says each change."""

    kept: int = 0
    mended: int = 0
    left_out: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


def repair(found: Preflight, target: Path, log: Path) -> Changes:
    """Write the repaired training file, and the log as JSON lines. Needs a check that kept all it found.

    Raises Invalid when nothing would be left, or for a plain text, which has no rows to mend.
    """
    report = found.reports[0]
    if report.format is None:
        raise Invalid(f"{report.source.uri}: no row is in any of the forms, so no row is left after a repair")
    if report.format is DOCUMENTS:
        raise Invalid(f"{report.source.uri}: only files of JSON lines can be repaired")
    told: dict[int, list[Problem]] = {}
    for problem in found.problems:
        kind = KINDS[problem.kind]
        if problem.file == 0 and problem.line and (kind.severity == FAILS or problem.kind == "duplicate"):
            told.setdefault(problem.line, []).append(problem)
        elif problem.kind == "leakage" and problem.other is not None and problem.other[0] == 0:
            told.setdefault(problem.other[1], []).append(problem)
    changes = Changes()
    rules = FAMILIES.get(found.family)
    wanted = {
        problem.other[1]
        for problems in told.values()
        for problem in problems
        if problem.kind == "duplicate" and problem.other
    }
    firsts: dict[int, bytes] = {}
    unfinished = target.with_name(target.name + ".unfinished")
    with unfinished.open("wb") as file:
        for number, line in read_lines(report.source):
            problems = [one for one in told.get(number, []) if one.kind != "duplicate" or _is_same(line, one, firsts)]
            if number in wanted:
                firsts[number] = _digest(line)
            for piece in _repaired(number, line, problems, report.format, rules, changes):
                file.write(piece)
    if not changes.kept + changes.mended:
        unfinished.unlink()
        raise Invalid(f"{report.source.uri}: no row is left after the repair")
    unfinished.rename(target)
    log.write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in changes.log))
    return changes


def _repaired(
    number: int, line: bytes, problems: list[Problem], form: Format, rules: Family | None, changes: Changes
) -> Iterator[bytes]:
    ended = line if line.endswith(b"\n") else line + b"\n"
    if not problems:
        changes.kept += 1
        yield ended
        return
    why = "; ".join(problem.message for problem in problems)
    kinds = {problem.kind for problem in problems}
    entry = {"line": number, "kinds": sorted(kinds), "why": why}
    only_rows = {"json", "unknown-key", "schema-version", "system", "reserved"}
    mended = _mended(line, form, rules) if kinds <= only_rows else None
    if mended is None:
        changes.left_out += 1
        changes.log.append({**entry, "change": "left out"})
        return
    changes.mended += 1
    changes.log.append({**entry, "change": "mended", "row": mended.decode()})
    yield mended + b"\n"


def _mended(line: bytes, form: Format, rules: Family | None) -> bytes | None:
    """The row, right, or None when that cannot be done for certain without changing an answer."""
    if len(line) > MOST_LINE_BYTES:
        return None
    row: Any = None
    for text in (line, COMMA.sub(lambda match: match.group(1) or b"", line)):
        try:
            row = msgspec.json.decode(text)
            break
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    if not isinstance(row, dict):
        return None
    answers = _answers(row)
    for _ in range(MOST_ROUNDS):  # unknown keys are told one at a time
        mended = msgspec.json.encode(row)
        content, problems = read_row(1, mended, form)
        failing = [problem for problem in problems if KINDS[problem.kind].severity == FAILS]
        if not failing:
            is_taken = content is not None and (rules is None or not any(rules.problems_of(content)))
            return mended if is_taken and _answers(row) == answers else None
        for problem in failing:
            if not _mend(row, problem):
                return None
    return None


def _mend(row: dict[str, Any], problem: Problem) -> bool:
    *path, last = problem.field.split(".") if problem.field else [""]
    match problem.kind:
        case "unknown-key":
            key = problem.message.partition(" ")[0]
            holders = _walk(row, [*path, last] if problem.field else [])
            found = [holder for holder in holders if isinstance(holder, dict) and key in holder]
            for holder in found:
                del holder[key]
            return bool(found)
        case "schema-version":
            row["schemaVersion"] = SCHEMA
            return True
        case "system" if row.get("system") in ("", []) or (
            isinstance(row.get("system"), str) and not row["system"].strip()
        ):
            del row["system"]
            return True
        case "reserved":
            return _without_reserved(row, problem)
    return False


def _walk(value: Any, path: list[str]) -> Iterator[Any]:
    """What stands at a path; msgspec writes "..." for any place in a list."""
    if not path or path == [""]:
        yield value
    elif isinstance(value, list):
        wanted = value if path[0] == "..." else value[int(path[0]) : int(path[0]) + 1] if path[0].isdigit() else []
        for one in wanted:
            yield from _walk(one, path[1:])
    elif isinstance(value, dict) and path[0] in value:
        yield from _walk(value[path[0]], path[1:])


def _without_reserved(row: dict[str, Any], problem: Problem) -> bool:
    def clean(text: str) -> str:
        for reserved in RESERVED:
            text = text.replace(reserved, reserved.rstrip(":"))
        return text

    if problem.field == "system" and isinstance(row.get("system"), str):
        row["system"] = clean(row["system"])
        return True
    place = re.fullmatch(r"messages\.(\d+)\.content", problem.field)
    turn = row["messages"][int(place.group(1))] if place else None
    if turn is None or turn["role"] != "user" or not isinstance(turn["content"], str):
        return False
    turn["content"] = clean(turn["content"])
    return True


def _answers(row: dict[str, Any]) -> list[Any]:
    turns = row.get("messages")
    said = (
        [turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "assistant"]
        if isinstance(turns, list)
        else []
    )
    return [row.get("completion"), row.get("input"), *said]


def _is_same(line: bytes, problem: Problem, firsts: dict[int, bytes]) -> bool:
    """Whether a duplicate is one to the letter: what differs in case or indentation may be meant, in code for one."""
    return problem.other is not None and firsts.get(problem.other[1]) == _digest(line)


def _digest(line: bytes) -> bytes:
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # else it is left out for that
        line = msgspec.json.encode(msgspec.json.decode(line), order="sorted")
    return hashlib.sha256(line).digest()
