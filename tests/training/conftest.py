"""What multiplies is set for one test at a time."""

from collections.abc import Iterator

import pytest

from outcrop import arithmetic


@pytest.fixture(autouse=True)
def _mkl_again() -> Iterator[None]:
    yield
    arithmetic.use(arithmetic.MKL)


@pytest.fixture(params=[arithmetic.MKL, arithmetic.ONEDNN])
def library(request: pytest.FixtureRequest) -> str:
    if not arithmetic.is_float32(request.param):
        pytest.skip(f"{request.param} does not multiply in float32 on this processor")
    arithmetic.use(request.param)
    return str(request.param)
