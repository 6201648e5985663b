"""Files that were made here: what from, and how."""

from datetime import datetime
from typing import Any

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """What a file was made from: another file, a prefix of logs or documents, by its hash where it has one."""

    uri: str
    sha256: str = ""
    what: str = "file"


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A file by the SHA-256 of its bytes. `provenance` is a file with a line of JSON for each of its rows, in their order."""

    id: str
    uri: str
    rows: int
    made_by: str
    made_at: datetime
    origins: list[Origin]
    details: dict[str, Any] = {}
    provenance: str = ""

    @property
    def name(self) -> str:
        """Unique, as records want it."""
        return self.id
