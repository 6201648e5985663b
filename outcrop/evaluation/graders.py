"""A user's own metric: a Python function in a file of theirs, or an address that grades."""

import importlib.util
import json
import math
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from outcrop.errors import Invalid
from outcrop.evaluation.cases import Case, Response
from outcrop.evaluation.metrics import Metric, Score

TIMEOUT_S = 60


def is_grader(name: str) -> bool:
    """Whether a metric's name is that of a user's own."""
    return ".py:" in name or name.startswith(("http://", "https://"))


def grader(name: str) -> Metric:
    """The metric behind FILE.py:FUNCTION or an address.

    A function is called with (answer, row), the row with `prompt` and `reference` besides its own keys, and gives a number, a bool, or
    None where it cannot judge. An address is posted {"answer", "prompt", "reference", "row"} as JSON and answers {"score": number or
    null}. Raises Invalid, here or when it is asked, for what does neither.
    """
    if name.startswith(("http://", "https://")):
        return Metric(name, "graded over HTTP", _over_http(name))
    path, _, function = name.rpartition(":")
    return Metric(f"{Path(path).stem}.{function}", f"graded by {name}", _in_python(name, Path(path), function))


def _row(case: Case) -> dict[str, Any]:
    return {**case.row, "prompt": case.question, "reference": case.reference}


def _in_python(name: str, path: Path, function: str) -> Score:
    if not path.is_file():
        raise Invalid(f"the metric {name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"grader_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001  # an edge: the file is the user's, and may do anything
        raise Invalid(f"the metric {name} cannot be loaded: {type(error).__name__}: {error}") from None
    graded = getattr(module, function, None)
    if not callable(graded):
        raise Invalid(f"the metric {name}: {path} has no function {function!r}")

    def score(given: Response, case: Case) -> float | None:
        try:
            said = graded(given.text, _row(case))
        except Exception as error:  # an edge: so may the function
            raise Invalid(f"the metric {name} fails on line {case.line}: {type(error).__name__}: {error}") from error
        return _number(name, said, case)

    return score


def _over_http(url: str) -> Score:
    def score(given: Response, case: Case) -> float | None:
        body = {"answer": given.text, "prompt": case.question, "reference": case.reference, "row": case.row}
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310  # its beginning is checked
                said = json.loads(reply.read())
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
            raise Invalid(f"the grader {url} does not answer on line {case.line}: {error}") from None
        if not isinstance(said, dict) or "score" not in said:
            raise Invalid(
                f'the grader {url} answers {str(said)[:200]} on line {case.line}; expected {{"score": number}}'
            )
        return _number(url, said["score"], case)

    return score


def _number(name: str, value: Any, case: Case) -> float | None:
    value = value.item() if hasattr(value, "item") else value  # numpy's numbers
    if value is None:
        return None
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise Invalid(
            f"the metric {name} gives {value!r} on line {case.line}; it must give a finite number, true, false or null"
        )
    return float(value)
