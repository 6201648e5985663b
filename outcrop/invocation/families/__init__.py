"""The bodies of InvokeModel, as each model family writes them.

The family is told by the body's fields, not by the model: a script written for Claude, Llama, Nova or an OpenAI model
runs on whatever stands behind its model id. Shapes: AWS user guide, "Inference request parameters and response fields";
streams as AWS's SDK samples parse them.
"""

from collections.abc import Callable, Iterator

import msgspec

from outcrop.errors import Invalid
from outcrop.invocation import embedding
from outcrop.invocation.answer import Answer, Delta, Invocation, answer, stream
from outcrop.invocation.families.body import Body, Json
from outcrop.invocation.families.claude import claude
from outcrop.invocation.families.llama import llama
from outcrop.invocation.families.nova import nova
from outcrop.invocation.families.openai import chat, completion


def read_body(data: bytes) -> Body:
    """A native body of any family. Raises Invalid that names the field and what is expected."""
    body = _decoded(data)
    if "prompt" in body:
        return llama(body) if "max_tokens" not in body else completion(body)
    if "messages" not in body:
        raise Invalid("Malformed input request: expected prompt or messages in the body")
    if "anthropic_version" in body:
        return claude(body)
    if "inferenceConfig" in body or body.get("schemaVersion") == "messages-v1":
        return nova(body)
    return chat(body)


def _decoded(data: bytes) -> Json:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"Malformed input request: the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Invalid("Malformed input request: the body must be a JSON object")
    return body


def invoke(invocation: Invocation, model_id: str, data: bytes) -> tuple[bytes, Answer]:
    """InvokeModel's body, and the answer that it was made of."""
    given = _decoded(data)
    if embedding.is_embedding(given):
        vectors, tokens = embedding.invoke(invocation, model_id, given)
        return msgspec.json.encode(vectors), Answer(input_tokens=tokens)
    body = read_body(data)
    result = answer(invocation, model_id, body.ask)
    return msgspec.json.encode(body.whole(model_id, result)), result


def invoke_stream(
    invocation: Invocation,
    model_id: str,
    data: bytes,
    ended: Callable[[list[Json], Answer], None] = lambda chunks, last: None,
) -> Iterator[bytes]:
    """The chunks of InvokeModelWithResponseStream; the last one carries the invocation metrics.

    `ended` gets them with the text in one piece, before the last ones come.
    """
    body = read_body(data)
    pieces = stream(invocation, model_id, body.ask)

    def told() -> Iterator[Delta | Answer]:
        for piece in pieces:
            if isinstance(piece, Answer):
                text = [Delta(piece.text)] if piece.text else []
                ended(list(body.events(model_id, iter([*text, piece]))), piece)
            yield piece

    try:
        yield from map(msgspec.json.encode, body.events(model_id, told()))
    finally:
        pieces.close()  # type: ignore[attr-defined]


__all__ = ["Body", "invoke", "invoke_stream", "read_body"]
