"""Imported models: weights that somebody brought."""

from datetime import datetime

import msgspec


class ImportedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A whole model, or an adapter on a base of the catalogue. Its files are an artifact.

    `loss` is what a short English text costs it (nats a token), `uniform_loss` what it would cost a model that knows
    nothing; a model whose loss is near that writes gibberish, or knows no English.
    """

    id: str
    arn: str
    name: str
    kind: str
    """"whole", "adapter", or "embedding" for an encoder."""
    base: str = ""
    """Of an adapter: the base model's id."""
    architecture: str
    num_parameters: int
    context: int
    has_template: bool
    created_at: datetime
    job_arn: str
    job_name: str
    source_uri: str
    loss: float
    uniform_loss: float
    sample: str
    """What it wrote when it was tried."""
    tags: dict[str, str] = {}

    @property
    def is_gibberish(self) -> bool:
        """Whether it does hardly better than guessing: by less than a tenth of what a token can cost."""
        return self.loss > 0.9 * self.uniform_loss
