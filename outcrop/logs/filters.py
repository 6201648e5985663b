"""requestMetadataFilters: which logged calls are meant."""

from collections.abc import Callable, Mapping
from typing import Any

from outcrop.errors import Invalid

Filter = Callable[[Mapping[str, str]], bool]
MOST_IN_A_LIST = 16


def read_filter(given: Mapping[str, Any] | None, where: str = "requestMetadataFilters") -> Filter:
    """Bedrock's union of equals, notEquals, andAll and orAll as a function of a call's metadata; without one, every call.

    A call without the key is not equal to anything. Raises Invalid that names the place.
    """
    if not given:
        return lambda metadata: True
    if len(given) != 1:
        raise Invalid(f"{where} has {', '.join(given)}; it must have exactly one of equals, notEquals, andAll, orAll")
    ((operator, value),) = given.items()
    if operator in ("equals", "notEquals"):
        return _compares(operator, value, f"{where}.{operator}")
    if operator not in ("andAll", "orAll"):
        raise Invalid(f"{where}.{operator} is not known; known are equals, notEquals, andAll, orAll")
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_IN_A_LIST:
        raise Invalid(f"{where}.{operator} must be a list of 1 to {MOST_IN_A_LIST} filters")
    parts = []
    for number, one in enumerate(value):
        place = f"{where}.{operator}.{number}"
        if not isinstance(one, dict) or len(one) != 1 or next(iter(one)) not in ("equals", "notEquals"):
            raise Invalid(f"{place} must have exactly one of equals, notEquals")
        ((inner, pair),) = one.items()
        parts.append(_compares(inner, pair, f"{place}.{inner}"))
    join = all if operator == "andAll" else any
    return lambda metadata: join(part(metadata) for part in parts)


def _compares(operator: str, pair: Any, where: str) -> Filter:
    if not isinstance(pair, dict) or len(pair) != 1 or not all(isinstance(one, str) for one in pair.values()):
        raise Invalid(f"{where} must be one key with one string; combine several in andAll")
    ((key, wanted),) = pair.items()
    return lambda metadata: (metadata.get(key) == wanted) is (operator == "equals")
