"""A request before anyone has looked into it, and a response before it is sent."""

from collections.abc import Iterable
from dataclasses import dataclass

from outcrop.wire import sigv4


@dataclass(frozen=True)
class Incoming:
    """A request before anyone has looked into it."""

    method: str
    raw_path: str
    raw_query: str
    headers: dict[str, str]
    origin: str
    request_id: str

    @property
    def signed(self) -> sigv4.Request:
        """What a signature covers."""
        return sigv4.Request(self.method, self.raw_path, self.raw_query, self.headers)


@dataclass(frozen=True)
class Outgoing:
    """A response; the body comes in pieces, each from a thread."""

    status: int
    headers: dict[str, str]
    body: Iterable[bytes]
