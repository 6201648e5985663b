"""Low-rank adapters, written and read in PEFT's layout.

Source: Hu et al., LoRA (arXiv:2106.09685). A starts as PEFT's does (Kaiming uniform with a = sqrt 5), B at zero,
so the adapted model begins as the base. Shape legend: r rank, I inputs, O outputs of the layer adapted.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from outcrop.errors import Invalid

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


class LoraLinear(nn.Module):
    """A frozen linear layer plus scale * B(A(dropout(x)))."""

    def __init__(self, base: nn.Module, rank: int, alpha: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        outputs, inputs = _shape(base)
        bound = math.sqrt(1.0 / inputs)  # Kaiming uniform with a = sqrt 5
        self.A_rI = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.B_Or = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = alpha / rank
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        lowered = F.dropout(x, self.dropout, self.training) if self.dropout else x
        raised: Tensor = F.linear(F.linear(lowered, self.A_rI), self.B_Or) * self.scale
        return self.base(x) + raised  # type: ignore[no-any-return]


def add_adapters(model: PreTrainedModel, rank: int, alpha: float, dropout: float, seed: int) -> dict[str, LoraLinear]:
    """Put an adapter on every linear layer but the head; answers with them by the layer's name.

    All linear layers rather than attention's alone: Biderman et al., LoRA Learns Less and Forgets Less (2024).
    """
    generator = torch.Generator().manual_seed(seed)
    head = model.get_output_embeddings()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    adapters = {}
    for name, layer in layers.items():
        adapters[name] = LoraLinear(layer, rank, alpha, dropout, generator)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, adapters[name])
    return adapters


def save_adapters(adapters: dict[str, LoraLinear], folder: Path, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json as PEFT does, so that any of its users can load them."""
    first = next(iter(adapters.values()))
    tensors = {}
    for name, adapter in adapters.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = adapter.A_rI.detach().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = adapter.B_Or.detach().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    rank = first.A_rI.shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": first.scale * rank,
        "lora_dropout": first.dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name in adapters}),
        "fan_in_fan_out": isinstance(first.base, Conv1D),
        "bias": "none",
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": False,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapters(adapters: dict[str, LoraLinear], folder: Path) -> None:
    """Fill the adapters from a folder in PEFT's layout. Raises Invalid when names or shapes do not fit."""
    tensors = load_file(folder / WEIGHTS)
    expected = {f"{PREFIX}{name}.lora_{side}.weight" for name in adapters for side in "AB"}
    if set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)
        raise Invalid(f"{folder / WEIGHTS} does not fit the base model: {len(odd)} names differ, the first is {odd[0]}")
    for name, adapter in adapters.items():
        adapter.A_rI.data.copy_(tensors[f"{PREFIX}{name}.lora_A.weight"])
        adapter.B_Or.data.copy_(tensors[f"{PREFIX}{name}.lora_B.weight"])


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs); GPT-2's Conv1D keeps its weight the other way round."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows, columns = weight.shape
    return (columns, rows) if isinstance(layer, Conv1D) else (rows, columns)
