"""Attention over trees of tokens, in blocks: what is masked is not computed.

A node's tokens see themselves causally (one block) and every ancestor whole (one block each, for all descendants at
once). The blocks of a query are put together by their log-sum-exps, as in blockwise attention (Liu et al., Ring
Attention, arXiv:2310.01889); given the merged result, each block's backward pass is that of plain attention.

Where oneDNN multiplies faster than MKL (outcrop/arithmetic.py), blocks are cut to a few sizes and computed by products of
whole tiles; what is left over, and everything elsewhere, goes through PyTorch's kernel, whose products are too small for
oneDNN and stay with MKL. Tiles took 0.5 of the kernel's time at 9 heads of 64, blocks of 256 (an EPYC of family 26).

Shape legend: T tokens, H heads, K key-value heads, D head width, R rows of a grid, L its longest row, q and s the queries
and keys of a tile, g the heads that share keys times q.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from outcrop.arithmetic import MKL, ONEDNN, in_use, multiplying_by
from outcrop.errors import Invalid
from outcrop.training import tiles
from outcrop.training.prefixes import Node

ATTENTION = "outcrop_trees"
# Short nodes of like length go into one call: a call costs as much as attention within about this many tokens
# (8 heads of 32, one thread of a Xeon: 60 us forward and backward).
SHORT = 128
# A grid takes nodes until its padding would exceed a fifth.
MOST_PADDING = 0.2
# A long node is cut into pieces of about this size, each an ancestor of the next: whole blocks run at 1.4 times the
# rate of causal ones (a Xeon with AVX-512, 9 heads of 64: 100 against 70 GFLOP/s).
PIECE = 352
# Or into pieces of exactly these sizes, for tiles.
TILES = (256, 128)
# The log-sum-exp of a padded query: its probabilities, exp(score - this), are nothing.
NOWHERE = 1e30

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Grid:
    """Short nodes of like length for one call.

    grid_RL   int64  place in T of each token; beyond a node's end some place, which no query that counts looks at
    inside_t  int64  places in the flattened grid that are tokens
    places_t  int64  where these lie in T
    """

    grid_RL: Tensor
    inside_t: Tensor
    places_t: Tensor


@dataclass(frozen=True)
class Block:
    """Queries T[first:last] see all of T[begin:end]."""

    first: int
    last: int
    begin: int
    end: int


class TreeAttention:
    """The attention of one microbatch: laid out once, used by every layer."""

    def __init__(self, nodes: Sequence[Node], num_tokens: int) -> None:
        self.nodes, self.num_tokens = list(nodes), num_tokens
        self._in_tiles = in_use() == ONEDNN
        self._block_masks: dict[int | None, BlockMask] = {}
        pieces = whole_tiles if self._in_tiles else near_pieces
        nodes = [piece for node in nodes for piece in pieces(node)]
        self._own = [(node.begin, node.end) for node in nodes if node.end - node.begin > SHORT]
        self._grids = lay_out([(node.begin, node.end) for node in nodes if node.end - node.begin <= SHORT])
        self._blocks = [Block(n.end, n.subtree_end, n.begin, n.end) for n in nodes if n.subtree_end > n.end]

    def from_first_use(self, places_U: Sequence[int]) -> "TreeAttention":
        """The same for a layer of whose results only those at `places_U` (rising) are used.

        Queries before a node's first used place are left out; what forward gives for them is undefined.
        """
        trimmed = TreeAttention([], self.num_tokens)
        used = sorted(places_U)
        asking: list[tuple[int, int]] = []
        position = 0
        for node in self.nodes:
            while position < len(used) and used[position] < node.begin:
                position += 1
            if position < len(used) and used[position] < node.end:
                asking.append((used[position], node.end))
                if used[position] > node.begin:
                    trimmed._blocks.append(Block(used[position], node.end, node.begin, used[position]))
        for node in self.nodes:
            if node.subtree_end > node.end:
                below = [(a, b) for a, b in asking if node.end <= a < node.subtree_end]
                trimmed._blocks += [Block(a, b, node.begin, node.end) for a, b in join(below)]
        trimmed._own = [(a, b) for a, b in asking if b - a > SHORT]
        trimmed._grids = lay_out([(a, b) for a, b in asking if b - a <= SHORT])
        return trimmed

    def pairs(self) -> int:
        """Query-key pairs that are computed, padding of grids left out: what attention costs."""
        own = sum((node.end - node.begin) ** 2 // 2 for node in self.nodes)
        return own + sum((b.last - b.first) * (b.end - b.begin) for b in self._blocks)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """[T, H, D], [T, K, D] twice -> the mixture [T, H, D] and the log-sum-exps [T, H], float32."""
        mixed = torch.empty(query.shape, dtype=query.dtype)
        sums = torch.empty(query.shape[:2], dtype=torch.float32)
        for begin, end in self._own:
            see = tiles.see if self._is_tile(end - begin) else _see
            mixed[begin:end], sums[begin:end] = see(
                query[begin:end], key[begin:end], value[begin:end], scale, is_causal=True
            )
        for grid in self._grids:
            part = [heads[grid.grid_RL].transpose(1, 2) for heads in (query, key, value)]
            with multiplying_by(MKL):
                some, their_sums = _forward(*part, 0.0, True, scale=scale)
            mixed[grid.places_t] = some.transpose(1, 2).flatten(0, 1)[grid.inside_t]
            sums[grid.places_t] = their_sums.transpose(1, 2).flatten(0, 1)[grid.inside_t]
        for first, last, block, is_tile in self._queries():
            seen = slice(block.begin, block.end)
            see = tiles.see if is_tile else _see
            some, their_sums = see(query[first:last], key[seen], value[seen], scale, is_causal=False)
            before = sums[first:last]
            both = torch.logaddexp(before, their_sums)
            share = torch.exp(their_sums - both)
            mixed[first:last].lerp_(some, share[..., None])
            before.copy_(both)
        return mixed, sums

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, sums: Tensor, scale: float,
        grads: tuple[Tensor, Tensor, Tensor],
    ) -> None:  # fmt: skip
        """Add the gradients of query, key and value to `grads`, given that of the mixture."""
        grad_query, grad_key, grad_value = grads

        def part(first: int, last: int, begin: int, end: int, is_causal: bool, is_tile: bool) -> None:
            back = tiles.see_back if is_tile else _see_back
            dq, dk, dv = back(
                grad[first:last], query[first:last], mixed[first:last], sums[first:last], key[begin:end], value[begin:end],
                scale, is_causal=is_causal,
            )  # fmt: skip
            grad_query[first:last] += dq
            grad_key[begin:end] += dk
            grad_value[begin:end] += dv

        for begin, end in self._own:
            part(begin, end, begin, end, True, self._is_tile(end - begin))
        for first, last, block, is_tile in self._queries():
            part(first, last, block.begin, block.end, False, is_tile)
        for grid in self._grids:
            some = [heads[grid.grid_RL].transpose(1, 2) for heads in (query, key, value)]
            rows, longest = grid.grid_RL.shape
            padded = grad.new_zeros(rows * longest, *grad.shape[1:])
            padded[grid.inside_t] = grad[grid.places_t]
            padded_sums = sums.new_full((rows * longest, sums.shape[1]), NOWHERE)
            padded_sums[grid.inside_t] = sums[grid.places_t]
            with multiplying_by(MKL):
                taken = _backward(
                    padded.view(rows, longest, *grad.shape[1:]).transpose(1, 2), *some,
                    mixed[grid.grid_RL].transpose(1, 2), padded_sums.view(rows, longest, -1).transpose(1, 2),
                    0.0, True, scale=scale,
                )  # fmt: skip
            for total, more in zip(grads, taken, strict=True):
                total[grid.places_t] += more.transpose(1, 2).flatten(0, 1)[grid.inside_t]

    def _is_tile(self, length: int) -> bool:
        return self._in_tiles and length in TILES

    def _queries(self) -> Iterator[tuple[int, int, Block, bool]]:
        """Every block with the queries, first and last + 1, that look at it at once; and whether that makes a tile."""
        for block in self._blocks:
            first = block.first
            if self._is_tile(block.end - block.begin):
                while block.last - first >= TILES[-1]:
                    size = next(size for size in TILES if size <= block.last - first)
                    yield first, first + size, block, True
                    first += size
            if first < block.last:
                yield first, block.last, block, False

    def mask(self, window: int | None = None) -> Tensor:
        """Who sees whom, bool [T, T]: place i sees j when j is no later and i lies in the subtree of j's node.

        With `window`, only that many positions back, its own among them.
        """
        places = torch.arange(self.num_tokens)
        seen: Tensor = self._sees(window, torch.device("cpu"))(None, None, places[:, None], places[None, :])
        return seen

    def block_mask(self, window: int | None, device: torch.device) -> BlockMask:
        """The same for flex attention: blocks in which nobody sees anything are not computed. Made once a window."""
        if window not in self._block_masks:
            sees = self._sees(window, device)
            self._block_masks[window] = create_block_mask(
                sees, None, None, self.num_tokens, self.num_tokens, device=str(device)
            )
        return self._block_masks[window]

    def _sees(self, window: int | None, device: torch.device) -> Callable[..., Tensor]:
        """Whether place q sees place k, as flex attention asks it: batch, head, q, k."""
        until, positions = (torch.empty(self.num_tokens, dtype=torch.int64) for _ in range(2))
        for node in self.nodes:
            until[node.begin : node.end] = node.subtree_end
            positions[node.begin : node.end] = torch.arange(node.position, node.position + node.end - node.begin)
        until, positions = until.to(device), positions.to(device)

        def sees(_batch: object, _head: object, q: Tensor, k: Tensor) -> Tensor:
            seen = (k <= q) & (q < until[k])
            return seen if window is None else seen & (positions[q] - positions[k] < window)

        return sees

    def longest_row(self) -> int:
        """Tokens of the longest way from a root to a leaf."""
        return max(node.position + node.end - node.begin for node in self.nodes)


def near_pieces(node: Node) -> Iterator[Node]:
    """A node, or what stands for it: a chain of shorter ones of like length."""
    size = node.end - node.begin
    number = -(-size // PIECE) if size > 1.5 * PIECE else 1
    length = -(-size // number)
    return _chain(node, range(node.begin, node.end, length))


def whole_tiles(node: Node) -> Iterator[Node]:
    """A node as a chain of tiles and what is left over."""
    begins = [node.begin]
    while (size := node.end - begins[-1]) > TILES[-1]:
        begins.append(begins[-1] + next(tile for tile in TILES if tile <= size))
    return _chain(node, begins if begins[-1] < node.end else begins[:-1])


def _chain(node: Node, begins: Sequence[int]) -> Iterator[Node]:
    for begin, end in zip(begins, [*begins[1:], node.end], strict=True):
        yield Node(begin, end, node.position + begin - node.begin, node.subtree_end)


def _see(query: Tensor, key: Tensor, value: Tensor, scale: float, *, is_causal: bool) -> tuple[Tensor, Tensor]:
    """PyTorch's kernel for one block: [q, H, D], [s, K, D] twice -> [q, H, D] and the log-sum-exps [q, H]."""
    with multiplying_by(MKL):
        heads = [part.transpose(0, 1)[None] for part in (query, key, value)]
        mixed, sums = _forward(*heads, 0.0, is_causal, scale=scale)
    return mixed[0].transpose(0, 1), sums[0].T


def _see_back(
    grad: Tensor, query: Tensor, mixed: Tensor, sums: Tensor, key: Tensor, value: Tensor, scale: float, *, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Its derivative: the gradients of query, key and value."""
    with multiplying_by(MKL):
        heads = [part.transpose(0, 1)[None] for part in (grad, query, key, value, mixed)]
        dq, dk, dv = _backward(*heads, sums.T[None], 0.0, is_causal, scale=scale)
    return dq[0].transpose(0, 1), dk[0].transpose(0, 1), dv[0].transpose(0, 1)


def lay_out(spans: Sequence[tuple[int, int]]) -> list[Grid]:
    """Spans of T in grids of like length."""
    order = sorted(spans, key=lambda span: span[1] - span[0])
    grids: list[Grid] = []
    first = 0
    while first < len(order):
        last, real = first, 0
        while last < len(order):
            longest = order[last][1] - order[last][0]
            if longest * (last - first + 1) > (real + longest) / (1 - MOST_PADDING):
                break
            real, last = real + longest, last + 1
        begins = torch.tensor([begin for begin, _ in order[first:last]])
        ends = torch.tensor([end for _, end in order[first:last]])
        grid_RL = begins[:, None] + torch.arange(int((ends - begins).max()))
        inside = (grid_RL < ends[:, None]).flatten().nonzero().squeeze(1)
        grid_RL = torch.minimum(grid_RL, ends[:, None] - 1)
        grids.append(Grid(grid_RL, inside, grid_RL.flatten()[inside]))
        first = last
    return grids


def join(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in rising order, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined


class _Attend(torch.autograd.Function):
    """The blocks for autograd."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: TreeAttention, scale: float) -> Tensor:
        mixed, sums = layout.forward(query, key, value, scale)
        ctx.save_for_backward(query, key, value, mixed, sums)
        ctx.layout, ctx.scale = layout, scale
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mixed, sums = ctx.saved_tensors
        grads = (torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value))
        ctx.layout.backward(grad.contiguous(), query, key, value, mixed, sums, ctx.scale, grads)
        return *grads, None, None


_now: ContextVar[TreeAttention] = ContextVar("the layout of the pass under way")


@contextmanager
def laid_out(trees: TreeAttention) -> Iterator[None]:
    """Within the block models attend as laid out. A context, because not every model hands arguments on to attention."""
    token = _now.set(trees)
    try:
        yield
    finally:
        _now.reset(token)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None,
    s_aux: Tensor | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' attention interface: query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D].

    In blocks on the CPU, by flex attention on GPUs. With a mask of T x T on the CPU, which computes what it then hides, for
    models that soft-cap their scores, and where a row is longer than the layer's sliding window.
    """
    if s_aux is not None:
        raise Invalid(
            "this base model's attention has sinks (GPT-OSS), which are not trained here; choose another base"
        )
    trees = _now.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window is not None and sliding_window < trees.longest_row() else None
    if softcap is None and window is None and query.device.type == "cpu":
        heads = [part[0].transpose(0, 1) for part in (query, key, value)]
        mixed_THD: Tensor = _Attend.apply(*heads, trees, scale)  # type: ignore[no-untyped-call]
        return mixed_THD[None], None
    grouped = query.shape[1] != key.shape[1]
    if query.device.type == "cuda":
        mixed = _flex()(
            query, key, value, score_mod=_capped(softcap), block_mask=trees.block_mask(window, query.device), scale=scale,
            enable_gqa=grouped,
        )  # fmt: skip
        return mixed.transpose(1, 2), None
    mask = trees.mask(window)
    if softcap is None:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    else:
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scale
        scores = (torch.tanh(scores / softcap) * softcap).masked_fill(~mask, float("-inf"))
        mixed = scores.softmax(-1) @ value.repeat_interleave(groups, 1)
    return mixed.transpose(1, 2), None


@cache
def _flex() -> Any:
    """Flex attention, compiled: without that it computes all pairs."""
    return torch.compile(flex_attention, dynamic=True)


def _capped(softcap: float | None) -> Callable[..., Tensor] | None:
    def cap(score: Tensor, *_: Tensor) -> Tensor:
        assert softcap is not None
        return torch.tanh(score / softcap) * softcap

    return None if softcap is None else cap


AttentionInterface.register(ATTENTION, attend)
