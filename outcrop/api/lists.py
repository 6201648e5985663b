"""Filters, order and pages of List operations."""

import base64
import binascii
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from outcrop.errors import Invalid


class Listed(Protocol):
    """What every listed record has."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


T = TypeVar("T", bound=Listed)
# AWS's default where a request names no page size.
DEFAULT_PAGE = 100


def page(
    records: Iterable[T],
    request: dict[str, Any],
    status: Callable[[T], str] | None = None,
    created: str = "creationTime",
) -> tuple[list[T], str | None]:
    """The records that the request's filters leave, in its order, one page of them; and the token of the next.

    Reads `nameContains`, `statusEquals`, `{created}After/Before`, `sortOrder`, `maxResults` and `nextToken`.
    Newest first unless sortOrder says otherwise. Raises Invalid for a token that no answer gave.
    """
    found = list(records)
    wanted_name, wanted_status = request.get("nameContains"), request.get("statusEquals")
    after, before = request.get(f"{created}After"), request.get(f"{created}Before")
    if wanted_name is not None:
        found = [one for one in found if wanted_name in one.name]
    if wanted_status is not None and status is not None:
        found = [one for one in found if status(one) == wanted_status]
    if after is not None:
        found = [one for one in found if one.created_at > after]
    if before is not None:
        found = [one for one in found if one.created_at < before]
    newest_first = request.get("sortOrder", "Descending") == "Descending"
    found.sort(key=lambda one: (one.created_at, one.id), reverse=newest_first)

    token = request.get("nextToken")
    if token is not None:
        last = _read_token(token)
        found = [one for one in found if (_place(one) < last if newest_first else _place(one) > last)]
    most = request.get("maxResults", DEFAULT_PAGE)
    following = _make_token(found[most - 1]) if len(found) > most else None
    return found[:most], following


def _place(record: Listed) -> tuple[str, str]:
    return record.created_at.isoformat(timespec="milliseconds"), record.id


def _make_token(record: Listed) -> str:
    return base64.urlsafe_b64encode("|".join(_place(record)).encode()).decode()


def _read_token(token: str) -> tuple[str, str]:
    try:
        moment, _, identifier = base64.urlsafe_b64decode(token).decode().partition("|")
        datetime.fromisoformat(moment)
    except (binascii.Error, ValueError):
        raise Invalid("nextToken is not one that this service gave") from None
    return moment, identifier
