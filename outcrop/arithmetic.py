"""How float32 matrices are multiplied on this processor.

PyTorch gives float32 products to MKL. When it is told that less precision will do, it gives them to oneDNN, which then
uses bfloat16 only on processors with tiles for it (AMX); on all others it multiplies in float32, too, by other code. On
AMD's processors with AVX-512 that code has twice MKL's rate (an EPYC of family 26, one thread, 900 x 576 x 1536: 235
against 105 GFLOP/s, both within 6e-7 of the exact product). What the model's config calls its number format plays no
part.

oneDNN makes code for each shape of matrix and keeps it, about half a megabyte a shape (torch 2.13), and batches of
tokens come in every shape. So rows go to it in pieces of a few sizes, and what is left over goes to MKL; a product in
pieces takes as long as one at once.

Shape legend: t rows (tokens), I inputs, O outputs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

MKL, ONEDNN = "mkl", "onednn"
_ASKED_AS = {MKL: "highest", ONEDNN: "medium"}
# oneDNN is taken when it is faster by this factor: far enough from 1 that the choice does not change from run to run.
WORTH = 1.5
# Relative error of a product that still counts as float32.
FLOAT32_ERROR = 2e-6
ROWS, INPUTS, OUTPUTS = 512, 512, 1024
PIECES = (2048, 1024, 512, 256, 128, 64)


def use(library: str) -> None:
    """From now on this process multiplies by that library, MKL or ONEDNN."""
    torch.set_float32_matmul_precision(_ASKED_AS[library])


def in_use() -> str:
    """The library that multiplies now."""
    asked = torch.get_float32_matmul_precision()
    return next(library for library, name in _ASKED_AS.items() if name == asked)


@contextmanager
def multiplying_by(library: str) -> Iterator[None]:
    """Within the block this process multiplies by that library."""
    before = in_use()
    use(library)
    try:
        yield
    finally:
        use(before)


def pieces(rows: int) -> Iterator[tuple[int, int]]:
    """Spans of the sizes in PIECES that cover all rows but the last few."""
    begin = 0
    for size in PIECES:
        while rows - begin >= size:
            yield begin, begin + size
            begin += size


def product(x_tI: Tensor, weight_IO: Tensor, out: Tensor | None = None) -> Tensor:
    """x weight [t, O], into `out` if it is given; no gradients."""
    if in_use() == MKL or len(x_tI) < PIECES[-1]:
        return _product_by_mkl(x_tI, weight_IO, out)
    made = x_tI.new_empty(len(x_tI), weight_IO.shape[1]) if out is None else out
    end = 0
    for begin, end in pieces(len(x_tI)):
        torch.mm(x_tI[begin:end], weight_IO, out=made[begin:end])
    if end < len(x_tI):
        _product_by_mkl(x_tI[end:], weight_IO, made[end:])
    return made


def add_outer_product(total_OI: Tensor, y_tO: Tensor, x_tI: Tensor, scale: float = 1.0) -> None:
    """total += scale * y^T x, summed over the rows; no gradients."""
    end = 0
    if in_use() == ONEDNN:
        for begin, end in pieces(len(x_tI)):
            total_OI.addmm_(y_tO[begin:end].T, x_tI[begin:end], alpha=scale)
    if end < len(x_tI):
        with multiplying_by(MKL):
            total_OI.addmm_(y_tO[end:].T, x_tI[end:], alpha=scale)


@multiplying_by(MKL)
def _product_by_mkl(x_tI: Tensor, weight_IO: Tensor, out: Tensor | None) -> Tensor:
    return torch.mm(x_tI, weight_IO) if out is None else torch.mm(x_tI, weight_IO, out=out)


@cache
def fastest() -> str:
    """The faster library of those whose products are right to float32's last bits; measured once, in about 50 ms.

    By the shortest of several times on one thread, which other work on the machine changes least.
    """
    if not is_float32(ONEDNN):
        return MKL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x_RI, weight_OI = _sample()
    seconds: dict[str, list[float]] = {MKL: [], ONEDNN: []}
    for _ in range(9):
        for library, took in seconds.items():
            with multiplying_by(library):
                began = time.perf_counter()
                torch.mm(x_RI, weight_OI.T)
                took.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return ONEDNN if min(seconds[MKL]) > WORTH * min(seconds[ONEDNN]) else MKL


def is_float32(library: str) -> bool:
    """Whether a product by this library is as exact as float32 allows."""
    x_RI, weight_OI = _sample()
    exact_RO = x_RI.double() @ weight_OI.double().T
    with multiplying_by(library):
        error = (torch.mm(x_RI, weight_OI.T) - exact_RO).norm() / exact_RO.norm()
    return float(error) <= FLOAT32_ERROR


def _sample() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, INPUTS, generator=generator), torch.randn(OUTPUTS, INPUTS, generator=generator)
