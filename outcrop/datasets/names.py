"""Names, places and papers of people, which no rule can tell from other words: by presidio, the `pii` extra.

Microsoft's presidio-analyzer with one of spaCy's models, which must be installed: nothing is downloaded here.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any

from outcrop.datasets.formats import Problem
from outcrop.datasets.report import Report, contents
from outcrop.datasets.scan import texts_of
from outcrop.errors import Invalid

MODEL = "en_core_web_sm"
ENTITIES = ("PERSON", "LOCATION", "NRP", "IP_ADDRESS", "MEDICAL_LICENSE", "US_PASSPORT", "US_DRIVER_LICENSE", "UK_NHS")
SURE = 0.6
# It takes some milliseconds a row.
MOST_ROWS = 20_000


def names(report: Report, file: int = 0, model: str = MODEL) -> Iterator[Problem]:
    """What presidio finds in the first MOST_ROWS rows of a checked file. Raises Invalid when it, or its model, is not installed."""
    analyzer = _analyzer(model)
    for line, content in islice(contents(report), MOST_ROWS):
        for place, text in texts_of(content, report.format):
            for found in analyzer.analyze(text=text, language="en", entities=list(ENTITIES), score_threshold=SURE):
                shown = text[found.start : found.start + 2]
                said = f"holds what looks like a {found.entity_type.lower().replace('_', ' ')}: {shown}***"
                yield Problem(line, place, said, kind="name", file=file)


def _analyzer(model: str) -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        raise Invalid("looking for names needs presidio; pip install 'outcrop[pii]'") from None
    if find_spec(model) is None:
        raise Invalid(f"looking for names needs spaCy's model {model}; python -m spacy download {model}")
    models = [{"lang_code": "en", "model_name": model}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
