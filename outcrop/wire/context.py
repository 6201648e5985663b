"""What a function may know of the request besides its input."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Context:
    """Who asks, and from where.

    `region` is the one that the client signed for; ARNs in answers carry it. `access_key` is None for bearer keys
    and, in open mode, for unsigned requests. `origin` is the scheme and host that the client used. `gone` is set when
    the client has left while a model was answering it.
    """

    service: str
    operation: str
    request_id: str
    region: str
    access_key: str | None
    headers: Mapping[str, str]
    origin: str
    gone: threading.Event = field(default_factory=threading.Event)
