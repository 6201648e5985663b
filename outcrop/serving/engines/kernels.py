"""What decoding does to a few rows at a time, compiled for the processor at hand (Numba).

A decoding step reads every weight once for a few tokens, so it can go no faster than memory. PyTorch's products of one
row reach half of that (an EPYC of family 26, one thread, the shape of a 135 M model: 19 to 24 of 44 GB/s; here 37), and its
small operations cost more to call than to do. Rows of a batch may belong to different adapters and sit at different
places of different sequences; every kernel takes them as they come.

Shape legend: T rows, I inputs, O outputs, W width, H query heads, K key-value heads, N heads of
all three kinds, D head width, P pages, C places of a page, S sequences, F the MLP's width, R rows of rank in a pool of
adapters.
"""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = np.ndarray[Any, Any]

# Outputs that a product makes before it goes on to the next weights: two register tiles of 4 rows x 6 outputs (24 sums and
# 8 operands fit the 32 vector registers of AVX-512; AVX2, with 16, is no slower than with 4 x 4), or three of up to 2 x 4.
OUTPUTS = 12
# Products of more rows are PyTorch's: a matrix product that packs its operands is then faster.
FEW_ROWS = 16

_threads = 1


def use_threads(threads: int) -> None:
    """From now on kernels that are large enough run on so many threads."""
    global _threads
    config: Any = numba.config
    _threads = min(threads, config.NUMBA_NUM_THREADS)
    if _threads > 1:
        # Numba's own threads cost 80 us a call, OpenMP's 2.
        config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
        numba.set_num_threads(_threads)


def product(x_TI: Array, weight_OI: Array, out_TO: Array) -> None:
    """out = x weight^T."""
    if _threads == 1:
        _product(x_TI, weight_OI, out_TO)
    else:
        _product_by_threads(x_TI, weight_OI, out_TO, _threads)


def product_int8(x_I: Array, weight_OI: Array, scale_O: Array, out_O: Array) -> None:
    """out = x (scale weight)^T for one row; `weight` is int8."""
    if _threads == 1:
        _product_int8(x_I, weight_OI, scale_O, out_O)
    else:
        _product_int8_by_threads(x_I, weight_OI, scale_O, out_O, _threads)


def attend(
    query_TND: Array, keys_PKCD: Array, values_PKCD: Array, tables_SP: Array, sequence_T: Array, position_T: Array,
    scale: float, window: int, softcap: float, sinks_H: Array, out_THD: Array,
) -> None:  # fmt: skip
    """Each row's attention over its sequence's pages, up to its own position; the first H heads of `query` ask.

    `window` 0 sees everything; `softcap` 0 caps nothing; `sinks` is empty or one score a head.
    """
    arguments = (
        query_TND, keys_PKCD, values_PKCD, tables_SP, sequence_T, position_T, np.float32(scale), window,
        np.float32(softcap), sinks_H, out_THD,
    )  # fmt: skip
    if _threads == 1 or len(query_TND) == 1:
        _attend(*arguments)
    else:
        _attend_by_threads(*arguments)


@njit(fastmath=True, cache=True)
def _product(x: Array, weight: Array, out: Array) -> None:
    rows = len(x)
    fours, pairs, whole = rows - rows % 4, rows - rows % 2, len(weight) - len(weight) % OUTPUTS
    for o in range(0, whole, OUTPUTS):
        for t in range(0, fours, 4):
            _tile(x, weight, out, t, o)
            _tile(x, weight, out, t, o + 6)
        if fours < pairs:
            for part in range(o, o + OUTPUTS, 4):
                _pair(x, weight, out, fours, part)
        if pairs < rows:
            for part in range(o, o + OUTPUTS, 4):
                _row(x, weight, out, pairs, part)
    for o in range(whole, len(weight)):
        for t in range(rows):
            total = np.float32(0)
            for i in range(weight.shape[1]):
                total += weight[o, i] * x[t, i]
            out[t, o] = total


@njit(fastmath=True, cache=True, inline="always")
def _tile(x: Array, weight: Array, out: Array, t: int, o: int) -> None:
    zero = np.float32(0)
    s00, s01, s02, s03, s04, s05 = zero, zero, zero, zero, zero, zero
    s10, s11, s12, s13, s14, s15 = zero, zero, zero, zero, zero, zero
    s20, s21, s22, s23, s24, s25 = zero, zero, zero, zero, zero, zero
    s30, s31, s32, s33, s34, s35 = zero, zero, zero, zero, zero, zero
    for i in range(weight.shape[1]):
        w0, w1, w2 = weight[o, i], weight[o + 1, i], weight[o + 2, i]
        w3, w4, w5 = weight[o + 3, i], weight[o + 4, i], weight[o + 5, i]
        x0, x1, x2, x3 = x[t, i], x[t + 1, i], x[t + 2, i], x[t + 3, i]
        s00 += x0 * w0
        s01 += x0 * w1
        s02 += x0 * w2
        s03 += x0 * w3
        s04 += x0 * w4
        s05 += x0 * w5
        s10 += x1 * w0
        s11 += x1 * w1
        s12 += x1 * w2
        s13 += x1 * w3
        s14 += x1 * w4
        s15 += x1 * w5
        s20 += x2 * w0
        s21 += x2 * w1
        s22 += x2 * w2
        s23 += x2 * w3
        s24 += x2 * w4
        s25 += x2 * w5
        s30 += x3 * w0
        s31 += x3 * w1
        s32 += x3 * w2
        s33 += x3 * w3
        s34 += x3 * w4
        s35 += x3 * w5
    row0 = out[t, o : o + 6]
    row1 = out[t + 1, o : o + 6]
    row2 = out[t + 2, o : o + 6]
    row3 = out[t + 3, o : o + 6]
    row0[0], row0[1], row0[2], row0[3], row0[4], row0[5] = s00, s01, s02, s03, s04, s05
    row1[0], row1[1], row1[2], row1[3], row1[4], row1[5] = s10, s11, s12, s13, s14, s15
    row2[0], row2[1], row2[2], row2[3], row2[4], row2[5] = s20, s21, s22, s23, s24, s25
    row3[0], row3[1], row3[2], row3[3], row3[4], row3[5] = s30, s31, s32, s33, s34, s35


@njit(fastmath=True, cache=True, inline="always")
def _pair(x: Array, weight: Array, out: Array, t: int, o: int) -> None:
    zero = np.float32(0)
    s00, s01, s02, s03 = zero, zero, zero, zero
    s10, s11, s12, s13 = zero, zero, zero, zero
    for i in range(weight.shape[1]):
        w0, w1, w2, w3 = weight[o, i], weight[o + 1, i], weight[o + 2, i], weight[o + 3, i]
        x0, x1 = x[t, i], x[t + 1, i]
        s00 += x0 * w0
        s01 += x0 * w1
        s02 += x0 * w2
        s03 += x0 * w3
        s10 += x1 * w0
        s11 += x1 * w1
        s12 += x1 * w2
        s13 += x1 * w3
    out[t, o], out[t, o + 1], out[t, o + 2], out[t, o + 3] = s00, s01, s02, s03
    out[t + 1, o], out[t + 1, o + 1], out[t + 1, o + 2], out[t + 1, o + 3] = s10, s11, s12, s13


@njit(fastmath=True, cache=True, inline="always")
def _row(x: Array, weight: Array, out: Array, t: int, o: int) -> None:
    s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(weight.shape[1]):
        s0 += x[t, i] * weight[o, i]
        s1 += x[t, i] * weight[o + 1, i]
        s2 += x[t, i] * weight[o + 2, i]
        s3 += x[t, i] * weight[o + 3, i]
    out[t, o], out[t, o + 1] = s0, s1
    out[t, o + 2], out[t, o + 3] = s2, s3


@njit(cache=True, parallel=True)
def _product_by_threads(x: Array, weight: Array, out: Array, threads: int) -> None:
    tiles = len(weight) // OUTPUTS
    for part in prange(threads):
        begin = part * tiles // threads * OUTPUTS
        end = len(weight) if part == threads - 1 else (part + 1) * tiles // threads * OUTPUTS
        _product(x, weight[begin:end], out[:, begin:end])


@njit(fastmath=True, cache=True)
def _product_int8(x: Array, weight: Array, scale: Array, out: Array) -> None:
    for o in range(len(weight)):  # several outputs at a time, as above, are slower here
        total = np.float32(0)
        for i in range(len(x)):
            total += x[i] * np.float32(weight[o, i])
        out[o] = total * scale[o]


@njit(cache=True, parallel=True)
def _product_int8_by_threads(x: Array, weight: Array, scale: Array, out: Array, threads: int) -> None:
    for part in prange(threads):
        begin, end = part * len(weight) // threads, (part + 1) * len(weight) // threads
        _product_int8(x, weight[begin:end], scale[begin:end], out[begin:end])


@njit(fastmath=True, cache=True, inline="always")
def _exp_in_place(x: Array, bits: Array, powers: Array, length: int) -> None:
    """x <- e^x for x <= 88, to 2 units in the last place; `powers` is `bits` seen as float32.

    2^n is written as the bits of a float; 2^f, |f| <= 1/2, is its Taylor series to the sixth power (error 1e-7).
    """
    for c in range(length):
        exponent = max(x[c] * np.float32(1.4426950408889634), np.float32(-126.0))
        whole = np.floor(exponent + np.float32(0.5))
        bits[c] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        f = (exponent - whole) * np.float32(0.6931471805599453)
        p = np.float32(1 / 720)
        p = p * f + np.float32(1 / 120)
        p = p * f + np.float32(1 / 24)
        p = p * f + np.float32(1 / 6)
        p = p * f + np.float32(0.5)
        p = p * f + np.float32(1.0)
        x[c] = p * f + np.float32(1.0)
    for c in range(length):
        x[c] *= powers[c]


@njit(fastmath=True, cache=True)
def _attend(
    query: Array, keys: Array, values: Array, tables: Array, sequences: Array, positions: Array, scale: Any,
    window: int, softcap: Any, sinks: Array, out: Array,
) -> None:  # fmt: skip
    for t in range(len(query)):
        _attend_row(
            query[t], keys, values, tables[sequences[t]], positions[t], scale, window, softcap, sinks, out[t]
        )  # fmt: skip


@njit(fastmath=True, cache=True, parallel=True)
def _attend_by_threads(
    query: Array, keys: Array, values: Array, tables: Array, sequences: Array, positions: Array, scale: Any,
    window: int, softcap: Any, sinks: Array, out: Array,
) -> None:  # fmt: skip
    for t in prange(len(query)):
        _attend_row(
            query[t], keys, values, tables[sequences[t]], positions[t], scale, window, softcap, sinks, out[t]
        )  # fmt: skip


@njit(fastmath=True, cache=True, inline="always")
def _scores(q: Array, keys: Array, low: int, high: int, scale: Any, row: Array, at: int) -> None:
    """row[at:] = scale * q keys^T for the places from `low` to `high` of a page, four at a time."""
    c = low
    while c + 4 <= high:
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for d in range(keys.shape[1]):
            s0 += q[d] * keys[c, d]
            s1 += q[d] * keys[c + 1, d]
            s2 += q[d] * keys[c + 2, d]
            s3 += q[d] * keys[c + 3, d]
        place = at + c - low
        row[place], row[place + 1], row[place + 2], row[place + 3] = s0 * scale, s1 * scale, s2 * scale, s3 * scale
        c += 4
    while c < high:
        total = np.float32(0)
        for d in range(keys.shape[1]):
            total += q[d] * keys[c, d]
        row[at + c - low] = total * scale
        c += 1


@njit(fastmath=True, cache=True, inline="always")
def _mix(row: Array, at: int, values: Array, low: int, high: int, mixed: Array) -> None:
    """mixed += row[at:] values for the places from `low` to `high` of a page, eight at a time."""
    c = low
    while c + 8 <= high:
        p = at + c - low
        w0, w1, w2, w3, w4, w5, w6, w7 = (
            row[p], row[p + 1], row[p + 2], row[p + 3], row[p + 4], row[p + 5], row[p + 6], row[p + 7],
        )  # fmt: skip
        for d in range(values.shape[1]):
            mixed[d] += (
                w0 * values[c, d] + w1 * values[c + 1, d] + w2 * values[c + 2, d] + w3 * values[c + 3, d]
                + w4 * values[c + 4, d] + w5 * values[c + 5, d] + w6 * values[c + 6, d] + w7 * values[c + 7, d]
            )  # fmt: skip
        c += 8
    while c < high:
        weight = row[at + c - low]
        for d in range(values.shape[1]):
            mixed[d] += weight * values[c, d]
        c += 1


@intrinsic
def _prefetch(context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an array's element, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(view.data, [arguments[1]]), ir.PointerType(ir.IntType(8)))
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        insert: Any = cgutils.get_or_insert_function
        function = insert(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@njit(cache=True, inline="always")
def _fetch(numbers: Array, begin: int, end: int) -> None:
    """Have a span of float32 numbers brought into the cache."""
    for i in range(begin, end, 16):
        _prefetch(numbers, i)  # type: ignore[call-arg]


@njit(fastmath=True, cache=True)
def _attend_row(
    query: Array, keys: Array, values: Array, table: Array, position: int, scale: Any, window: int, softcap: Any,
    sinks: Array, out: Array,
) -> None:  # fmt: skip
    heads, kv_heads, page_size = out.shape[0], keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    begin = max(0, position + 1 - window) if window > 0 else 0
    first, last = begin // page_size, position // page_size
    scores = np.empty((heads, (last - first + 1) * page_size), np.float32)
    bits = np.empty(scores.shape[1], np.int32)
    powers = bits.view(np.float32)
    length = position + 1 - begin
    for page in range(first, last + 1):  # in the order of memory: what is read next is then already on its way
        low, high = max(begin, page * page_size), min(position + 1, (page + 1) * page_size)
        ahead = keys[table[min(page + 1, last)]].reshape(-1)
        for h in range(heads):
            _fetch(ahead, h * len(ahead) // heads, (h + 1) * len(ahead) // heads)
            block = keys[table[page], h // group]
            _scores(query[h], block, low - page * page_size, high - page * page_size, scale, scores[h], low - begin)
    for h in range(heads):
        row = scores[h]
        if softcap > 0:
            for c in range(length):
                row[c] = np.float32(math.tanh(row[c] / softcap)) * softcap
        most = sinks[h] if len(sinks) else row[0]
        for c in range(length):
            most = max(most, row[c])
        for c in range(length):
            row[c] -= most
        _exp_in_place(row, bits, powers, length)
        total = np.float32(math.exp(sinks[h] - most)) if len(sinks) else np.float32(0)
        for c in range(length):
            total += row[c]
        share = np.float32(1) / total
        for c in range(length):
            row[c] *= share
    out[:] = np.float32(0)
    for page in range(first, last + 1):
        low, high = max(begin, page * page_size), min(position + 1, (page + 1) * page_size)
        ahead = values[table[min(page + 1, last)]].reshape(-1)
        for h in range(heads):
            _fetch(ahead, h * len(ahead) // heads, (h + 1) * len(ahead) // heads)
            block = values[table[page], h // group]
            _mix(scores[h], low - begin, block, low - page * page_size, high - page * page_size, out[h])


@njit(fastmath=True, cache=True)
def add_and_norm(x_TW: Array, more_TW: Array, weight_W: Array, eps: float, out_TW: Array) -> None:
    """x += more; out = x / rms(x) * weight (Zhang and Sennrich, arXiv:1910.07467)."""
    width = x_TW.shape[1]
    for t in range(len(x_TW)):
        squares = np.float32(0)
        for w in range(width):
            x_TW[t, w] += more_TW[t, w]
            squares += x_TW[t, w] * x_TW[t, w]
        rate = np.float32(1 / math.sqrt(squares / width + eps))
        for w in range(width):
            out_TW[t, w] = x_TW[t, w] * rate * weight_W[w]


@njit(fastmath=True, cache=True)
def norm_heads(heads_TND: Array, begin: int, end: int, weight_D: Array, eps: float) -> None:
    """Each head / rms(head) * weight, in place, for the heads from `begin` to `end`."""
    width = heads_TND.shape[2]
    for t in range(len(heads_TND)):
        for n in range(begin, end):
            squares = np.float32(0)
            for d in range(width):
                squares += heads_TND[t, n, d] * heads_TND[t, n, d]
            rate = np.float32(1 / math.sqrt(squares / width + eps))
            for d in range(width):
                heads_TND[t, n, d] *= rate * weight_D[d]


@njit(fastmath=True, cache=True)
def turn(heads_TND: Array, count: int, cos_CD: Array, sin_CD: Array, position_T: Array) -> None:
    """Rotary positions (Su et al., arXiv:2104.09864) of the first heads in place, halves against each other."""
    half = heads_TND.shape[2] // 2
    for t in range(len(heads_TND)):
        cos, sin = cos_CD[position_T[t]], sin_CD[position_T[t]]
        for n in range(count):
            head = heads_TND[t, n]
            for d in range(half):
                left, right = head[d], head[d + half]
                head[d] = left * cos[d] - right * sin[d]
                head[d + half] = right * cos[d + half] + left * sin[d + half]


@njit(cache=True)
def store(
    heads_TND: Array, begin: int, pages_PKCD: Array, tables_SP: Array, sequence_T: Array, position_T: Array
) -> None:
    """Put each row's keys, or values, which are its heads from `begin`, where its position lies in its pages."""
    kv_heads, page_size, width = pages_PKCD.shape[1], pages_PKCD.shape[2], pages_PKCD.shape[3]
    for k in range(kv_heads):
        for t in range(len(heads_TND)):
            page, place = tables_SP[sequence_T[t], position_T[t] // page_size], position_T[t] % page_size
            for d in range(width):
                pages_PKCD[page, k, place, d] = heads_TND[t, begin + k, d]


@njit(fastmath=True, cache=True)
def gate(gate_up_TF: Array, out_TF: Array) -> None:
    """silu(gate) * up, where each row holds the gate's half before the other."""
    width = out_TF.shape[1]
    bits = np.empty(width, np.int32)
    powers = bits.view(np.float32)
    for t in range(len(out_TF)):
        opened, both = out_TF[t], gate_up_TF[t]
        for f in range(width):
            opened[f] = max(min(-both[f], np.float32(88)), np.float32(-87))
        _exp_in_place(opened, bits, powers, width)
        for f in range(width):
            opened[f] = both[f] / (np.float32(1) + opened[f]) * both[width + f]


@njit(fastmath=True, cache=True)
def round_rows(x_TI: Array, out_TI: Array, scale_T: Array) -> None:
    """Each row as whole numbers from -127 to 127, times its scale."""
    for t in range(len(x_TI)):
        row, rounded = x_TI[t], out_TI[t]
        most = np.float32(1e-30)
        for i in range(len(row)):
            most = max(most, abs(row[i]))
        rate = np.float32(127) / most
        for i in range(len(row)):
            rounded[i] = np.floor(row[i] * rate + np.float32(0.5))
        scale_T[t] = most / np.float32(127)


def add_low_rank(
    x_TI: Array, A_RI: Array, B_RO: Array, begin_T: Array, rank_T: Array, out_TN: Array, column: int
) -> None:
    """out[:, column:] += x A^T B for each row, with those rows of the pool that are its adapter's; rank 0 is none."""
    if _threads == 1 or len(x_TI) == 1:
        _add_low_rank(x_TI, A_RI, B_RO, begin_T, rank_T, out_TN, column)
    else:
        _add_low_rank_by_threads(x_TI, A_RI, B_RO, begin_T, rank_T, out_TN, column)


@njit(fastmath=True, cache=True)
def _add_low_rank(x: Array, A: Array, B: Array, begins: Array, ranks: Array, out: Array, column: int) -> None:
    for t in range(len(x)):
        _add_low_rank_row(x[t], A, B, begins[t], ranks[t], out[t], column)


@njit(fastmath=True, cache=True, parallel=True)
def _add_low_rank_by_threads(
    x: Array, A: Array, B: Array, begins: Array, ranks: Array, out: Array, column: int
) -> None:
    for t in prange(len(x)):
        _add_low_rank_row(x[t], A, B, begins[t], ranks[t], out[t], column)


@njit(fastmath=True, cache=True)
def _add_low_rank_row(x: Array, A: Array, B: Array, begin: int, rank: int, out: Array, column: int) -> None:
    r, end = begin, begin + rank
    while r + 4 <= end:
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for i in range(len(x)):
            s0 += x[i] * A[r, i]
            s1 += x[i] * A[r + 1, i]
            s2 += x[i] * A[r + 2, i]
            s3 += x[i] * A[r + 3, i]
        for o in range(B.shape[1]):
            out[column + o] += s0 * B[r, o] + s1 * B[r + 1, o] + s2 * B[r + 2, o] + s3 * B[r + 3, o]
        r += 4
    while r < end:
        lowered = np.float32(0)
        for i in range(len(x)):
            lowered += x[i] * A[r, i]
        for o in range(B.shape[1]):
            out[column + o] += lowered * B[r, o]
        r += 1
