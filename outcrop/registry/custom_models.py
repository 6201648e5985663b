"""Custom models: what a job, or a folder in S3, has left."""

from datetime import datetime
from typing import Any

import msgspec


class CustomModel(msgspec.Struct, frozen=True, kw_only=True):
    """A tuned model. Its weights are an artifact: adapters in PEFT's layout, or a whole model.

    `base` is the id of the base model whose weights and renderer it needs; `parent` the custom model that it was tuned
    from, if any. `lineage` says what made it: data hashes, settings, losses, the renderer's hash, the software.
    """

    id: str
    arn: str
    name: str
    base: str
    kind: str
    """"adapter" or "full"."""
    customization: str
    created_at: datetime
    job_arn: str = ""
    job_name: str = ""
    parent: str = ""
    training_uri: str = ""
    training_config: dict[str, Any] = {}
    customization_config: dict[str, Any] = {}
    validation_uris: list[str] = []
    output_uri: str = ""
    hyperparameters: dict[str, str] = {}
    training_loss: float | None = None
    validation_losses: list[float] = []
    lineage: dict[str, Any] = {}
    tags: dict[str, str] = {}
    status: str = "Active"
    failure: str = ""
