"""What a folder holds, told from its config and the headers of its weights, before any weight is read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outcrop.errors import Invalid
from outcrop.registry.base_models import count_parameters, read_config, read_headers, weight_files

# Endings of transformers' class names for models that continue a text.
CAUSAL = ("ForCausalLM", "LMHeadModel")
# And for encoders, whose hidden states are embeddings.
ENCODERS = ("Model", "ForMaskedLM")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
# Pickles, whatever they are called: Python's own of protocols 2 to 5, and torch's zip files.
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Intake:
    """What was found. `base` is the id of an adapter's base model, as the folder says it."""

    architecture: str
    num_parameters: int
    context: int
    base: str = ""
    is_encoder: bool = False


def look_into(folder: Path) -> Intake:
    """Check a folder. Raises Invalid that names the file and what is wrong with it."""
    refuse_pickles(folder)
    if (folder / "adapter_config.json").is_file():
        config = _json(folder / "adapter_config.json")
        base = config.get("base_model_name_or_path")
        if not isinstance(base, str) or config.get("peft_type", "LORA") != "LORA":
            raise Invalid(
                "adapter_config.json must have peft_type LORA and base_model_name_or_path, the base model's id"
            )
        return Intake("adapter", count_parameters(folder), 0, base)
    config = read_config(folder)
    architectures = config.get("architectures") or [""]
    architecture = str(architectures[0]) if isinstance(architectures, list) else str(architectures)
    is_encoder = not architecture.endswith(CAUSAL) and architecture.endswith(ENCODERS)
    if not architecture.endswith((*CAUSAL, *ENCODERS)):
        raise Invalid(
            f"config.json: the architecture is {architecture or 'not named'}; models that continue a text are taken, whose "
            f"names end in {' or '.join(CAUSAL)}, and encoders, in {' or '.join(ENCODERS)}"
        )
    _refuse_missing(folder)
    headers = read_headers(folder)
    _check_vocabulary(folder, config, headers)
    context = config.get("max_position_embeddings") or config.get("n_positions") or 2048
    if not isinstance(context, int) or context < 1:
        raise Invalid(f"config.json: max_position_embeddings is {context!r}; it must be a number of tokens")
    return Intake(architecture, count_parameters(folder), context, is_encoder=is_encoder)


def refuse_pickles(folder: Path) -> None:
    """Raises Invalid for a file that is a pickle by what it holds, whatever it is called."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            if file.read(4).startswith(PICKLES):
                raise Invalid(f"{path.name} is a pickle: it can run code and is not read; convert it to safetensors")


def _refuse_missing(folder: Path) -> None:
    index = folder / INDEX
    if not index.is_file():
        return
    named = set(_json(index).get("weight_map", {}).values())
    missing = sorted(named - {path.name for path in weight_files(folder)})
    if missing:
        raise Invalid(
            f"{INDEX} names {missing[0]}, which is not in the folder ({len(missing)} of {len(named)} are missing)"
        )


def _check_vocabulary(folder: Path, config: dict[str, Any], headers: dict[str, list[int]]) -> None:
    size = config.get("vocab_size")
    rows = next((shape[0] for name, shape in headers.items() if name.endswith(EMBEDDINGS) and len(shape) == 2), None)
    if not isinstance(size, int) or size < 1:
        raise Invalid(f"config.json: vocab_size is {size!r}; it must be the number of tokens")
    if rows is not None and rows != size:
        raise Invalid(
            f"config.json: vocab_size is {size:,}, but the embedding has {rows:,} rows; one of them is of another model"
        )
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file():
        said = _json(tokenizer)
        try:
            vocabulary = said["model"]["vocab"]
            largest = max(vocabulary.values(), default=0) if isinstance(vocabulary, dict) else len(vocabulary) - 1
            largest = max([largest, *(int(token["id"]) for token in said.get("added_tokens") or [])])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Invalid(
                f"tokenizer.json does not have the shape of a tokenizer: {type(error).__name__}: {error}"
            ) from None
        if largest >= size:
            raise Invalid(
                f"tokenizer.json has a token {largest:,}, but the model knows {size:,} tokens; it is of another model"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"{path.name} is not a JSON object: {error}") from None
