"""How alike two texts are: ROUGE, BLEU and chrF by the field's own packages (the `metrics` extra), and by their vectors."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from outcrop.errors import Invalid

# None for a text that the model cannot embed: it is empty, or too long.
Embed = Callable[[list[str]], list[list[float] | None]]


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
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
        return [error.message for error in validator(schema).iter_errors(document)]
    except (
        jsonschema.SchemaError,
        jsonschema.exceptions.UnknownType,
        *_unresolved(),
        re.error,
        TypeError,
        AttributeError,
    ) as error:
        raise Invalid(f"the schema is not a JSON schema that can be kept: {error}") from None


def _unresolved() -> tuple[type[Exception], ...]:
    """What a $ref that leads nowhere raises; nothing is fetched for it."""
    from referencing.exceptions import Unresolvable

    return (Unresolvable,)


def check_ready(metric: str) -> None:
    """Raise Invalid when what a metric needs is not installed, before anything is asked."""
    if metric in ("rouge1", "rouge2", "rougeL"):
        _rouge_scorer()
    elif metric == "bleu":
        bleu("a", "a")
    elif metric == "chrf":
        chrf("a", "a")
    elif metric == "schema":
        schema_faults({}, {})


def cosines(embed: Embed, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
    """The cosine of the two vectors of each pair of texts, each different text embedded once; None where one has no vector."""
    import numpy as np

    texts = sorted({text for pair in pairs for text in pair})
    vectors = dict(zip(texts, (None if vector is None else np.asarray(vector) for vector in embed(texts)), strict=True))
    found: list[float | None] = []
    for one, other in pairs:
        first, second = vectors[one], vectors[other]
        if first is None or second is None:
            found.append(None)
            continue
        norm = float(np.linalg.norm(first) * np.linalg.norm(second))
        found.append(float(first @ second) / norm if norm else 0.0)
    return found
