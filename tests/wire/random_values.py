"""Random values that fit a service model's shapes, patterns included."""

import random
import re
from datetime import UTC, datetime, timedelta
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import regex
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

ASCII = "abcXYZ019_-.:/"  # what a header may hold
ANY = "abcXYZ019 _-.:/äß漢\"\\'<>&+%"


class Unmakeable(Exception):
    """No string that fits was found."""


def value_for(shape: Shape, rng: random.Random, depth: int = 0, strict: bool = True) -> Any:
    """A value of a shape. Patterns that the sampler cannot meet raise Unmakeable; without `strict` they are passed over."""
    if isinstance(shape, StructureShape):
        if getattr(shape, "is_document_type", False):
            return {"free": [1, "two", None, {"three": 3.5}]}
        return _structure(shape, rng, depth, strict)
    if isinstance(shape, ListShape):
        low, high = _bounds(shape, 0, 2)
        return [value_for(shape.member, rng, depth + 1, strict) for _ in range(rng.randint(low, high))]
    if isinstance(shape, MapShape):
        low, high = _bounds(shape, 0, 2)
        wanted = rng.randint(low, high)
        return {
            value_for(shape.key, rng, depth + 1, strict): value_for(shape.value, rng, depth + 1, strict)
            for _ in range(wanted)
        }
    kind = shape.type_name
    if isinstance(shape, StringShape) or kind == "string":
        return _string(shape, rng, strict)
    if kind in ("integer", "long"):
        low, high = _bounds(shape, -5, 1000)
        return rng.randint(low, high)
    if kind in ("float", "double"):
        low, high = _bounds(shape, 0, 1)
        return rng.uniform(low, high)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "timestamp":
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=rng.randrange(10**10))
    low, high = _bounds(shape, 0, 20)
    return rng.randbytes(rng.randint(low, high))


def _bounds(shape: Shape, low: float, high: float) -> tuple[Any, Any]:
    low = shape.metadata.get("min", low)
    high = min(shape.metadata.get("max", max(high, low)), max(high, low))
    return low, high


def _structure(shape: StructureShape, rng: random.Random, depth: int, strict: bool) -> dict[str, Any]:
    if getattr(shape, "is_tagged_union", False):
        names = list(shape.members)
        rng.shuffle(names)
        for name in names:
            try:
                return {name: value_for(shape.members[name], rng, depth + 1, strict)}
            except (Unmakeable, RecursionError):
                continue
        raise Unmakeable(shape.name)
    made = {}
    for name, member in shape.members.items():
        is_required = name in shape.required_members
        if not is_required and (depth > 5 or rng.random() < 0.4):
            continue
        try:
            made[name] = value_for(member, rng, depth + 1, strict)
        except Unmakeable:
            if is_required:
                raise
    return made


def _string(shape: Shape, rng: random.Random, strict: bool) -> str:
    enum = getattr(shape, "enum", None)
    if enum:
        return str(rng.choice(enum))
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max", 60)
    pattern = shape.metadata.get("pattern") if strict else None
    for _ in range(40):
        if pattern:
            text = _from_pattern(pattern, rng)
        else:
            letters = ASCII if shape.serialization.get("location") == "header" else ANY
            text = "".join(rng.choice(letters) for _ in range(rng.randint(max(low, 1), max(low, 1, min(high, 12)))))
        if pattern and len(text) < low and text and regex.fullmatch(pattern, text * (low // len(text) + 1)):
            text = (text * (low // len(text) + 1))[: high or None]
        if text and low <= len(text) <= high and (not pattern or regex.fullmatch(pattern, text)):
            return text
    raise Unmakeable(shape.name)


def _from_pattern(pattern: str, rng: random.Random) -> str:
    try:
        return "".join(_draw(item, rng) for item in parser.parse(re.sub(r"\\[pP]\{\w+\}", "a", pattern)))
    except (re.error, KeyError) as error:
        raise Unmakeable(pattern) from error


def _draw(item: tuple[Any, Any], rng: random.Random) -> str:
    code, detail = item
    if code in (codes.LITERAL,):
        return chr(detail)
    if code in (codes.ANY, codes.NOT_LITERAL, codes.CATEGORY):
        return _class([(code, detail)], rng)
    if code is codes.IN:
        return _class(detail, rng)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        low, high, inner = detail
        times = rng.randint(low, min(int(high), max(low, 6)))
        return "".join(_draw(one, rng) for _ in range(times) for one in inner)
    if code is codes.SUBPATTERN:
        return "".join(_draw(one, rng) for one in detail[-1])
    if code is codes.BRANCH:
        return "".join(_draw(one, rng) for one in rng.choice(detail[1]))
    if code in (codes.AT, codes.ASSERT, codes.ASSERT_NOT):
        return ""
    raise KeyError(code)


def _class(members: list[tuple[Any, Any]], rng: random.Random) -> str:
    if members and members[0][0] in (codes.NEGATE, codes.ANY, codes.NOT_LITERAL):
        return rng.choice("abcxyz019-")
    code, detail = rng.choice(members)
    if code is codes.RANGE:
        return chr(rng.randint(detail[0], min(detail[1], 0x2FF)))
    if code is codes.LITERAL:
        return chr(detail)
    name = str(detail)
    return rng.choice("  " if "SPACE" in name and "NOT" not in name else "0123456789" if "DIGIT" in name else "abcXYZ")
