"""How an encoder's hidden states become one vector for a text: kept beside the weights of an embedding model."""

from pathlib import Path
from typing import Any

import msgspec

FILE = "outcrop_embedding.json"
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
}


class Pooling(msgspec.Struct, frozen=True):
    """`how` is mean (of all tokens), first or last (token)."""

    how: str
    normalizes: bool
    dimensions: int
    context: int


def read_pooling(folder: Path) -> Pooling | None:
    """That of an embedding model's folder; None for any other model."""
    path = folder / FILE
    return msgspec.json.decode(path.read_bytes(), type=Pooling) if path.is_file() else None


def pooling_of(config: dict[str, Any], stated: dict[str, Any], context: int) -> Pooling:
    """What a folder says in sentence-transformers' pooling file (`stated`, empty when there is none); mean by default."""
    modes = [how for name, how in POOLINGS.items() if stated.get(name)]
    return Pooling(
        modes[0] if modes else "mean", True, int(config.get("hidden_size") or config.get("dim") or 0), context
    )
