"""Adapters as those read them who serve or merge: PEFT's layout, the scale already in B."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

PREFIX = "base_model.model."
# Ways of PEFT that make more of an adapter than A and B.
UNREAD = ("use_dora", "rank_pattern", "alpha_pattern", "lora_bias")


def read_adapter(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """By the name of the layer: A [r, I] and B [O, r] times the scale, float32.

    Raises ValueError for adapters that are not plain low-rank ones, and files that are not whole.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    odd = [name for name in UNREAD if config.get(name)]
    if odd:
        raise ValueError(f"{folder}: {odd[0]} is not supported; only plain low-rank adapters are")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    tensors = load_file(folder / "adapter_model.safetensors")
    names = sorted({key.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for key in tensors})
    if not names or len(tensors) != 2 * len(names):
        raise ValueError(f"{folder}: {len(tensors)} tensors for {len(names)} layers; two a layer are expected")
    found = {}
    for name in names:
        A_rI, B_Or = (tensors[f"{PREFIX}{name}.lora_{side}.weight"].float() for side in "AB")
        found[name] = (A_rI, B_Or * scale)
    return found
