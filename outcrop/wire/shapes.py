"""One compiled reader per shape: it converts a JSON value and checks every constraint in one pass.

A reader takes (value, path, problems) and answers with the value in Python's types: timestamps as datetime, blobs as
bytes. What is wrong is appended to `problems` in AWS's wording, so that all of it is told at once. JSON null counts as
absent and unknown members are ignored, as AWS does.
"""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import regex
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

Problems = list[str]
Reader = Callable[[Any, str, Problems], Any]

# Where AWS is known to take more than its model says (AWS's own samples use these), keyed by shape name.
ALSO_ACCEPTED = {"EvaluationTaskType": {"General"}}
# The pattern of bedrock-agent's tag operations that no real ARN can match.
UNCHECKED_PATTERNS = {("bedrock-agent", "TaggableResourcesArn")}
# The runtime's patterns forbid a ":" inside a custom model's ARN, which every base model's version has; AWS never invokes
# such ARNs, Outcrop does.
CUSTOM_MODEL_ARN = regex.compile(
    r"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:custom-model/[a-z0-9.:-]{1,130}/[a-z0-9]{12}"
)
# AWS teaches, evaluates and judges with its own models, or some; here any model that answers may.
ANY_MODEL = regex.compile(
    r"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:(custom-model|custom-model-deployment|imported-model|provisioned-model)/[a-z0-9.:/-]{1,150}"
    r"|([0-9a-zA-Z][_-]?){1,63}"
)
ALSO_MATCHING = {
    "EvaluationBedrockModelIdentifier": ANY_MODEL, "EvaluatorModelIdentifier": ANY_MODEL,
    "ConversationalModelId": CUSTOM_MODEL_ARN, "InvokeModelIdentifier": CUSTOM_MODEL_ARN, "TeacherModelIdentifier": ANY_MODEL,
}  # fmt: skip
# Patterns are AWS's, the text is anyone's: a match that takes longer than this (seconds) counts as none.
PATTERN_TIMEOUT_S = 0.1
# Values in messages are cut here, so that a message stays a message.
SHOWN = 200


class Readers:
    """Readers for one service's shapes, made once each; recursive shapes refer to themselves by name."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._made: dict[str, Reader] = {}

    def of(self, shape: Shape) -> Reader:
        """The reader of a shape."""
        if shape.name in self._made:
            return self._made[shape.name]
        self._made[shape.name] = lambda value, path, problems: self._made[shape.name](value, path, problems)
        self._made[shape.name] = self._compile(shape)
        return self._made[shape.name]

    def _compile(self, shape: Shape) -> Reader:
        if isinstance(shape, StructureShape):
            return _open_document if getattr(shape, "is_document_type", False) else self._structure(shape)
        if isinstance(shape, ListShape):
            return self._list(shape)
        if isinstance(shape, MapShape):
            return self._map(shape)
        kind = shape.type_name
        if isinstance(shape, StringShape) or kind == "string":
            return self._string(shape)
        if kind in ("integer", "long"):
            return _number(shape, int)
        if kind in ("float", "double"):
            return _number(shape, float)
        return {"boolean": _boolean, "timestamp": _timestamp, "blob": _blob(shape)}[kind]

    def _structure(self, shape: StructureShape) -> Reader:
        members = [
            (name, member.serialization.get("name", name), self.of(member)) for name, member in shape.members.items()
        ]
        required = frozenset(shape.required_members)
        is_union = bool(getattr(shape, "is_tagged_union", False))

        def read(value: Any, path: str, problems: Problems) -> Any:
            if not isinstance(value, dict):
                problems.append(_wrong_type(value, path, "an object"))
                return None
            prefix = f"{path}." if path else ""
            result = {}
            for name, wire_name, reader in members:
                given = value.get(wire_name)
                if given is not None:
                    result[name] = reader(given, prefix + name, problems)
                elif name in required:
                    problems.append(f"Value at '{prefix}{name}' failed to satisfy constraint: Member must not be null")
            if is_union and len(result) != 1:
                known = ", ".join(name for name, *_ in members)
                problems.append(
                    f"Value at '{path}' failed to satisfy constraint: Member must have exactly one of: [{known}]; "
                    f"{len(result)} given"
                )
            return result

        return read

    def _list(self, shape: ListShape) -> Reader:
        reader, check = self.of(shape.member), _length(shape)

        def read(value: Any, path: str, problems: Problems) -> Any:
            if not isinstance(value, list):
                problems.append(_wrong_type(value, path, "a list"))
                return None
            check(value, path, problems)
            return [reader(item, f"{path}.{number}.member", problems) for number, item in enumerate(value, 1)]

        return read

    def _map(self, shape: MapShape) -> Reader:
        key_reader, value_reader, check = self.of(shape.key), self.of(shape.value), _length(shape)

        def read(value: Any, path: str, problems: Problems) -> Any:
            if not isinstance(value, dict):
                problems.append(_wrong_type(value, path, "an object"))
                return None
            check(value, path, problems)
            return {
                key_reader(key, f"{path}.key", problems): value_reader(item, f"{path}.{key}.member", problems)
                for key, item in value.items()
                if item is not None
            }

        return read

    def _string(self, shape: Shape) -> Reader:
        allowed = getattr(shape, "enum", None)
        accepted = {*allowed, *ALSO_ACCEPTED.get(shape.name, ())} if allowed else None
        check = _length(shape)
        most = shape.metadata.get("max")
        source = shape.metadata.get("pattern")
        unchecked = (self._service, shape.name) in UNCHECKED_PATTERNS
        pattern = regex.compile(source) if source and not unchecked else None
        also = ALSO_MATCHING.get(shape.name)

        def read(value: Any, path: str, problems: Problems) -> Any:
            if type(value) is not str:
                problems.append(_wrong_type(value, path, "a string"))
                return None
            check(value, path, problems)
            if accepted is not None and value not in accepted:
                problems.append(
                    _broken(value, path, f"Member must satisfy enum value set: [{', '.join(sorted(accepted))}]")
                )
            if (
                pattern is not None
                and (most is None or len(value) <= most)
                and not (_matches(pattern, value) or (also is not None and _matches(also, value)))
            ):
                problems.append(_broken(value, path, f"Member must satisfy regular expression pattern: {source}"))
            return value

        return read


@lru_cache(maxsize=4096)
def _matches(pattern: "regex.Pattern[str]", value: str) -> bool:
    """Whether the whole value fits; kept, because the same names and ARNs come again and again."""
    try:
        return pattern.fullmatch(value, timeout=PATTERN_TIMEOUT_S) is not None
    except TimeoutError:
        return False


def _length(shape: Shape) -> Callable[[Any, str, Problems], None]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")

    def check(value: Any, path: str, problems: Problems) -> None:
        if low is not None and len(value) < low:
            problems.append(_broken(value, path, f"Member must have length greater than or equal to {low}"))
        if high is not None and len(value) > high:
            problems.append(_broken(value, path, f"Member must have length less than or equal to {high}"))

    return check


def _number(shape: Shape, kind: type[int] | type[float]) -> Reader:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")

    def read(value: Any, path: str, problems: Problems) -> Any:
        if isinstance(value, str):  # from a path, query or header
            try:
                value = kind(value)
            except ValueError:
                problems.append(_wrong_type(value, path, "a number"))
                return None
        fits = isinstance(value, int) or (isinstance(value, float) and (kind is float or value.is_integer()))
        if not fits or isinstance(value, bool):
            problems.append(_wrong_type(value, path, "a whole number" if kind is int else "a number"))
            return None
        if low is not None and value < low:
            problems.append(_broken(value, path, f"Member must have value greater than or equal to {low}"))
        if high is not None and value > high:
            problems.append(_broken(value, path, f"Member must have value less than or equal to {high}"))
        return kind(value)

    return read


def _open_document(value: Any, path: str, problems: Problems) -> Any:
    return value


def _boolean(value: Any, path: str, problems: Problems) -> Any:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        problems.append(_wrong_type(value, path, "true or false"))
        return None
    return value


def _timestamp(value: Any, path: str, problems: Problems) -> Any:
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return datetime.fromtimestamp(float(value), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        problems.append(_wrong_type(value, path, "a time such as 2026-01-31T12:00:00Z"))
        return None


def _blob(shape: Shape) -> Reader:
    check = _length(shape)

    def read(value: Any, path: str, problems: Problems) -> Any:
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            problems.append(_wrong_type(value, path, "base64"))
            return None
        check(data, path, problems)
        return data

    return read


def _broken(value: Any, path: str, constraint: str) -> str:
    return f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: {constraint}"


def _wrong_type(value: Any, path: str, expected: str) -> str:
    return f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: Member must be {expected}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def refusal(problems: Problems) -> str:
    """All problems in AWS's sentence."""
    plural = "" if len(problems) == 1 else "s"
    return f"{len(problems)} validation error{plural} detected: {'; '.join(problems[:20])}"
