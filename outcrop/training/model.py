"""A base model from its folder, with attention that keeps packed rows apart.

Shape legend: T tokens laid end to end, R rows, L longest row, H heads, K key-value heads, D head width.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from outcrop.errors import Invalid
from outcrop.training.batches import Grid, Microbatch

ATTENTION = "outcrop_rows"


def attend_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    grids: list[Grid],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row: query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D].

    Rows of like length are laid out as a grid for the attention alone. Padding stands right of every row, where
    causal attention never looks, so no mask is built and the result equals that of each row by itself.

    Raises Invalid for attention that this does not compute: a sliding window shorter than a row, soft-capped scores.
    """
    if softcap is not None:
        raise Invalid("this base model soft-caps its attention scores, which training does not support")
    longest = max(grid.grid_RL.shape[1] for grid in grids)
    if sliding_window is not None and longest > sliding_window:
        raise Invalid(f"a row has {longest} tokens, more than the base model's attention window of {sliding_window}")
    groups = query.shape[1] // key.shape[1]
    mixed_THD = [_attend_grid(query, key, value, grid, groups, scaling) for grid in grids]
    return torch.cat(mixed_THD)[None], None


def _attend_grid(query: Tensor, key: Tensor, value: Tensor, grid: Grid, groups: int, scaling: float | None) -> Tensor:
    """The rows of one grid: their tokens [t, H, D] in order."""

    def as_grid(heads: Tensor) -> Tensor:
        rows, longest = grid.grid_RL.shape
        flat_HtD = heads[0][:, grid.grid_RL.flatten()]
        return flat_HtD.view(heads.shape[1], rows, longest, heads.shape[3]).transpose(0, 1)

    key_RHLD, value_RHLD = as_grid(key), as_grid(value)
    if groups > 1:
        key_RHLD, value_RHLD = key_RHLD.repeat_interleave(groups, 1), value_RHLD.repeat_interleave(groups, 1)
    mixed_RHLD = F.scaled_dot_product_attention(as_grid(query), key_RHLD, value_RHLD, is_causal=True, scale=scaling)
    mixed_tHD: Tensor = mixed_RHLD.transpose(1, 2).flatten(0, 1)[grid.place_t]
    return mixed_tHD


AttentionInterface.register(ATTENTION, attend_rows)


def load_base(folder: Path) -> PreTrainedModel:
    """The base model in float32, frozen, ready for packed rows.

    float32 whatever the config says: on processors without bf16 units bf16 arithmetic is several
    times slower (a product of 1024 x 1024 matrices, one thread of a Xeon without AMX, torch 2.13: 30 against 110
    GFLOP/s), and training in it would lose small updates.
    Raises Invalid when the folder's weights cannot be read as a causal language model.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise Invalid(f"{folder} does not load as a causal language model: {error}") from error
    model.requires_grad_(False)
    # Only loraDropout drops anything: the base's own dropout was for its pre-training, and a step's result must not
    # depend on how its rows were cut.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.eval()
    return model


def answer_loss(model: PreTrainedModel, batch: Microbatch) -> Tensor:
    """Summed cross-entropy (nats) at the supervised positions; logits are made nowhere else."""
    hidden_1TW = model.get_decoder()(
        input_ids=batch.tokens_1T, position_ids=batch.positions_1T, use_cache=False, grids=batch.grids
    ).last_hidden_state
    logits_SV = model.get_output_embeddings()(hidden_1TW[0, batch.sources_S])
    return F.cross_entropy(logits_SV.float(), batch.targets_S, reduction="sum")
