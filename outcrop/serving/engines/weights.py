"""A base model's matrices, as they are kept and multiplied: float32, or int8 with a scale for each output.

int8 keeps a quarter of the bytes, which is what decoding waits for, and multiplies several times faster. Weights are rounded
once (the largest of an output's weights becomes 127), the inputs of a product row by row. Whole numbers add up exactly in
float32 as in integers, so one row and many, which take different ways here, multiply to the same; only what float32's
last bits do to a rounding is left to chance.

Shape legend: T rows, I inputs, O outputs.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from outcrop import arithmetic
from outcrop.serving.engines import kernels

Array = np.ndarray[Any, Any]

# Rows of a product that PyTorch makes are filled up to one of these, because oneDNN keeps code for each number of rows.
ROUNDED = (16, 24, 32, 48, 64)


class Matrix:
    """A linear layer's weights [O, I] in float32."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self._weight_OI = weight_OI.contiguous().numpy()
        self._bias_O = None if bias_O is None else bias_O.float().numpy()
        self.sizes = (weight_OI.shape[0], weight_OI.shape[1])

    def product(self, x_TI: Array) -> Array:
        """x weight^T + bias, [T, O]; `x` is contiguous."""
        out_TO = np.empty((len(x_TI), self.sizes[0]), np.float32)
        self._multiply(x_TI, out_TO)
        if self._bias_O is not None:
            out_TO += self._bias_O
        return out_TO

    def rows(self, indices_T: Array) -> Array:
        """Rows of the matrix: an embedding's look-up."""
        chosen: Array = self._weight_OI[indices_T]
        return chosen

    def _multiply(self, x_TI: Array, out_TO: Array) -> None:
        if len(x_TI) <= kernels.FEW_ROWS:
            kernels.product(x_TI, self._weight_OI, out_TO)
        else:
            _multiply_many(x_TI, torch.from_numpy(self._weight_OI), out_TO)


class Int8Matrix(Matrix):
    """A linear layer's weights [O, I] in int8."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        scale_O1 = weight_OI.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
        rounded_OI = (weight_OI / scale_O1).round_().to(torch.int8)
        super().__init__(rounded_OI, bias_O)
        self._scale_O = scale_O1[:, 0].contiguous().numpy()
        self._packed = torch.ops.onednn.qlinear_prepack(rounded_OI, None) if multiplies_int8() else None

    def rows(self, indices_T: Array) -> Array:
        chosen: Array = self._weight_OI[indices_T] * self._scale_O[indices_T, None]
        return chosen

    def _multiply(self, x_TI: Array, out_TO: Array) -> None:
        rounded_TI, scale_T = np.empty_like(x_TI), np.empty(len(x_TI), np.float32)
        kernels.round_rows(x_TI, rounded_TI, scale_T)
        if len(x_TI) == 1:
            kernels.product_int8(rounded_TI[0], self._weight_OI, self._scale_O, out_TO[0])
        elif self._packed is not None:
            out_TO[:] = _int8_product(rounded_TI, self._packed, torch.from_numpy(self._scale_O)).numpy()
        else:
            weight_OI = torch.from_numpy(self._weight_OI) * torch.from_numpy(self._scale_O)[:, None]
            _multiply_many(rounded_TI, weight_OI, out_TO)
        out_TO *= scale_T[:, None]


def matrix(weight_OI: Tensor, bias_O: Tensor | None, number_format: str) -> Matrix:
    """A matrix in that format, float32 or int8."""
    return (Int8Matrix if number_format == "int8" else Matrix)(weight_OI, bias_O)


def _multiply_many(x_TI: Array, weight_OI: Tensor, out_TO: Array) -> None:
    rest = len(x_TI) % ROUNDED[-1]
    whole = len(x_TI) - rest
    x, out = torch.from_numpy(x_TI), torch.from_numpy(out_TO)
    with arithmetic.multiplying_by(arithmetic.fastest()):
        if whole:
            arithmetic.product(x[:whole], weight_OI.T, out[:whole])
        if rest:
            filled = next(size for size in ROUNDED if size >= rest)
            out[whole:] = torch.mm(F.pad(x[whole:], (0, 0, 0, filled - rest)), weight_OI.T)[:rest]


def _int8_product(rounded_TI: Array, packed: Tensor, scale_O: Tensor) -> Tensor:
    """Whole numbers times a packed matrix, by oneDNN, which takes its input as unsigned bytes with their zero at 128."""
    bytes_TI = torch.from_numpy(rounded_TI).add(128).to(torch.uint8)
    zeros_O = torch.zeros(len(scale_O), dtype=torch.int32)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        bytes_TI, 1.0, 128, packed, scale_O, zeros_O, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


@cache
def multiplies_int8() -> bool:
    """Whether this PyTorch multiplies int8 matrices, and exactly: without the VNNI instructions sums of two products may
    overflow."""
    weight_OI = torch.full((16, 256), 127, dtype=torch.int8)
    x_TI = np.full((2, 256), 127, np.float32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight_OI, None)
        found = _int8_product(x_TI, packed, torch.ones(16))
    except (AttributeError, RuntimeError):
        return False
    return bool((found == 127 * 127 * 256).all())
