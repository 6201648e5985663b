"""The decoder of the Llama family, written out: the hidden states of a batch in as few steps as there are.

Shape legend: T rows, U wanted rows, W width, H query heads, K key-value heads, N = H + 2 K, D head width, F the MLP's
width, C positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from outcrop.serving.engines import kernels
from outcrop.serving.engines.adapters import AdapterRows, Pool
from outcrop.serving.engines.batch import Attention, Batch
from outcrop.serving.engines.pages import Pages
from outcrop.serving.engines.weights import matrix

Array = np.ndarray[Any, Any]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Rotary tables that depend on the position alone, not on how long the sequence is.
ROTARY = ("default", "linear", "llama3")


def fits(config: Any) -> bool:
    """Whether Decoder computes this architecture."""
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and rotary.get("rope_type", "default") in ROTARY
        and rotary.get("partial_rotary_factor", 1.0) == 1.0
    )


class Projection:
    """Linear layers that read the same input, as one matrix, each with its part of the adapters."""

    def __init__(self, layers: Sequence[tuple[str, nn.Linear]], number_format: str) -> None:
        self._names = [name for name, _ in layers]
        modules = [module for _, module in layers]
        biases = [
            torch.zeros(len(module.weight)) if module.bias is None else module.bias.detach() for module in modules
        ]
        has_bias = any(module.bias is not None for module in modules)
        weight_OI = torch.cat([module.weight.detach() for module in modules])
        self.sizes = {name: tuple(module.weight.shape) for name, module in layers}
        for module in modules:
            module.weight = nn.Parameter(torch.empty(0), requires_grad=False)  # it is kept here from now on
        self._matrix = matrix(weight_OI, torch.cat(biases) if has_bias else None, number_format)
        self._pools: list[tuple[Pool, int]] = []

    def take_pools(self, pools: Mapping[str, Pool]) -> None:
        """Where the adapters of its layers lie."""
        column = 0
        for name in self._names:
            self._pools.append((pools[name], column))
            column += self.sizes[name][0]

    def __call__(self, x_TI: Array, rows: AdapterRows) -> Array:
        out_TO = self._matrix.product(x_TI)
        if rows.has_few or rows.runs:
            for pool, column in self._pools:
                pool.add(x_TI, out_TO, column, rows)
        return out_TO


class Layer:
    """One decoder layer: attention and gated MLP, each on a normed residual stream."""

    def __init__(self, index: int, prefix: str, module: Any, config: Any, number_format: str) -> None:
        attention, mlp = module.self_attn, module.mlp
        self._index, self._heads = index, config.num_attention_heads
        self._head_width = attention.head_dim
        self._kv_heads = config.num_key_value_heads
        owner = config if config.model_type == "mistral" else attention
        window = getattr(owner, "sliding_window", None)
        self._attention = Attention(float(attention.scaling), window or 0)
        self._norm, self._middle_norm = _norm(module.input_layernorm), _norm(module.post_attention_layernorm)
        self._head_norms = []
        if hasattr(attention, "q_norm"):
            ends = (0, self._heads, self._heads + self._kv_heads)
            for begin, end, norm in zip(ends, ends[1:], (attention.q_norm, attention.k_norm), strict=False):
                self._head_norms.append((begin, end, *_norm(norm)))

        def projection(owner: str, *names: str) -> Projection:
            parent = getattr(module, owner)
            return Projection([(f"{prefix}.{owner}.{name}", getattr(parent, name)) for name in names], number_format)

        self._qkv = projection("self_attn", "q_proj", "k_proj", "v_proj")
        self._out = projection("self_attn", "o_proj")
        self._gate_up = projection("mlp", "gate_proj", "up_proj")
        self._down = projection("mlp", "down_proj")
        self._mlp_width = mlp.down_proj.in_features
        self.projections = (self._qkv, self._out, self._gate_up, self._down)

    def __call__(
        self, x_TW: Array, more_TW: Array, batch: Batch, pages: Pages, rotary: tuple[Array, Array], is_last: bool
    ) -> tuple[Array, Array]:
        """The residual stream and what is still to be added to it; of the last layer, the wanted rows alone."""
        normed_TW = np.empty_like(x_TW)
        kernels.add_and_norm(x_TW, more_TW, *self._norm, normed_TW)
        heads_TND = self._qkv(normed_TW, batch.adapters).reshape(len(x_TW), -1, self._head_width)
        for begin, end, weight_D, eps in self._head_norms:
            kernels.norm_heads(heads_TND, begin, end, weight_D, eps)
        kernels.turn(heads_TND, self._heads + self._kv_heads, *rotary, batch.position_T)
        mixed_TD = self._attention(batch, pages, self._index, heads_TND, self._heads).reshape(len(x_TW), -1)
        rows = batch.adapters
        if is_last and len(batch.wanted_U) < len(batch):
            mixed_TD, x_TW, rows = mixed_TD[batch.wanted_U], x_TW[batch.wanted_U], rows.select(batch.wanted_U)
            normed_TW = normed_TW[: len(x_TW)]
        kernels.add_and_norm(x_TW, self._out(mixed_TD, rows), *self._middle_norm, normed_TW)
        gate_up_TF = self._gate_up(normed_TW, rows)
        opened_TF = np.empty((len(x_TW), self._mlp_width), np.float32)
        kernels.gate(gate_up_TF, opened_TF)
        return x_TW, self._down(opened_TF, rows)


class Decoder:
    """Hidden states of a Llama-like model."""

    def __init__(self, model: PreTrainedModel, number_format: str) -> None:
        decoder: Any = model.get_decoder()
        prefix = next(name for name, module in model.named_modules() if module is decoder)
        self.layers = [
            Layer(index, f"{prefix}.layers.{index}", module, model.config, number_format)
            for index, module in enumerate(decoder.layers)
        ]
        self._norm = _norm(decoder.norm)
        self._rotary_module = decoder.rotary_emb
        self._cos_CD = self._sin_CD = np.empty((0, 0), np.float32)
        embedding: Any = model.get_input_embeddings()
        head: Any = model.get_output_embeddings()
        is_tied = head.weight is embedding.weight
        self.head = matrix(head.weight.detach(), head.bias, number_format)
        self._embedding = self.head if is_tied else matrix(embedding.weight.detach(), None, number_format)
        embedding.weight = head.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def adaptable(self) -> dict[str, tuple[int, int]]:
        """Sizes [O, I] of the layers that an adapter may change."""
        return {
            name: (size[0], size[1])
            for layer in self.layers
            for projection in layer.projections
            for name, size in projection.sizes.items()
        }

    def take_pools(self, pools: Mapping[str, Pool]) -> None:
        """Where the adapters lie."""
        for layer in self.layers:
            for projection in layer.projections:
                projection.take_pools(pools)

    def hidden(self, batch: Batch, pages: Pages) -> Array:
        """The last hidden states of the wanted rows, normed, [U, W]."""
        self._extend_rotary(int(batch.position_T.max()) + 1)
        rotary = self._cos_CD, self._sin_CD
        x_TW = self._embedding.rows(batch.tokens_T)
        more_TW = np.zeros_like(x_TW)
        for layer in self.layers:
            x_TW, more_TW = layer(x_TW, more_TW, batch, pages, rotary, layer is self.layers[-1])
        normed_UW = np.empty_like(x_TW)
        kernels.add_and_norm(x_TW, more_TW, *self._norm, normed_UW)
        return normed_UW

    def _extend_rotary(self, length: int) -> None:
        if length <= len(self._cos_CD):
            return
        positions = torch.arange(max(1024, 2 * length))[None]
        cos_1CD, sin_1CD = self._rotary_module(torch.empty(0), positions)
        self._cos_CD, self._sin_CD = cos_1CD[0].numpy(), sin_1CD[0].numpy()


def _norm(module: Any) -> tuple[Array, float]:
    return module.weight.detach().numpy(), float(module.variance_epsilon)
