"""Models, and what they answer."""

from array import array
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import msgspec

from outcrop import invocation
from outcrop.api import custom_models
from outcrop.api.call import Call
from outcrop.api.logged import Answered, logged
from outcrop.api.openai.lists import seconds
from outcrop.errors import Invalid

Request = dict[str, Any]


def list_models(request: Request, call: Call) -> Request:
    """Base, imported and custom models that can be asked."""
    registry = call.service.registry
    shown = [_model(model.id, model.provider, model.added_at) for model in registry.base_models()]
    shown += [_model(model.name, "outcrop", model.created_at) for model in registry.imported.all()]
    shown += [_model(model.name, "outcrop", model.created_at) for model in registry.custom.all()]
    return {"object": "list", "data": shown}


def retrieve_model(request: Request, call: Call) -> Request:
    """One of them. Raises NotFound."""
    found = next((one for one in list_models({}, call)["data"] if one["id"] == request["model"]), None)
    if found is None:
        call.service.serving.target(request["model"])  # an ARN, a deployment or an alias
        found = _model(request["model"], "outcrop", None)
    return found


def delete_model(request: Request, call: Call) -> Request:
    """Delete a custom model. Raises NotFound, Conflict."""
    custom_models.delete_custom_model({"modelIdentifier": request["model"]}, call)
    return {"id": request["model"], "object": "model", "deleted": True}


def _model(name: str, owner: str, created_at: datetime | None) -> Request:
    return {"id": name, "object": "model", "created": seconds(created_at) or 0, "owned_by": owner}


def create_chat_completion(request: Request, call: Call) -> Request | Iterator[Request]:
    """An answer to messages, whole or as chunks."""
    if "messages" not in request:
        raise Invalid("messages is missing")
    return _completed(request, call)


def create_completion(request: Request, call: Call) -> Request | Iterator[Request]:
    """An answer to a text, whole or as chunks."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        request = {**request, "prompt": prompt[0]}
    elif not isinstance(prompt, str):
        raise Invalid("prompt must be a string, or a list of one; ask once for each")
    return _completed(request, call)


def _completed(request: Request, call: Call) -> Request | Iterator[Request]:
    model = request.get("model")
    if not isinstance(model, str):
        raise Invalid(f"model is {model!r}; it must be the name of a model")
    operation = "ChatCompletions" if "messages" in request else "Completions"
    record = logged(call, operation, model, request, request.get("metadata"))
    if request.get("stream"):
        return _chunks(record, request, model, call)
    with record as answered:
        body, asking = _body(request), _asking(call)
        result = invocation.answer(asking, model, body.ask)
        whole = body.whole(model, result)
        answered(whole, result.input_tokens, result.output_tokens)
    return whole


def _chunks(record: AbstractContextManager[Answered], request: Request, model: str, call: Call) -> Iterator[Request]:
    with record as answered:
        body = _body(request)
        pieces = invocation.stream(_asking(call), model, body.ask)

        def told() -> Iterator[invocation.Delta | invocation.Answer]:
            for piece in pieces:
                if isinstance(piece, invocation.Answer):
                    answered(body.whole(model, piece), piece.input_tokens, piece.output_tokens)
                yield piece

        try:
            for chunk in body.events(model, told()):
                chunk.pop("amazon-bedrock-invocationMetrics", None)
                yield chunk
        finally:
            pieces.close()  # type: ignore[attr-defined]


def _body(request: Request) -> invocation.Body:
    return invocation.read_body(msgspec.json.encode({"temperature": 1, "max_tokens": None, **request}))


def _asking(call: Call) -> invocation.Invocation:
    return invocation.Invocation(call.service.serving, call.service.registry, call.context.gone)


def create_embeddings(request: Request, call: Call) -> Request:
    """The vectors of one text or several, as numbers or in base64."""
    model = request.get("model")
    with logged(call, "Embeddings", str(model), request, kind="embedding") as answered:
        whole, tokens = _embeddings(request, model, call)
        answered(whole, tokens, None)
    return whole


def _embeddings(request: Request, model: Any, call: Call) -> tuple[Request, int]:
    left = {name: value for name, value in request.items() if name != "model"}
    given = left.pop("input", None)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(model, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Invalid("model must be a string, and input a string or a list of strings")
    form = left.pop("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Invalid(f"encoding_format is {form!r}; it must be float or base64")
    left.pop("user", None)
    wanted = left.pop("dimensions", None)
    if left:
        raise Invalid(f"{next(iter(left))} is not known here")
    made = invocation.embed(_asking(call), model, texts)
    if wanted not in (None, len(made.vectors[0])):
        raise Invalid(f"dimensions is {wanted}; {model} makes {len(made.vectors[0])}")
    shown: list[Any] = made.vectors
    if form == "base64":
        shown = [b64encode(array("f", vector).tobytes()).decode() for vector in made.vectors]
    whole = {
        "object": "list", "model": model, "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)],
    }  # fmt: skip
    return whole, made.tokens
