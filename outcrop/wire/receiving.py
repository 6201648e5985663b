"""A request's body as it arrives, and whether the client is still there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from outcrop.errors import Invalid
from outcrop.wire.body import Body, Receiver
from outcrop.wire.context import Context

Receive = Callable[[], Awaitable[dict[str, Any]]]
# AWS's limit of an InvokeModel body (botocore model: 25,000,000 bytes).
MOST_JSON_BYTES = 25_000_000


class Disconnected(Exception):
    """The client left before its request was whole."""


async def receive_small(receive: Receive) -> bytes:
    """A body in memory. What exceeds the limit is read but not kept, so that the client can hear the refusal."""
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size <= MOST_JSON_BYTES:
            pieces.append(piece)
        more = message.get("more_body", False)
    if size > MOST_JSON_BYTES:
        raise Invalid(f"the request body has {size} bytes; at most {MOST_JSON_BYTES} are allowed")
    return b"".join(pieces)


async def receive_large(receive: Receive, receiver: Receiver) -> Body:
    """A body of any size, as the receiver keeps it."""
    try:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            receiver.feed(message.get("body", b""))
            more = message.get("more_body", False)
        return receiver.finish()
    except BaseException:
        receiver.abandon()
        raise


def json_object(data: bytes) -> dict[str, Any]:
    """A body, if there is one. Raises Invalid."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any]) if data.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body must be a JSON object: {error}") from None


async def disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def watched(receive: Receive, context: Context) -> AsyncIterator[None]:
    """Within the block, `context.gone` is set as soon as the client leaves."""

    async def watch() -> None:
        await disconnect(receive)
        context.gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
