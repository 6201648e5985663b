"""A model call and its record in the invocation log, through whichever door it came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from outcrop.api.call import Call
from outcrop.clock import now
from outcrop.errors import Invalid, OutcropError
from outcrop.logs import Entry

# Bedrock's limits of request metadata (user guide and botocore model).
MOST_PAIRS, MOST_CHARACTERS = 16, 256

Answered = Callable[[Any, int, int | None], None]


@contextmanager
def logged(
    call: Call, operation: str, model: str, body: Any, metadata: Any = None, kind: str = "text"
) -> Iterator[Answered]:
    """Within the block a model is asked; call what the block is given with the answer's body and its tokens in and out
    before the client can have the whole answer. A refusal is recorded by its code.

    The record is kept when that returns (see `Logs.write`). Raises Invalid for metadata out of Bedrock's limits.
    """
    pairs = _metadata(metadata)
    logs = call.service.logs

    def write(**more: Any) -> None:
        if logs.wants(kind):
            logs.write(
                Entry(
                    at=now(), account=call.names.account, identity=call.identity, region=call.context.region,
                    request_id=call.context.request_id, operation=operation, model=model, input_body=body, metadata=pairs,
                    **more,
                )
            )  # fmt: skip

    def answered(output: Any, input_tokens: int, output_tokens: int | None) -> None:
        write(output_body=output, input_tokens=input_tokens, output_tokens=output_tokens)

    try:
        yield answered
    except OutcropError as error:
        write(error=error.code)
        raise


def _metadata(given: Any) -> dict[str, str]:
    if not given:
        return {}
    if isinstance(given, str):  # InvokeModel's header
        try:
            given = msgspec.json.decode(given)
        except msgspec.DecodeError as error:
            raise Invalid(f"requestMetadata is not JSON: {error}") from None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Invalid("requestMetadata must be an object of strings")
    if len(given) > MOST_PAIRS or any(len(text) > MOST_CHARACTERS for pair in given.items() for text in pair):
        raise Invalid(f"requestMetadata may have {MOST_PAIRS} pairs of at most {MOST_CHARACTERS} characters each")
    return given
