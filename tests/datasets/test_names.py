"""Names of people by presidio, where it is installed; here a stand-in with its interface takes its place."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from outcrop import datasets
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.names import names
from outcrop.datasets.source import local_file
from outcrop.errors import Invalid


@dataclass
class Result:
    entity_type: str
    start: int
    end: int


class Engine:
    def __init__(self, **_: object) -> None: ...

    def analyze(self, text: str, **_: object) -> list[Result]:
        place = text.find("Maria Lopez")
        return [Result("PERSON", place, place + 11)] if place >= 0 else []


class Provider:
    def __init__(self, **_: object) -> None: ...

    def create_engine(self) -> None: ...


@pytest.fixture
def report(tmp_path: Path) -> datasets.Report:
    rows = [
        {"prompt": "Who is there?", "completion": "Nobody."},
        {"prompt": "Who wrote?", "completion": "It was Maria Lopez."},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return datasets.preflight(datasets.Files(local_file(tmp_path / "rows.jsonl")), SUPERVISED).reports[0]


def test_a_name_is_found_and_hidden(report: datasets.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, nlp = ModuleType("presidio_analyzer"), ModuleType("presidio_analyzer.nlp_engine")
    whole.AnalyzerEngine, nlp.NlpEngineProvider = Engine, Provider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", whole)
    monkeypatch.setitem(sys.modules, "presidio_analyzer.nlp_engine", nlp)
    (found,) = names(report, model="json")
    assert (found.line, found.field, found.kind) == (2, "completion", "name")
    assert "Lopez" not in found.message
    with pytest.raises(Invalid, match="spacy download no_such_model"):
        list(names(report, model="no_such_model"))


def test_without_presidio_that_is_said(report: datasets.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(Invalid, match=r"pip install 'outcrop\[pii\]'"):
        list(names(report))
