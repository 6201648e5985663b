"""A tuned model as a whole model in Hugging Face's layout, checked against what it was made of.

Merging rounds: into 4 bits it loses the tuning (huggingface/peft #2321), into 16 bits a little. So the sum is made in
float32, written in the type asked for, read back, and its logits compared with those of base and adapter kept apart.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from outcrop.errors import Invalid
from outcrop.registry.adapters import read_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Largest difference between logits, as a part of their standard deviation. A type's rounding of the weights alone moves
# them by less: 8 bits of mantissa (bfloat16) are steps of 0.4 %, which add up over layers.
TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}
PROBE_TOKENS = 64


@dataclass(frozen=True)
class Checked:
    """How far the written model is from base and adapter: the largest logit difference as a part of their standard
    deviation, and the share of probed positions whose likeliest token is the same."""

    difference: float
    same_choice: float


def merge(base: Path, adapter: Path | None, out: Path, dtype: str) -> Checked:
    """Write the whole model into the folder `out`, which must not exist.

    Raises Invalid when the type is unknown, the folder is there, or the logits differ by more than the type's rounding
    explains; the folder is then not left behind.
    """
    if dtype not in DTYPES:
        raise Invalid(f"the type is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if out.exists():
        raise Invalid(f"{out} is there already; choose another folder")
    model = _load(base)
    probe = torch.randint(0, model.config.vocab_size, (1, PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    pairs = adapted(model, adapter) if adapter is not None else {}
    with torch.no_grad(), applied(pairs):
        expected = model(probe).logits[0]
    with torch.no_grad():
        for layer, (A_rI, scaled_B_Or) in pairs.items():
            delta_OI = scaled_B_Or @ A_rI
            layer.get_parameter("weight").add_(delta_OI.T if isinstance(layer, Conv1D) else delta_OI)
    try:
        for weight in model.parameters():
            weight.data = weight.data.to(DTYPES[dtype])
        model.config.dtype = DTYPES[dtype]
        model.save_pretrained(out)
        with torch.no_grad():
            written = _load(out)(probe).logits[0]
        checked = Checked(
            float((written - expected).abs().max() / expected.std()),
            float((written.argmax(-1) == expected.argmax(-1)).float().mean()),
        )
        if not checked.difference <= TOLERANCE[dtype]:
            raise Invalid(
                f"merged into {dtype} the logits differ by {checked.difference:.2g} of their standard deviation, more than "
                f"{TOLERANCE[dtype]}; export in float32"
            )
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return checked


def _load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    model.eval()
    return model


def adapted(model: nn.Module, adapter: Path) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Each layer that an adapter is for, with A and scaled B. Raises Invalid for layers that the model has not."""
    try:
        pairs = read_adapter(adapter)
    except ValueError as error:
        raise Invalid(str(error)) from None
    layers = dict(model.named_modules())
    unknown = [name for name in pairs if name not in layers]
    if unknown:
        raise Invalid(f"the adapter has a layer {unknown[0]}, which the base model has not")
    return {layers[name]: pair for name, pair in pairs.items()}


@contextmanager
def applied(pairs: dict[nn.Module, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within the block each layer adds its adapter's output, kept apart from the weights."""

    def adds(A_rI: Tensor, scaled_B_Or: Tensor) -> object:
        return lambda _layer, inputs, output: output + inputs[0] @ A_rI.T @ scaled_B_Or.T

    hooks = [layer.register_forward_hook(adds(*pair)) for layer, pair in pairs.items()]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
