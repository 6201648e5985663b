"""What the documentation says is what the code does."""

import re
from pathlib import Path

import pytest

from outcrop import reference
from outcrop.api.table import MODULES, implemented
from outcrop.errors import OutcropError
from outcrop.wire.models import operation_model

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", sorted(reference.PAGES))
def test_the_generated_parts_are_up_to_date(page: str) -> None:
    before, after = reference.rendered(page)
    assert before == after, f"{page} is out of date; run `make docs`"


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_way_names_functions_that_exist_and_fewer_than_twelve() -> None:
    text = (ROOT / "docs/way.md").read_text(encoding="utf-8")
    named = re.findall(r"^\d+\. `([\w/.]+):([\w.]+)`", text, re.MULTILINE)
    assert 5 < len(named) < 12
    for path, name in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"def {name.rpartition('.')[2]}\(", source), f"{path} has no {name}"


@pytest.mark.parametrize("key", sorted(implemented()), ids="-".join)
def test_an_operations_function_raises_only_what_its_model_declares(key: tuple[str, str]) -> None:
    service, operation = key
    documented = re.findall(r"Raises? ((?:\w+(?:, | and )?)+)", implemented()[key].__doc__ or "")
    declared = {shape.name for shape in operation_model(service, operation).error_shapes}
    codes = {error.__name__: error.code for error in OutcropError.__subclasses__()}
    for name in re.findall(r"[A-Z]\w+", " ".join(documented)):
        assert codes[name] in declared or codes[name] == "ValidationException", f"{operation} does not declare {name}"


def test_every_function_that_looks_like_an_operation_is_one() -> None:
    served = {function.__name__ for function in implemented().values()}
    for modules in MODULES.values():
        for module in modules:
            for name in vars(module):
                if re.match(r"(create|get|list|delete|update|stop|put|tag|untag)_", name) and "job_events" not in name:
                    assert name in served, f"{module.__name__}.{name} is no operation"
