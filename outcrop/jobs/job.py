"""A job's record."""

from datetime import datetime
from typing import Any

import msgspec

IN_PROGRESS, STOPPING = "InProgress", "Stopping"
COMPLETED, FAILED, STOPPED = "Completed", "Failed", "Stopped"
ENDED = (COMPLETED, FAILED, STOPPED)


class Phase(msgspec.Struct, frozen=True):
    """A station of a job; status is NotStarted, InProgress, Completed, Stopping, Stopped or Failed."""

    status: str = "NotStarted"
    begun_at: datetime | None = None
    changed_at: datetime | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, how far it is, and what came of it. `request` and `result` belong to the kind of job."""

    id: str
    arn: str
    name: str
    kind: str
    request: dict[str, Any]
    status: str = IN_PROGRESS
    created_at: datetime
    modified_at: datetime
    ended_at: datetime | None = None
    phases: dict[str, Phase] = {}
    failure: str = ""
    result: dict[str, Any] = {}
    tags: dict[str, str] = {}
