"""What every function gets besides its input."""

from dataclasses import dataclass

from outcrop.errors import Conflict, Invalid
from outcrop.jobs import Jobs
from outcrop.names import Names
from outcrop.registry import Registry
from outcrop.serving import Serving
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.storage.records import Taken, TokenReused
from outcrop.wire import Context


@dataclass(frozen=True)
class Service:
    """One running installation."""

    settings: Settings
    storage: Storage
    jobs: Jobs
    registry: Registry
    serving: Serving


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
    def storage(self) -> Storage:
        """Records and objects."""
        return self.service.storage


__all__ = ["Call", "Conflict", "Invalid", "Service", "Taken", "TokenReused"]
