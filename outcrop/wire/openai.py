"""The second door: HTTP in OpenAI's dialect, at /v1 and, as Bedrock has it, at /openai/v1.

In: JSON, or a form with a file. Out: JSON, server-sent events, bytes, and errors in OpenAI's shape. What the operations
mean is not known here.
"""

import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, create_form_parser

from outcrop.errors import Invalid, OutcropError

DOORS = ("/v1/", "/openai/v1/")
MOST_FILE_BYTES = 10 * 1024**3
MOST_FIELD_BYTES = 1 << 20
# HTTP status and OpenAI's type of error, by AWS's name.
ERRORS = {
    "ValidationException": (400, "invalid_request_error"), "AccessDeniedException": (401, "authentication_error"),
    "ResourceNotFoundException": (404, "invalid_request_error"), "ConflictException": (409, "invalid_request_error"),
    "ThrottlingException": (429, "rate_limit_error"), "ModelNotReadyException": (503, "server_error"),
}  # fmt: skip

Handler = Callable[[dict[str, Any], Any], Any]
Routes = Mapping[tuple[str, str], Handler]


def is_for(path: str) -> bool:
    """Whether a path leads to this door. No bucket has a name as short as v1."""
    return path.startswith(DOORS)


def match(routes: Routes, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
    """The function of a method and path, and what stands in the path's places."""
    door = next(door for door in DOORS if path.startswith(door))
    parts = path[len(door) :].strip("/").split("/")
    for (wanted, template), handler in routes.items():
        places = template.strip("/").split("/")
        if wanted == method and len(places) == len(parts):
            pairs = list(zip(places, parts, strict=True))
            if all(place.startswith("{") or place == part for place, part in pairs):
                return handler, {place.strip("{}"): unquote(part) for place, part in pairs if place.startswith("{")}
    return None


async def read_form(
    headers: Mapping[str, str], receive: Callable[[], Awaitable[dict[str, Any]]], folder: Path
) -> dict[str, Any]:
    """A form's fields; `file` is (name, path), kept in `folder` for whoever renames it. Raises Invalid."""
    fields: dict[str, Any] = {}
    path = folder / f"form-{uuid.uuid4().hex}"

    def on_field(field: Field) -> None:
        fields[(field.field_name or b"").decode()] = (field.value or b"").decode()

    def on_file(file: File) -> None:
        if file.field_name != b"file":
            raise Invalid("the form's file must be in its field `file`")
        file.file_object.seek(0)
        with path.open("xb") as kept:
            shutil.copyfileobj(file.file_object, kept)
        file.close()
        fields["file"] = ((file.file_name or b"file").decode(errors="replace"), path)

    limits = {"UPLOAD_DIR": str(folder), "MAX_MEMORY_FILE_SIZE": MOST_FIELD_BYTES, "MAX_BODY_SIZE": MOST_FILE_BYTES}
    try:
        parser = create_form_parser(
            {"Content-Type": headers.get("content-type", "").encode()}, on_field, on_file, limits
        )
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Invalid("the client left")
            parser.write(message.get("body", b""))
            more = message.get("more_body", False)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise Invalid(f"the form cannot be read: {error}") from None
    return fields


def events(pieces: Iterable[Any]) -> Iterator[bytes]:
    """Objects as server-sent events. An error is one, too: the status is long sent."""
    try:
        for piece in pieces:
            yield b"data: " + msgspec.json.encode(piece) + b"\n\n"
    except OutcropError as error:
        yield b"data: " + msgspec.json.encode(refusal(error)[1]) + b"\n\n"
    yield b"data: [DONE]\n\n"


def refusal(error: OutcropError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error."""
    status, kind = ERRORS.get(error.code, (500, "server_error"))
    return status, {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}
