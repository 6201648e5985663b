"""What every function gets besides its input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from outcrop.errors import Conflict, OutcropError
from outcrop.jobs import Jobs
from outcrop.logs import Logs
from outcrop.names import Names
from outcrop.registry import Registry
from outcrop.serving import Serving
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.storage.records import TokenReused
from outcrop.wire import Context


@dataclass(frozen=True)
class Service:
    """One running installation."""

    settings: Settings
    storage: Storage
    jobs: Jobs
    registry: Registry
    serving: Serving
    logs: Logs


@dataclass(frozen=True)
class Call:
    """One request's surroundings."""

    service: Service
    context: Context

    @property
    def names(self) -> Names:
        """Makes ARNs in the region that the client signed for."""
        return Names(self.service.settings.account, self.context.region)

    @property
    def identity(self) -> str:
        """The caller's ARN: the installation's only account."""
        return f"arn:aws:iam::{self.names.account}:root"

    @property
    def storage(self) -> Storage:
        """Records and objects."""
        return self.service.storage

    def once(
        self, kind: str, request: dict[str, Any], create: Callable[[], str], refusal: type[OutcropError] = Conflict
    ) -> str:
        """What `create` answers, or answered when this clientRequestToken came before.

        Raises `refusal` (Conflict where the operation declares it) for a token that came with other parameters.
        """
        plain = {name: value for name, value in request.items() if name != "clientRequestToken"}
        try:
            return self.storage.records.once(kind, request.get("clientRequestToken"), plain, create)
        except TokenReused:
            raise refusal("clientRequestToken was used before with other parameters") from None
