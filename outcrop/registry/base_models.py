"""Base models: a Hugging Face folder under a Bedrock id."""

import json
import math
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from outcrop.errors import Invalid
from outcrop.names import BASE_MODEL_ID

PEBBLE_ID = "outcrop.pebble-v1:0"
PEBBLE_FOLDER = Path(__file__).parent / "pebble"
# A safetensors header is JSON of some kilobytes per thousand tensors; more than this is not one.
MOST_HEADER_BYTES = 100 * 1024 * 1024


class BaseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A base model of the catalogue; `alias_of` names another id whose weights are meant."""

    id: str
    name: str
    provider: str
    folder: str
    source: str
    num_parameters: int
    context: int
    architecture: str
    added_at: datetime
    alias_of: str = ""


def describe(model_id: str, folder: Path, source: str, added_at: datetime) -> BaseModel:
    """What a folder holds. Raises Invalid that names what is missing or broken."""
    check_id(model_id)
    config = read_config(folder)
    architectures = config.get("architectures") or [""]
    context = config.get("max_position_embeddings") or config.get("n_positions") or 2048
    return BaseModel(
        id=model_id, name=model_id, provider=model_id.partition(".")[0], folder=str(folder), source=source,
        num_parameters=count_parameters(folder), context=int(context), architecture=str(architectures[0]), added_at=added_at,
    )  # fmt: skip


def check_id(model_id: str) -> None:
    """Raises Invalid unless the id is one that AWS's models accept."""
    if not BASE_MODEL_ID.fullmatch(model_id):
        raise Invalid(
            f"{model_id!r} is not a model id; write it as provider.name-v1:0 in lower case, digits and hyphens"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Raises Invalid when it is missing or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise Invalid(f"{folder} has no config.json; give a folder in Hugging Face layout")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"{path.name} is not JSON: {error}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files. Raises Invalid when there are none; pickles are never read."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        other = f" (found {', '.join(pickles)}: pickles can run code and are not read; convert them)" if pickles else ""
        raise Invalid(f"{folder} has no *.safetensors{other}")
    return files


def count_parameters(folder: Path) -> int:
    """How many numbers the weights have, from the headers alone. Raises Invalid for a damaged file."""
    return sum(math.prod(shape) for shape in read_headers(folder).values())


def read_headers(folder: Path) -> dict[str, list[int]]:
    """Every tensor's shape by its name. Raises Invalid for a damaged file."""
    shapes: dict[str, list[int]] = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            head = file.read(8)
            size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= size <= min(MOST_HEADER_BYTES, path.stat().st_size):
                raise Invalid(f"{path.name} is not a safetensors file, or was cut off")
            try:
                header = json.loads(file.read(size))
                tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
                ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
                shapes |= {name: [int(length) for length in entry["shape"]] for name, entry in tensors.items()}
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
                raise Invalid(f"{path.name}: the header is damaged") from None
        if max(ends, default=0) + 8 + size > path.stat().st_size:
            raise Invalid(f"{path.name} is shorter than its header says; copy it again")
    return shapes
