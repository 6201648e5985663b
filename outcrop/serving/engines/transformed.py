"""Any causal language model of transformers: its own modules, with products, adapters and attention replaced.

Shape legend: T rows laid end to end, U wanted rows, H query heads, K key-value heads, D head width, I inputs, O outputs,
W width.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from outcrop.serving.engines.adapters import AdapterRows, Pool
from outcrop.serving.engines.batch import NO_SINKS, Attention, Batch
from outcrop.serving.engines.pages import Pages
from outcrop.serving.engines.weights import matrix

Array = np.ndarray[Any, Any]

_COUNTER = count()


class _Pass:
    """The pass under way, where layers find it."""

    batch: Batch
    pages: Pages


class AdaptedLinear(nn.Module):
    """A linear layer, plus for each row its adapter's low-rank product."""

    def __init__(self, base: nn.Module, under_way: _Pass, number_format: str) -> None:
        super().__init__()
        weight: Any = base.weight
        bias: Any = base.bias
        weight_OI = weight.detach().T if isinstance(base, Conv1D) else weight.detach()  # GPT-2 keeps it the other way
        self.matrix = matrix(weight_OI, None if bias is None else bias.detach(), number_format)
        self.pool: Pool | None = None
        self._under_way = under_way

    def forward(self, x: Tensor) -> Tensor:
        x_TI = np.ascontiguousarray(x.detach().reshape(-1, x.shape[-1]).numpy())
        out_TO = self.matrix.product(x_TI)
        rows: AdapterRows = self._under_way.batch.adapters
        if self.pool is not None and (rows.has_few or rows.runs):
            if len(x_TI) != len(rows):
                raise ValueError("this architecture does not show every layer every row; it cannot have adapters")
            self.pool.add(x_TI, out_TO, 0, rows)
        return torch.from_numpy(out_TO).view(*x.shape[:-1], -1)


class Transformed:
    """Hidden states of a model through transformers' modules."""

    def __init__(self, model: PreTrainedModel, number_format: str) -> None:
        self._under_way = _Pass()
        name = f"outcrop_cache_{next(_COUNTER)}"  # the interface's table is one for all models of the process
        AttentionInterface.register(name, self._attend)
        model.set_attn_implementation(name)
        head: Any = model.get_output_embeddings()
        self._layers: dict[str, AdaptedLinear] = {}
        found = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }
        for name, module in found.items():
            self._layers[name] = AdaptedLinear(module, self._under_way, number_format)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, self._layers[name])
        self.head = matrix(head.weight.detach(), None if head.bias is None else head.bias.detach(), number_format)
        self._decoder: Any = model.get_decoder()

    @property
    def adaptable(self) -> dict[str, tuple[int, int]]:
        """Sizes [O, I] of the layers that an adapter may change."""
        return {name: layer.matrix.sizes for name, layer in self._layers.items()}

    def take_pools(self, pools: Mapping[str, Pool]) -> None:
        """Where the adapters lie."""
        for name, layer in self._layers.items():
            layer.pool = pools[name]

    @torch.inference_mode()
    def hidden(self, batch: Batch, pages: Pages) -> Array:
        """The last hidden states of the wanted rows, normed, [U, W]."""
        self._under_way.batch, self._under_way.pages = batch, pages
        hidden_1TW = self._decoder(
            input_ids=torch.from_numpy(batch.tokens_T)[None], position_ids=torch.from_numpy(batch.position_T)[None],
            use_cache=False,
        )[0]  # fmt: skip
        return np.ascontiguousarray(hidden_1TW[0].numpy()[batch.wanted_U])

    def _attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
        scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None,
        s_aux: Tensor | None = None, **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """transformers' attention interface: query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]."""
        width, value_width = query.shape[-1], value.shape[-1]
        if value_width < width:  # DeepSeek's heads
            value = torch.nn.functional.pad(value, (0, width - value_width))
        heads_TND = torch.cat([query[0], key[0], value[0]]).transpose(0, 1).contiguous().numpy()
        attention = Attention(
            width**-0.5 if scaling is None else scaling, sliding_window or 0, softcap or 0.0,
            NO_SINKS if s_aux is None else s_aux.detach().numpy(),
        )  # fmt: skip
        layer: Any = module.layer_idx
        mixed_THD = attention(
            self._under_way.batch,
            self._under_way.pages,
            int(layer),
            heads_TND,
            query.shape[1],
        )
        return torch.from_numpy(mixed_THD)[None, ..., :value_width], None
