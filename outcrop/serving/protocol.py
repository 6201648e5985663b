"""What is said between the service and an engine: one JSON line in, JSON lines out, over a local socket.

One connection is one request. Closing it cancels the request.
"""

from collections.abc import Iterator
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

import msgspec

from outcrop.errors import ModelFailed, ModelTimedOut


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="generate"):
    """Continue `tokens`. `temperature` 0 takes the likeliest token; `adapter` is a folder in PEFT's layout.

    What is `provisioned` keeps the engine's promised rate whatever others ask; `logprobs` asks for each token's
    log-probability and those of so many of the likeliest; `grammar`, in llguidance's form, is what the answer must follow.
    """

    tokens: list[int]
    max_tokens: int
    stop_tokens: list[int]
    adapter: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    provisioned: bool = False
    logprobs: int | None = None
    grammar: str | None = None


class Load(msgspec.Struct, frozen=True, tag_field="op", tag="load"):
    """Have the weights, and this adapter, ready."""

    adapter: str | None = None


class Score(msgspec.Struct, frozen=True, tag_field="op", tag="score"):
    """What the tokens at these places (from 1) cost, summed (nats)."""

    tokens: list[int]
    places: list[int]
    adapter: str | None = None


class Embed(msgspec.Struct, frozen=True, tag_field="op", tag="embed"):
    """The vectors of some texts, for a model that makes embeddings."""

    texts: list[list[int]]


Request = Generate | Load | Score | Embed


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token, or the end: `done` is "stop" (a stop token came), "length" (the limit), "ready", "scored",
    "embedded" or "error"."""

    token: int | None = None
    done: str = ""
    reason: str = ""
    loss: float | None = None
    logprob: float | None = None
    top: list[tuple[int, float]] = []
    vectors: list[list[float]] = []


REQUESTS: "msgspec.json.Decoder[Request]" = msgspec.json.Decoder(Request)
REPLIES = msgspec.json.Decoder(Reply)


def ask(path: Path, request: Request, timeout_s: float) -> Iterator[Reply]:
    """Replies as they come, the last one with `done`. Leaving the iteration early cancels the request.

    Raises ModelTimedOut when the engine is silent for `timeout_s`, ModelFailed when it is gone or fails.
    """
    with socket(AF_UNIX, SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    reply = REPLIES.decode(line)
                    if reply.done == "error":
                        raise ModelFailed(f"the engine failed: {reply.reason}")
                    yield reply
                    if reply.done:
                        return
        except TimeoutError:
            raise ModelTimedOut(f"the engine said nothing for {timeout_s:g} seconds") from None
        except OSError as error:
            raise ModelFailed(f"the engine is gone: {error}") from None
    raise ModelFailed("the engine ended before its answer did")
