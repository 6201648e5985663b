"""Texts -> vectors, in the bodies of Titan and Cohere and for the second door."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from outcrop.errors import Invalid, OutcropError
from outcrop.invocation.answer import Invocation

Json = dict[str, Any]
MOST_TEXTS = 2048


@dataclass(frozen=True)
class Embedded:
    """Vectors in the order of the texts, and the texts' tokens."""

    vectors: list[list[float]]
    tokens: int


@lru_cache(maxsize=8)
def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def embed(invocation: Invocation, model_id: str, texts: list[str]) -> Embedded:
    """Embed some texts. Raises NotFound, Invalid for texts that are empty or too long, and what the engine raises."""
    target = invocation.serving.target(model_id)
    if target.pooling is None:
        raise Invalid(f"{model_id} is a language model; it makes no embeddings")
    if not texts or len(texts) > MOST_TEXTS:
        raise Invalid(f"there are {len(texts)} texts; from 1 to {MOST_TEXTS} are taken")
    ids = [encoded.ids for encoded in _tokenizer(target.folder).encode_batch(texts)]
    for number, (text, tokens) in enumerate(zip(texts, ids, strict=True)):
        if not text.strip():
            raise Invalid(f"text {number} is empty")
        if len(tokens) > target.pooling.context:
            raise Invalid(f"text {number} has {len(tokens)} tokens; the model reads {target.pooling.context}")
    return Embedded(invocation.serving.embed(target, ids), sum(map(len, ids)))


def makes_vectors(invocation: Invocation, model_id: str) -> bool:
    """Whether a model is one that embeds; a model that is not there is none."""
    try:
        return invocation.serving.target(model_id).pooling is not None
    except OutcropError:
        return False


def is_embedding(body: Json) -> bool:
    """Whether a native body asks for vectors."""
    return "inputText" in body or "texts" in body


def invoke(invocation: Invocation, model_id: str, body: Json) -> tuple[Json, int]:
    """The answer to Titan's or Cohere's body, and its tokens. Raises Invalid."""
    given = dict(body)
    if "texts" in given:
        texts = given.pop("texts")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Invalid("Malformed input request: texts must be a list of strings")
        kinds = given.pop("embedding_types", None) or ["float"]
        if kinds != ["float"]:
            raise Invalid(f"Malformed input request: embedding_types is {kinds}; float is made")
        given.pop("input_type", None)  # it says what a vector is for; these models have one kind
        if given.pop("truncate", "NONE") != "NONE":
            raise Invalid("Malformed input request: truncate must be NONE: texts are not cut")
        _refuse(given)
        made = embed(invocation, model_id, texts)
        return {"embeddings": made.vectors, "response_type": "embeddings_floats", "texts": texts}, made.tokens
    text = given.pop("inputText")
    if not isinstance(text, str):
        raise Invalid("Malformed input request: inputText must be a string")
    wanted, normalizes, kinds = (
        given.pop("dimensions", None),
        given.pop("normalize", True),
        given.pop("embeddingTypes", ["float"]),
    )
    _refuse(given)
    if normalizes is not True or kinds != ["float"]:
        raise Invalid("Malformed input request: vectors are normalized floats; leave normalize and embeddingTypes out")
    made = embed(invocation, model_id, [text])
    if wanted not in (None, len(made.vectors[0])):
        raise Invalid(f"Malformed input request: dimensions is {wanted}; the model makes {len(made.vectors[0])}")
    return {"embedding": made.vectors[0], "inputTextTokenCount": made.tokens}, made.tokens


def _refuse(left: Json) -> None:
    if left:
        raise Invalid(f"Malformed input request: {next(iter(left))} is not supported here")
