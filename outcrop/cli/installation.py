"""What commands have alike: the installation that they work on, the terminal, and how they fail."""

import sys
from typing import Any, NoReturn

from rich.console import Console

from outcrop.errors import Invalid
from outcrop.settings import Settings

out = Console()


def fail(message: str) -> NoReturn:
    """Say what went wrong, and end with exit status 1."""
    Console(stderr=True).print(f"[red]outcrop:[/red] {message}", highlight=False, soft_wrap=True)
    sys.exit(1)


def named(said: list[str], option: str) -> dict[str, str]:
    """name=value, one by one. Raises Invalid."""
    found = {}
    for one in said:
        name, mark, value = one.partition("=")
        if not mark or not value:
            raise Invalid(f"{option} {one}: expected name=value, such as batchSize=8")
        found[name] = value
    return found


def open_registry() -> Any:
    """The installation's models."""
    return installation()[1]


def installation() -> tuple[Any, Any, Settings]:
    """Storage, registry, settings."""
    from outcrop.registry import Registry
    from outcrop.storage import Storage

    settings = Settings()
    storage = Storage(settings.folder)
    return storage, Registry(storage), settings


def service() -> Any:
    """The installation as the API sees it."""
    from outcrop.server import make_service
    from outcrop.storage import Storage

    settings = Settings()
    return make_service(settings, Storage(settings.folder))
