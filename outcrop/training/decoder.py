"""The decoder of the Llama family with its derivative written out.

Autograd keeps every intermediate result and makes a new one for every operation. Here a layer keeps what its
derivative needs (residual stream, roped queries, keys and values, attention's mixture, the gate's inputs), makes the
cheap rest again, works through blocks of rows so that temporaries stay small, and leaves out what nothing depends on:
logits where nothing is learned, all of the last layer but keys and values where nothing is learned, gradients of
frozen weights and below the first trained layer.

Shape legend: T tokens, t tokens of a block of rows, W width, H query heads, K key-value heads, D head width, F the
MLP's width, O outputs, I inputs, r rank, U used places (where something is learned), S supervised pairs, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from outcrop.arithmetic import add_outer_product, product
from outcrop.training.batches import Microbatch
from outcrop.training.flat import FlatParameters
from outcrop.training.lora import LoraLinear

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Bytes of the widest activation in a block of rows. It bounds temporaries; smaller blocks are slower although they stay
# in the cache, because a matrix product rearranges its weights for every block (at the shape of a 135 M model, 800
# tokens: 1 MB 6.0 s, 8 MB 5.6 s, 16 MB 4.9 s).
BLOCK_BYTES = 1 << 24
FEWEST_ROWS = 64
# Logits are made for so many places at a time.
HEAD_BYTES = 1 << 24


def fits(model: PreTrainedModel, longest: int) -> bool:
    """Whether Decoder computes this model for rows of up to `longest` tokens."""
    config = model.config
    if config.model_type not in FAMILIES or config.hidden_act != "silu":
        return False
    window = getattr(config, "sliding_window", None)
    return window is None or longest <= window


class Projection:
    """Linear layers that read the same input, as one matrix [O, I]; adapters, if any, are merged into it in float32."""

    def __init__(self, layers: Sequence[nn.Module], flat: FlatParameters) -> None:
        self._lora = [layer for layer in layers if isinstance(layer, LoraLinear)]
        self._linear = [layer.base if isinstance(layer, LoraLinear) else layer for layer in layers]
        assert len(self._lora) in (0, len(layers))
        self.sizes = [int(layer.weight.shape[0]) for layer in self._linear]  # type: ignore[index]
        weights: list[Any] = [layer.weight for layer in self._linear]
        self._biases: list[Any] = [layer.bias for layer in self._linear if layer.bias is not None]
        self._trains = bool(self._lora) or weights[0] in flat
        if self._lora:
            self.weight_OI = torch.cat([weight.detach() for weight in weights])
            self._A_rI, self._grad_A_rI = flat.stacked([layer.A_rI for layer in self._lora])
        elif self._trains:
            self.weight_OI, self._grad_OI = flat.stacked(weights)
        self.bias_O = torch.cat([bias.detach() for bias in self._biases]) if self._biases else None

    def refresh(self) -> None:
        """Take up what the optimizer changed: W + scale B A, from the base's weights each time so that nothing drifts."""
        begin = 0
        for layer, linear, size in zip(self._lora, self._linear, self.sizes, strict=False):
            out = self.weight_OI[begin : begin + size]
            torch.addmm(linear.weight, layer.B_Or, layer.A_rI, alpha=layer.scale, out=out)  # type: ignore[arg-type]
            begin += size
        if self._biases and not self._lora:
            self.bias_O = torch.cat([bias.detach() for bias in self._biases])

    def __call__(self, x_tI: Tensor, out: Tensor | None = None) -> Tensor:
        y_tO = product(x_tI, self.weight_OI.T, out)
        return y_tO if self.bias_O is None else y_tO.add_(self.bias_O)

    def back(self, x_tI: Tensor, dy_tO: Tensor, needs_dx: bool = True) -> Tensor | None:
        """Add the gradients of what is trained; the gradient of the input [t, I], if it is needed."""
        if self._lora:
            lowered_tr = product(x_tI, self._A_rI.T)
            raised, begin, rank = [], 0, self._lora[0].A_rI.shape[0]
            for place, (layer, size) in enumerate(zip(self._lora, self.sizes, strict=True)):
                dy = dy_tO[:, begin : begin + size]
                assert layer.B_Or.grad is not None
                own_tr = lowered_tr[:, place * rank : (place + 1) * rank]
                add_outer_product(layer.B_Or.grad, dy, own_tr, layer.scale)
                raised.append(product(dy, layer.B_Or.detach()))
                begin += size
            d_lowered_tr = raised[0] if len(raised) == 1 else torch.cat(raised, 1)
            add_outer_product(self._grad_A_rI, d_lowered_tr, x_tI, self._lora[0].scale)
        elif self._trains:
            add_outer_product(self._grad_OI, dy_tO, x_tI)
            begin = 0
            for bias in self._biases:
                bias.grad += dy_tO[:, begin : begin + len(bias)].sum(0)
                begin += len(bias)
        return product(dy_tO, self.weight_OI) if needs_dx else None


class Norm:
    """x / rms(x) * weight (Zhang and Sennrich, arXiv:1910.07467) over the last axis."""

    def __init__(self, module: Any, flat: FlatParameters) -> None:
        self._weight, self._eps = module.weight, float(module.variance_epsilon)
        self.trains = self._weight in flat

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The normed x and 1 / rms(x) [..., 1]."""
        rate = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(self._eps).rsqrt_()
        return self.again(x, rate), rate

    def again(self, x: Tensor, rate: Tensor) -> Tensor:
        """The normed x from its known rate."""
        return torch.mul(x, rate).mul_(self._weight.detach())

    def back(self, x: Tensor, rate: Tensor, dy: Tensor) -> Tensor:
        """The gradient of x; dy is used up."""
        if self.trains:
            self._weight.grad += (dy * x).mul_(rate).flatten(0, -2).sum(0)
        dy.mul_(self._weight.detach())
        along = (dy * x).sum(-1, keepdim=True).mul_(rate**3).div_(-x.shape[-1])
        return dy.mul_(rate).addcmul_(x, along)


@dataclass
class Kept:
    """What a layer's derivative needs of its forward pass."""

    x_TW: Tensor
    rate_T1: Tensor
    qkv_TD: Tensor
    before_norm: Tensor | None
    head_rates: Tensor | None
    mixed_TD: Tensor
    sums_TH: Tensor
    middle_UW: Tensor
    middle_rate_U1: Tensor
    gate_up_UF: Tensor


class Layer:
    """One decoder layer: attention and gated MLP, each on a normed residual stream."""

    def __init__(self, module: Any, config: Any, flat: FlatParameters) -> None:
        attention, mlp = module.self_attn, module.mlp
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_width, self.scale = attention.head_dim, float(attention.scaling)
        self.norm = Norm(module.input_layernorm, flat)
        self.middle_norm = Norm(module.post_attention_layernorm, flat)
        self.qkv = Projection([attention.q_proj, attention.k_proj, attention.v_proj], flat)
        self.out = Projection([attention.o_proj], flat)
        self.gate_up = Projection([mlp.gate_proj, mlp.up_proj], flat)
        self.down = Projection([mlp.down_proj], flat)
        self.projections = (self.qkv, self.out, self.gate_up, self.down)
        self.head_norms = None
        if hasattr(attention, "q_norm"):
            self.head_norms = (Norm(attention.q_norm, flat), Norm(attention.k_norm, flat))
        widest = max(sum(self.gate_up.sizes), sum(self.qkv.sizes))
        self.block = max(FEWEST_ROWS, BLOCK_BYTES // (4 * widest))

    def forward(self, x_TW: Tensor, batch: "_Laid", used: Tensor | None, keeps: bool) -> tuple[Tensor, Kept | None]:
        """The residual stream after this layer, at the `used` places only if they are given."""
        heads, kv_heads, width = self.heads, self.kv_heads, self.head_width
        qkv_TD = x_TW.new_empty(len(x_TW), (heads + 2 * kv_heads) * width)
        rate_T1 = x_TW.new_empty(len(x_TW), 1)
        turned_TND = qkv_TD.view(-1, heads + 2 * kv_heads, width)[:, : heads + kv_heads]
        before = head_rates = None
        if self.head_norms is not None:
            before, head_rates = torch.empty_like(turned_TND), x_TW.new_empty(len(x_TW), heads + kv_heads, 1)
        for rows in self._blocks(len(x_TW)):
            normed, rate_T1[rows] = self.norm(x_TW[rows])
            self.qkv(normed, out=qkv_TD[rows])
            if self.head_norms is not None and before is not None and head_rates is not None:
                before[rows] = turned_TND[rows]
                for norm, part in zip(self.head_norms, self._head_parts(), strict=True):
                    turned_TND[rows, part], head_rates[rows, part] = norm(before[rows, part])
            turn(turned_TND[rows], batch.cos_T1D[rows], batch.sin_T1D[rows])
        attention = batch.attention if used is None else batch.last_attention
        mixed_THD, sums_TH = attention.forward(*self._split(qkv_TD), self.scale)
        mixed_TD = mixed_THD.flatten(1)
        mixed_UD, x_UW = (mixed_TD, x_TW) if used is None else (mixed_TD[used], x_TW[used])
        middle_UW, after_UW = torch.empty_like(x_UW), torch.empty_like(x_UW)
        middle_rate_U1 = x_UW.new_empty(len(x_UW), 1)
        gate_up_UF = x_UW.new_empty(len(x_UW), sum(self.gate_up.sizes))
        for rows in self._blocks(len(x_UW)):
            middle = self.out(mixed_UD[rows], out=middle_UW[rows]).add_(x_UW[rows])
            normed, middle_rate_U1[rows] = self.middle_norm(middle)
            gate, up = self.gate_up(normed, out=gate_up_UF[rows]).chunk(2, -1)
            self.down(F.silu(gate).mul_(up), out=after_UW[rows]).add_(middle)
        if not keeps:
            return after_UW, None
        return after_UW, Kept(
            x_TW, rate_T1, qkv_TD, before, head_rates, mixed_TD, sums_TH, middle_UW, middle_rate_U1, gate_up_UF
        )

    def back(self, dy_UW: Tensor, kept: Kept, batch: "_Laid", used: Tensor | None, needs_dx: bool) -> Tensor | None:
        """Add the gradients of what is trained; the gradient of the layer's input. dy is used up."""
        heads, kv_heads, width = self.heads, self.kv_heads, self.head_width
        mixed_UD = kept.mixed_TD if used is None else kept.mixed_TD[used]
        d_mixed_UD = torch.empty_like(mixed_UD)
        for rows in self._blocks(len(dy_UW)):
            dy, middle, rate = dy_UW[rows], kept.middle_UW[rows], kept.middle_rate_U1[rows]
            gate, up = kept.gate_up_UF[rows].chunk(2, -1)
            opened = F.silu(gate)
            d_inner = self.down.back(opened * up, dy)
            assert d_inner is not None
            d_gate_up = torch.empty_like(kept.gate_up_UF[rows])
            d_gate, d_up = d_gate_up.chunk(2, -1)
            torch.mul(d_inner, opened, out=d_up)
            torch.ops.aten.silu_backward.grad_input(d_inner.mul_(up), gate, grad_input=d_gate)
            d_normed = self.gate_up.back(self.middle_norm.again(middle, rate), d_gate_up)
            assert d_normed is not None
            dy += self.middle_norm.back(middle, rate, d_normed)
            d_mixed = self.out.back(mixed_UD[rows], dy)
            assert d_mixed is not None
            d_mixed_UD[rows] = d_mixed
        if used is None:
            attention, d_mixed_TD, dx_TW = batch.attention, d_mixed_UD, dy_UW
        else:
            attention = batch.last_attention
            d_mixed_TD = torch.zeros_like(kept.mixed_TD).index_copy_(0, used, d_mixed_UD)
            dx_TW = torch.zeros_like(kept.x_TW).index_copy_(0, used, dy_UW)
        d_qkv_TD = torch.zeros_like(kept.qkv_TD)
        heads_of = (d_mixed_TD.view(-1, heads, width), *self._split(kept.qkv_TD), kept.mixed_TD.view(-1, heads, width))
        attention.backward(*heads_of, kept.sums_TH, self.scale, self._split(d_qkv_TD))
        turned_TND = d_qkv_TD.view(-1, heads + 2 * kv_heads, width)[:, : heads + kv_heads]
        for rows in self._blocks(len(dx_TW)):
            turn(turned_TND[rows], batch.cos_T1D[rows], batch.sin_T1D[rows], back=True)
            if self.head_norms is not None and kept.before_norm is not None and kept.head_rates is not None:
                for norm, part in zip(self.head_norms, self._head_parts(), strict=True):
                    inputs = kept.before_norm[rows, part], kept.head_rates[rows, part]
                    turned_TND[rows, part] = norm.back(*inputs, turned_TND[rows, part].contiguous())
            x, rate = kept.x_TW[rows], kept.rate_T1[rows]
            d_normed = self.qkv.back(self.norm.again(x, rate), d_qkv_TD[rows], needs_dx or self.norm.trains)
            if d_normed is not None:
                dx_TW[rows] += self.norm.back(x, rate, d_normed)
        return dx_TW if needs_dx else None

    def _split(self, qkv_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [T, H, D], key and value [T, K, D], as views."""
        all_TND = qkv_TD.view(len(qkv_TD), -1, self.head_width)
        key, value = self.heads, self.heads + self.kv_heads
        return all_TND[:, :key], all_TND[:, key:value], all_TND[:, value:]

    def _head_parts(self) -> tuple[slice, slice]:
        return slice(0, self.heads), slice(self.heads, self.heads + self.kv_heads)

    def _blocks(self, size: int) -> Iterator[slice]:
        return (slice(begin, begin + self.block) for begin in range(0, size, self.block))


def turn(heads_tND: Tensor, cos_t1D: Tensor, sin_t1D: Tensor, back: bool = False) -> None:
    """Rotary positions (Su et al., arXiv:2104.09864) in place, halves against each other; `back` turns the other way.

    `sin` has its first half negated.
    """
    swapped = heads_tND.roll(heads_tND.shape[-1] // 2, -1)
    heads_tND.mul_(cos_t1D).addcmul_(swapped, sin_t1D, value=-1.0 if back else 1.0)


class _Laid:
    """A microbatch with what every layer needs of it."""

    def __init__(self, batch: Microbatch, cos_1TD: Tensor, sin_1TD: Tensor) -> None:
        self.attention, self.last_attention = batch.attention, batch.last_attention
        self.cos_T1D = cos_1TD[0][:, None]
        half = sin_1TD.shape[-1] // 2
        self.sin_T1D = torch.cat([-sin_1TD[0, :, :half], sin_1TD[0, :, half:]], -1)[:, None]


class Decoder:
    """Loss and gradients of a Llama-like model for microbatches of trees."""

    def __init__(self, model: PreTrainedModel, flat: FlatParameters) -> None:
        self._decoder: Any = model.get_decoder()
        self._layers = [Layer(module, model.config, flat) for module in self._decoder.layers]
        self._norm = Norm(self._decoder.norm, flat)
        self._head: Any = model.get_output_embeddings().weight
        self._embedding: Any = model.get_input_embeddings().weight
        self._trains_head, self._trains_embedding = self._head in flat, self._embedding in flat
        self._checkpoints = False
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take up what the optimizer changed."""
        for layer in self._layers:
            for projection in layer.projections:
                projection.refresh()

    def checkpoint_activations(self) -> None:
        """From now on keep each layer's input only and compute the rest again: a third more work, less memory."""
        self._checkpoints = True

    @torch.no_grad()
    def loss(self, batch: Microbatch) -> float:
        """Summed cross-entropy (nats) at the supervised positions."""
        hidden_UW, _, _ = self._forward(batch, keeps=False)
        return self._head_pass(self._norm(hidden_UW)[0], batch, None)[0]

    @torch.no_grad()
    def learn(self, batch: Microbatch, share: float) -> float:
        """The same, and `share` times its gradient added to that of the trained weights."""
        hidden_UW, kept, laid = self._forward(batch, keeps=True)
        normed_UW, rate_U1 = self._norm(hidden_UW)
        loss, d_normed_UW = self._head_pass(normed_UW, batch, share)
        assert d_normed_UW is not None
        gradient = self._norm.back(hidden_UW, rate_U1, d_normed_UW)
        for index in reversed(range(len(self._layers))):
            used = batch.places_U if index == len(self._layers) - 1 else None
            last = kept.pop()
            held = self._layers[index].forward(last, laid, used, keeps=True)[1] if isinstance(last, Tensor) else last
            assert held is not None
            below = self._layers[index].back(gradient, held, laid, used, index > 0 or self._trains_embedding)
            if below is not None:
                gradient = below
        if self._trains_embedding:
            self._embedding.grad.index_add_(0, batch.tokens_1T[0], gradient)
        return loss

    def _forward(self, batch: Microbatch, keeps: bool) -> tuple[Tensor, list[Kept | Tensor], _Laid]:
        """The last layer's result at the used places, before the last norm."""
        x = F.embedding(batch.tokens_1T[0], self._embedding)
        laid = _Laid(batch, *self._decoder.rotary_emb(x, batch.positions_1T))
        kept: list[Kept | Tensor] = []
        for index, layer in enumerate(self._layers):
            used = batch.places_U if index == len(self._layers) - 1 else None
            before = x
            x, held = layer.forward(x, laid, used, keeps and not self._checkpoints)
            if keeps:
                kept.append(before if held is None else held)
        return x, kept, laid

    def _head_pass(self, normed_UW: Tensor, batch: Microbatch, share: float | None) -> tuple[float, Tensor | None]:
        """The loss, and with a `share` the gradient of the normed hidden states; logits live for some places at a time."""
        loss = 0.0
        gradient_UW = torch.empty_like(normed_UW) if share is not None else None
        block = max(1, HEAD_BYTES // (4 * len(self._head)))
        for begin in range(0, len(normed_UW), block):
            normed = normed_UW[begin : begin + block]
            logits_uV = product(normed, self._head.detach().T)
            first, last = batch.pairs_before(begin), batch.pairs_before(begin + block)
            rows, targets, counts = (
                batch.pair_rows_S[first:last] - begin, batch.targets_S[first:last], batch.counts_S[first:last],
            )  # fmt: skip
            chosen = logits_uV[rows, targets]
            sums_u = logits_uV.logsumexp(-1)
            loss += float(((sums_u[rows] - chosen) * counts).sum(dtype=torch.float64))
            if gradient_UW is not None and share is not None:
                weights_u = normed.new_zeros(len(normed)).index_add_(0, rows, counts).mul_(share)
                logits_uV.sub_(sums_u[:, None]).exp_().mul_(weights_u[:, None])
                logits_uV.index_put_((rows, targets), counts * -share, accumulate=True)
                product(logits_uV, self._head.detach(), gradient_UW[begin : begin + block])
                if self._trains_head:
                    add_outer_product(self._head.grad, logits_uV, normed)
        return loss, gradient_UW
