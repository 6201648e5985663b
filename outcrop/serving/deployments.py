"""What stands between a model and those who ask it."""

from datetime import datetime

import msgspec

from outcrop.registry.probes import Certificate


class Provisioned(msgspec.Struct, frozen=True, kw_only=True):
    """Provisioned throughput: so many requests of a model at once, reserved."""

    id: str
    arn: str
    name: str
    model_arn: str
    desired_model_arn: str
    base_arn: str
    units: int
    commitment: str = ""
    commitment_ends_at: datetime | None = None
    status: str = "Creating"
    failure: str = ""
    certificate: Certificate | None = None
    created_at: datetime
    modified_at: datetime
    tags: dict[str, str] = {}


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A custom model on demand."""

    id: str
    arn: str
    name: str
    model_arn: str
    description: str = ""
    status: str = "Creating"
    failure: str = ""
    update_status: str = ""
    update_model_arn: str = ""
    certificate: Certificate | None = None
    created_at: datetime
    modified_at: datetime
    tags: dict[str, str] = {}
