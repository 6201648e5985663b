"""Products in pieces are products, and what multiplies is chosen by the processor."""

import pytest
import torch

from outcrop import arithmetic
from outcrop.arithmetic import MKL, ONEDNN, PIECES


@pytest.mark.parametrize("rows", [1, 63, 64, 200, 2048 + 1024 + 64 + 5])
def test_a_product_in_pieces_is_the_product(rows: int, library: str) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, y = (torch.randn(*size, generator=generator) for size in ((rows, 32), (32, 48), (rows, 48)))
    assert torch.allclose(arithmetic.product(x, weight), x @ weight, atol=1e-4)
    into = torch.empty(rows, 48)
    assert arithmetic.product(x, weight, into) is into
    total = torch.ones(48, 32)
    arithmetic.add_outer_product(total, y, x, 0.5)
    exact = 1 + 0.5 * (y.double().T @ x.double())
    assert torch.allclose(total.double(), exact, rtol=1e-4, atol=1e-3)
    assert arithmetic.in_use() == library


def test_pieces_have_few_sizes_and_leave_little_over() -> None:
    for rows in range(1, 3000, 7):
        spans = list(arithmetic.pieces(rows))
        assert {end - begin for begin, end in spans} <= set(PIECES)
        assert rows - sum(end - begin for begin, end in spans) < PIECES[-1]


def test_what_is_faster_is_taken_only_when_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic.fastest() in (MKL, ONEDNN)
    monkeypatch.setattr(arithmetic, "is_float32", lambda library: library == MKL)
    assert arithmetic.fastest.__wrapped__() == MKL
