"""Each kernel against NumPy, in float64."""

import numpy as np
import pytest

from outcrop.serving.engines import kernels

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max())


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest):
    kernels.use_threads(request.param)
    yield request.param
    kernels.use_threads(1)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (4, 16), (29, 50), (64, 33)])
def test_products(rows: int, outputs: int, inputs: int, threads: int) -> None:
    x, weight, out = normal(rows, inputs), normal(outputs, inputs), np.empty((rows, outputs), np.float32)
    kernels.product(x, weight, out)
    assert close(out, x.astype(float) @ weight.T.astype(float))


def test_int8_products_of_whole_numbers_are_exact(threads: int) -> None:
    x = RANDOM.integers(-127, 128, 1536).astype(np.float32)
    weight = RANDOM.integers(-127, 128, (50, 1536), dtype=np.int8)
    out = np.empty(50, np.float32)
    kernels.product_int8(x, weight, np.ones(50, np.float32), out)
    assert (out == x.astype(np.int64) @ weight.T.astype(np.int64)).all()


def softmax(scores: np.ndarray, sinks: np.ndarray | None) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    total = powers.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks[:, None] - scores.max(-1, keepdims=True))
    return powers / total


@pytest.mark.parametrize("window", [0, 5, 40])
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_attention_over_pages(window: int, softcap: float, has_sinks: bool, threads: int) -> None:
    heads, kv_heads, width, lengths = 6, 2, 8, [1, 32, 33, 90]
    keys, values = normal(12, kv_heads, 32, width), normal(12, kv_heads, 32, width)
    order = RANDOM.permutation(12)
    tables, used = np.zeros((4, 3), np.int64), 0
    for row, length in enumerate(lengths):
        count = -(-length // 32)
        tables[row, :count] = order[used : used + count]
        used += count
    sinks = normal(heads) if has_sinks else np.empty(0, np.float32)
    query, out = 3 * normal(4, heads + 2 * kv_heads, width), np.empty((4, heads, width), np.float32)
    positions = np.array(lengths) - 1
    kernels.attend(query, keys, values, tables, np.arange(4), positions, 0.5, window, softcap, sinks, out)
    for row, length in enumerate(lengths):
        begin = max(0, length - window) if window else 0
        key, value = (
            kept[tables[row]].transpose(1, 0, 2, 3).reshape(kv_heads, -1, width)[:, begin:length].repeat(3, 0)
            for kept in (keys, values)
        )
        scores = np.einsum("hd,hcd->hc", query[row, :heads].astype(float), key) * 0.5
        if softcap:
            scores = np.tanh(scores / softcap) * softcap
        expected = np.einsum("hc,hcd->hd", softmax(scores, sinks if has_sinks else None), value)
        assert close(out[row], expected)


def test_norms_and_gates() -> None:
    x, more, weight, out = normal(3, 40), normal(3, 40), normal(40), np.empty((3, 40), np.float32)
    summed = (x + more).astype(float)
    expected = summed / np.sqrt((summed**2).mean(-1, keepdims=True) + 1e-5) * weight
    kernels.add_and_norm(x, more, weight, 1e-5, out)
    assert close(out, expected)
    assert close(x, summed)
    both, opened = 40 * normal(3, 60), np.empty((3, 30), np.float32)
    kernels.gate(both, opened)
    gate, up = both[:, :30].astype(float), both[:, 30:]
    assert close(opened, gate / (1 + np.exp(-gate)) * up)


def test_each_row_has_its_own_adapter(threads: int) -> None:
    x, A, B, out = normal(3, 20), normal(8, 20), normal(8, 10), np.zeros((3, 15), np.float32)
    kernels.add_low_rank(x, A, B, np.array([0, 2, 0]), np.array([2, 6, 0]), out, 5)
    assert not out[:, :5].any()
    assert close(out[0, 5:], x[0] @ A[:2].T @ B[:2])
    assert close(out[1, 5:], x[1] @ A[2:].T @ B[2:])
    assert not out[2].any()
