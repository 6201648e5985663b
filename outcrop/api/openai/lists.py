"""Lists as OpenAI pages them."""

from datetime import datetime
from typing import Any

from outcrop.errors import Invalid

Request = dict[str, Any]


def page(entries: list[Request], request: Request, key: str) -> Request:
    """A page of a list, from the entry after `after`. Raises Invalid."""
    limit = str(request.get("limit", 20))
    if not (limit.isascii() and limit.isdigit()) or not 0 < int(limit) <= 10_000:
        raise Invalid(f"limit is {limit!r}; it must be a number from 1 to 10000")
    after, begin = request.get("after"), 0
    if after:
        begin = next((place + 1 for place, one in enumerate(entries) if one[key] == after), len(entries))
    chosen = entries[begin : begin + int(limit)]
    ends = {"first_id": chosen[0][key] if chosen else None, "last_id": chosen[-1][key] if chosen else None}
    return {"object": "list", "data": chosen, "has_more": begin + len(chosen) < len(entries), **ends}


def seconds(at: datetime | None) -> int | None:
    """Seconds since 1970, as OpenAI tells times."""
    return None if at is None else int(at.timestamp())
