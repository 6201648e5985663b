"""How alike two texts are: ROUGE, BLEU and chrF by the field's own packages (the `metrics` extra), and by their vectors."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from outcrop.errors import Invalid

Embed = Callable[[list[str]], list[list[float]]]


def _missing(package: str) -> Invalid:
    return Invalid(f"this metric needs {package}; pip install 'outcrop[metrics]'")


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise _missing("rouge-score") from None
    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def rouge(kind: str, answer: str, wanted: str) -> float:
    """F of `rouge1`, `rouge2` or `rougeL`, words stemmed, as rouge-score counts it (Lin, 2004)."""
    return float(_rouge_scorer().score(wanted, answer)[kind].fmeasure)


def bleu(answer: str, wanted: str) -> float:
    """BLEU of one answer by sacrebleu, 0 to 1: of as many n-grams as the shorter text has. Means of it are no corpus BLEU."""
    try:
        from sacrebleu import sentence_bleu
    except ImportError:
        raise _missing("sacrebleu") from None
    return float(sentence_bleu(answer, [wanted]).score) / 100


def chrf(answer: str, wanted: str) -> float:
    """chrF of one answer by sacrebleu, 0 to 1 (Popovic, 2015)."""
    try:
        from sacrebleu import sentence_chrf
    except ImportError:
        raise _missing("sacrebleu") from None
    return float(sentence_chrf(answer, [wanted]).score) / 100


def schema_faults(document: Any, schema: dict[str, Any]) -> list[str]:
    """What a document does not keep of a JSON schema. Raises Invalid for a schema that is none."""
    try:
        import jsonschema
    except ImportError:
        raise _missing("jsonschema") from None
    try:
        return [error.message for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(document)]
    except (jsonschema.SchemaError, jsonschema.exceptions.UnknownType) as error:
        raise Invalid(f"the schema is not a JSON schema: {error}") from None


def cosines(embed: Embed, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The cosine of the two vectors of each pair of texts, each different text embedded once."""
    import numpy as np

    texts = sorted({text for pair in pairs for text in pair})
    vectors = dict(zip(texts, (np.asarray(vector) for vector in embed(texts)), strict=True))
    found = []
    for one, other in pairs:
        norm = float(np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[other]))
        found.append(float(vectors[one] @ vectors[other]) / norm if norm else 0.0)
    return found
