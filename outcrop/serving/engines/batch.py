"""What one pass computes: rows of several sequences laid end to end, and their attention over the cache.

Shape legend: T rows, S sequences, P pages of a sequence, N heads of all three kinds (H query heads, then K key heads,
then K value heads), D head width, C places in the cache.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from outcrop import arithmetic
from outcrop.serving.engines import kernels
from outcrop.serving.engines.adapters import AdapterRows, Place
from outcrop.serving.engines.pages import PLACES, Line, Pages

Array = np.ndarray[Any, Any]

# Rows of one sequence from which PyTorch's attention, which works on blocks of queries, is faster than the kernel.
BLOCKWISE_ROWS = 32
# Rows from which it is faster still by the faster library's products; their number is then rounded up to a multiple.
ROUNDED_ROWS, ROUND = 256, 64
NO_SINKS = np.empty(0, np.float32)


@dataclass(frozen=True)
class Part:
    """The next `count` tokens of a line; `is_wanted` if the last one's logits are."""

    line: Line
    count: int
    place: Place | None
    is_wanted: bool = True


class Batch:
    """Parts laid end to end. The pages for them are there."""

    def __init__(self, parts: list[Part]) -> None:
        self.spans: list[tuple[int, int, int]] = []
        """Begin and end in T of each part, and the place in its sequence at which it begins."""
        begin = 0
        for part in parts:
            self.spans.append((begin, begin + part.count, part.line.length))
            begin += part.count
        firsts = [part.line.length for part in parts]
        self.tokens_T = np.concatenate(
            [part.line.tokens[at : at + part.count] for part, at in zip(parts, firsts, strict=True)]
        ).astype(np.int64)
        self.position_T = np.concatenate(
            [np.arange(at, at + part.count) for part, at in zip(parts, firsts, strict=True)]
        )
        self.sequence_T = np.repeat(np.arange(len(parts)), [part.count for part in parts])
        self.tables_SP = np.zeros((len(parts), max(len(part.line.pages) for part in parts)), np.int64)
        for row, part in enumerate(parts):
            self.tables_SP[row, : len(part.line.pages)] = part.line.pages
        self.adapters = AdapterRows([part.place for part in parts for _ in range(part.count)])
        self.wanted_U = np.array(
            [end - 1 for (_, end, _), part in zip(self.spans, parts, strict=True) if part.is_wanted], np.int64
        )

    def __len__(self) -> int:
        return len(self.tokens_T)


@dataclass(frozen=True)
class Attention:
    """What an architecture does with attention scores: scale them, look back so far only (0: without end), cap them
    (Gemma 2; 0: no cap), let some of the attention go to a sink, one score a head (GPT-OSS)."""

    scale: float
    window: int = 0
    softcap: float = 0.0
    sinks_H: Array = field(default_factory=lambda: NO_SINKS)

    def __call__(self, batch: Batch, pages: Pages, layer: int, heads_TND: Array, heads: int) -> Array:
        """Keeps the keys and values, then mixes: [T, H, D]."""
        kv_heads, width = (heads_TND.shape[1] - heads) // 2, heads_TND.shape[2]
        keys, values = pages.layer(layer, kv_heads, width, width)
        where = batch.tables_SP, batch.sequence_T, batch.position_T
        kernels.store(heads_TND, heads, keys, *where)
        kernels.store(heads_TND, heads + kv_heads, values, *where)
        out_THD = np.empty((len(heads_TND), heads, width), np.float32)
        is_plain = self.softcap == 0 and not len(self.sinks_H)
        begin = 0  # of the rows in a line that the kernel takes
        for sequence, (first, last, past) in enumerate(batch.spans):
            if is_plain and last - first >= BLOCKWISE_ROWS:
                self._by_kernel(slice(begin, first), batch, keys, values, heads_TND, out_THD)
                table = batch.tables_SP[sequence]
                self._blockwise(heads_TND[first:last], heads, past, table, keys, values, out_THD[first:last])
                begin = last
        self._by_kernel(slice(begin, len(heads_TND)), batch, keys, values, heads_TND, out_THD)
        return out_THD

    def _by_kernel(
        self, rows: slice, batch: Batch, keys: Array, values: Array, heads_TND: Array, out_THD: Array
    ) -> None:
        if rows.start < rows.stop:
            kernels.attend(
                heads_TND[rows], keys, values, batch.tables_SP, batch.sequence_T[rows], batch.position_T[rows],
                self.scale, self.window, self.softcap, self.sinks_H, out_THD[rows],
            )  # fmt: skip

    def _blockwise(
        self, heads_TND: Array, heads: int, past: int, table_P: Array, keys: Array, values: Array, out_THD: Array
    ) -> None:
        rows, count, width = heads_TND.shape
        kv_heads = (count - heads) // 2
        if past:
            used = table_P[: -(-(past + rows) // PLACES)]
            key, value = (
                torch.from_numpy(kept[used].transpose(1, 0, 2, 3).reshape(kv_heads, -1, width))
                for kept in (keys, values)
            )
            key, value = key[:, : past + rows], value[:, : past + rows]
        else:
            split = torch.from_numpy(heads_TND[:, heads:]).transpose(0, 1)
            key, value = split[:kv_heads], split[kv_heads:]
        query = torch.from_numpy(heads_TND[:, :heads]).transpose(0, 1)
        library = arithmetic.MKL
        missing = 0
        if rows >= ROUNDED_ROWS and arithmetic.fastest() != arithmetic.MKL:
            library, missing = arithmetic.fastest(), -rows % ROUND
            query, key, value = (F.pad(one, (0, 0, 0, missing)) for one in (query, key, value))
        seen = None
        if past or (self.window and rows > self.window):
            back_TC = past + torch.arange(rows + missing)[:, None] - torch.arange(past + rows + missing)
            seen = (back_TC >= 0) & (back_TC < (self.window or past + rows + missing))
        with arithmetic.multiplying_by(library):
            mixed = F.scaled_dot_product_attention(
                query[None], key[None], value[None], attn_mask=seen, is_causal=seen is None, scale=self.scale,
                enable_gqa=heads != kv_heads,
            )  # fmt: skip
        torch.from_numpy(out_THD).copy_(mixed[0, :, :rows].transpose(0, 1))
